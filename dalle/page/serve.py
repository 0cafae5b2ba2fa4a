"""`dalle demo`: the page on a port of this machine, until Ctrl-C or SIGTERM.

Gradio reads some choices from the environment when it is imported, so that happens in here, after
they are made: no telemetry, no other host, files in a folder of our own that goes when we go.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import socket
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dalle.allocator import share_arenas
from dalle.config import Demo
from dalle.errors import DalleError
from dalle.page.doorkeeper import LOOPBACK, Doorkeeper
from dalle.page.facts import read_facts
from dalle.page.limits import Limits
from dalle.page.quick_start import quick_import
from dalle.page.service import Service
from dalle.page.sweep import sweep_for_good

if TYPE_CHECKING:
    from dalle.pipeline import TextToImage

log = logging.getLogger(__name__)

SAFE_PILLOW = 13
SWITCH_S = 0.0005
"""After how long a thread of Python's leaves the interpreter to one that waits for it."""


def run(settings: Demo) -> int:
    """Serve until a signal says to end; 0 after Ctrl-C or SIGTERM has been handled.

    Raises:
        ModelFormatError: There is no such model, or it is damaged.
        DalleError: The page's packages are missing, or the port is taken.
    """
    share_arenas()
    # While one thread imports or draws, those that answer get their turn ten times as soon.
    sys.setswitchinterval(SWITCH_S)
    # It quotes captions that were cut. Their writers are told on the page; the log holds none.
    logging.getLogger("dalle.drawing").setLevel(logging.ERROR)
    facts = read_facts(settings.model)
    folder = Path(tempfile.mkdtemp(prefix="dalle-page-"))
    try:
        _prepare_environment(folder)
        _check_packages(mcp=settings.mcp)
        listener = _listen(settings.host, settings.port)
        with listener:
            service = Service(
                facts,
                limits=Limits(job_seconds=settings.max_seconds),
                folder=folder / "results",
                load=lambda: _load(settings),
            )
            # Gradio takes a second or two from here; who comes sooner waits, and is not refused.
            _announce(settings, listener)
            return _serve(service, settings, listener)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _load(settings: Demo) -> TextToImage:
    from dalle.pipeline import TextToImage

    return TextToImage.from_pretrained(settings.model, clip=settings.clip, device=settings.device)


def _prepare_environment(folder: Path) -> None:
    """Settle what Gradio reads from the environment."""
    (folder / "results").mkdir()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("GRADIO_SHARE", None)
    os.environ.pop("GRADIO_ALLOWED_PATHS", None)


def _check_packages(*, mcp: bool) -> None:
    """Say what is missing, and what is not safe.

    Raises:
        DalleError: The page's packages are not installed.
    """
    import importlib.metadata
    import importlib.util

    if importlib.util.find_spec("gradio") is None:
        raise DalleError(
            "the web page needs more packages; in a clone run `make demo`, elsewhere "
            "`pip install 'dalle-studio[demo]'` and then `pip install --no-deps 'pillow>=13'`"
        )
    if mcp and importlib.util.find_spec("mcp") is None:
        raise DalleError("--mcp needs more packages; run `pip install 'dalle-studio[mcp]'`")
    version = importlib.metadata.version("pillow")
    if int(version.partition(".")[0]) < SAFE_PILLOW:
        log.warning(
            "Pillow %s has known faults in decoding pictures of strangers; run "
            "`pip install --no-deps 'pillow>=%d'`",
            version,
            SAFE_PILLOW,
        )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`.

    Raises:
        DalleError: The address cannot be had.
    """
    try:
        family, kind, protocol = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][:3]
        # asyncio sends without delay only where the socket names its protocol. Otherwise each of a
        # page's eighty files waits 40 ms for the browser to acknowledge its head.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except UnicodeError as err:  # such as an empty part between dots
        raise DalleError(
            f"--host {host!r:.80} is no name of a machine; give an address, such as 127.0.0.1, or "
            "leave --host out"
        ) from err
    except OSError as err:
        raise DalleError(
            f"cannot listen on {host}, port {port} ({err.strerror or err}); give another port with "
            "--port, or --port 0 for any that is free"
        ) from err
    return listener


def _serve(service: Service, settings: Demo, listener: socket.socket) -> int:
    """Build the page and serve it on `listener`."""
    with quick_import():
        import uvicorn

        from dalle.page.build import build_page, is_awaited, mounted
        from dalle.page.endpoints import parameters
        from dalle.page.shutdown import DrainingServer
        from dalle.page.style import css, script, theme

        page = build_page(service, ranks=service.facts.has_clip or settings.clip is not None)
        app = mounted(
            page,
            server_name=settings.host,
            server_port=listener.getsockname()[1],
            footer_links=["api"],
            run_history=False,
            show_error=False,
            enable_monitoring=False,
            pwa=False,
            max_file_size=service.limits.upload_bytes,
            mcp_server=settings.mcp,
            theme=theme(),
            css=css(service.facts.image_px),
            js=script(),
        )
    if settings.mcp and not page.mcp_server:  # for instance of a version that Gradio does not know
        raise DalleError(
            f"--mcp cannot be served ({page.mcp_error}); run `pip install 'dalle-studio[mcp]'`, "
            "which brings a version that fits, or leave --mcp out"
        )
    hosts = None
    if _is_loopback(settings.host):
        hosts = (*LOOPBACK, settings.host, *filter(None, [settings.public_host]))
    door = Doorkeeper(
        app,
        limits=service.limits,
        hosts=hosts,
        endpoints=parameters(),
        folder=service.folder.parent,
        is_awaited=partial(is_awaited, page),
    )
    server = DrainingServer(
        uvicorn.Config(
            door, log_level="warning", access_log=False, server_header=False, lifespan="on",
            timeout_graceful_shutdown=2,
        ),
        service,
    )  # fmt: skip
    service.load_in_background(server.fail)
    sweep_for_good(service.folder.parent, kept=service.folder)
    server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
    return 0


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _announce(settings: Demo, listener: socket.socket) -> None:
    """Say where the page is, and who can reach it."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    shown = f"[{host}]" if ":" in host else host
    if not _is_loopback(settings.host):
        log.warning(
            "the page listens on %s without a password: whoever reaches this machine can use it; "
            "leave --host out, and let a proxy with a sign-in on this machine serve it to others "
            "(--public_host)",
            settings.host,
        )
    sys.stdout.write(f"http://{shown}:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    log.info("Ctrl-C ends it")
