"""What holds for every test: one thread, no network, repeatable examples; and one tiny model."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports torch. One thread: models of test size are slower with more, and sums keep
# their order. Offline: a test that needs the network is wrong, so let it fail at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
# Whether somebody has compiled the decode step on this machine must not change what a test sees.
os.environ["DALLE_CACHE"] = f"{os.devnull}/none"
os.environ.pop("DALLE_DEBUG", None)

import pytest
from hypothesis import settings

from tests.random_models import save_random_model

if TYPE_CHECKING:
    from dalle import TextToImage
    from dalle.data.emoji.font import EmojiFont
    from dalle.data.emoji.render import Painter

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


OWN_SERVERS = {
    "hostile",
    "leaving",
    "load",
    "overlapping",
    "restored_rows",
    "room",
    "serve",
    "sessions",
}
"""Files of `web` that start servers of their own; the others look at that of the bundled model."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process is left with it at the end.

    What needs a GPU is skipped, by its name, where there is none.
    """

    def folder(item: pytest.Item) -> str:
        return item.path.relative_to(Path(__file__).parent).parts[0]

    needs_gpu = pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no GPU")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(needs_gpu)
    order = ["web", "integration", "parity"]
    items.sort(key=lambda item: order.index(name) if (name := folder(item)) in order else 9)


def pytest_collection_finish() -> None:
    """Let torch's loggers pass lines on: pytest goes through all that keep them, for each test."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Where several processes share the tests, each takes whole files, in their order.

    `xdist_group` marks would say the same, but those of xdist 3.8 have no effect on pytest 9.2.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    config.option.loadscopereorder = False  # by the number of tests, which says little of the time
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = done_by_one
    return scheduler


def done_by_one(nodeid: str) -> str:
    """Name of what a test belongs to, all of which one process does.

    Files keep what they have prepared. Two browsers would only wait for each other, and too many
    servers at once take too much memory.
    """
    file = nodeid.partition("::")[0]
    folder, _, name = file.rpartition("/")
    if not folder.endswith("tests/web"):
        return file
    return "servers" if name.removeprefix("test_").removesuffix(".py") in OWN_SERVERS else "page"


@pytest.fixture
def log_reaches_caplog(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line, where another test has run it, passes no lines on, or warnings alone."""
    logger = logging.getLogger("dalle")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])
    level = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a real model of test size: random weights, 4 x 4 tokens, pictures of 16 px.

    The weights are large enough that caption and drawn tokens sway every further token; what
    guidance, a wrong cache or a wrong caption would change does change.
    """
    return save_random_model(
        tmp_path_factory.mktemp("models") / "tiny", grid=4, guidance_scale=1.5, gain=8
    )


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_model: Path) -> TextToImage:
    """The tiny model, loaded; it keeps nothing between calls, so all tests may share it.

    In fp32, whatever this processor would take by itself, so that rounding is the same everywhere.
    """
    from dalle import TextToImage

    return TextToImage.from_pretrained(tiny_model, device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def font() -> EmojiFont:
    """The emoji font of this machine."""
    from dalle.data.emoji.font import find_font
    from dalle.errors import FontError

    try:
        return find_font()
    except FontError as err:
        pytest.skip(f"needs a colour emoji font: {err}")


@pytest.fixture(scope="session")
def painter(font: EmojiFont) -> Painter:
    """Paints scenes of 64 px."""
    from dalle.data.emoji.render import Painter

    return Painter(font, 64)


def pytest_sessionfinish() -> None:
    """Let models that pages still load be loaded: cut off amid torch, they abort the process."""
    for thread in threading.enumerate():
        if thread.name == "load-model":
            thread.join(60)
