"""How the server begins and ends."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dalle.cli import main
from tests.commands import PATIENCE_S, Command
from tests.paths import ROOT
from tests.web.serving import RunningPage, call, running_page


def demo(tmp_path: Path, *flags: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a page that cannot be served for long."""
    with Command(["demo", *flags], tmp_path / "page") as command:
        return command.ended(), command.stdout, command.stderr


def test_sigterm_ends_a_running_job_in_order(
    tiny_model: Path, tmp_path: Path, needs_gradio: None
) -> None:
    import httpx

    with running_page(tmp_path, "--model", str(tiny_model)) as page:
        page.wait_for_model()
        calls = f"{page.url}/gradio_api/call"
        body = {"caption": "a fox", "candidates": 64}
        event = httpx.post(f"{calls}/v2/generate", json=body, timeout=60).json()["event_id"]
        answers: list[str] = []
        listening = threading.Event()

        def listen() -> None:
            with httpx.stream("GET", f"{calls}/generate/{event}", timeout=60) as answer:
                listening.set()
                answers.append(answer.read().decode())

        asking = threading.Thread(target=listen)
        asking.start()
        assert listening.wait(60)  # whoever comes after the signal finds the door closed
        page.process.send(signal.SIGTERM)
        assert page.process.ended(60) == 128 + signal.SIGTERM
        assert "Traceback" not in page.log
        asking.join(60)
        assert answers
        # It was done already, or it was stopped, or its turn had not come.
        assert re.search("event: complete|Stopped|the page is closing", answers[0])
    left = [path for path in tmp_path.iterdir() if path.name.startswith("dalle-page-")]
    assert not left, "the folder of results goes with the server"


@pytest.fixture(scope="module")
def strict(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, needs_gradio: None
) -> Iterator[RunningPage]:
    """A page that is open to all, where no job may take longer than a thousandth of a second."""
    folder = tmp_path_factory.mktemp("strict")
    flags = ("--model", str(tiny_model), "--host", "0.0.0.0", "--max-seconds", "0.001")
    with running_page(folder, *flags) as page:
        yield page


def test_an_open_door_is_warned_of(strict: RunningPage) -> None:
    assert "warning: the page listens on 0.0.0.0 without a password" in strict.log


def test_a_job_over_the_time_limit_is_ended_with_a_message(strict: RunningPage) -> None:
    strict.wait_for_model()
    many = {"caption": "a fox", "candidates": 32, "keep": 1}
    answer = call(strict, "generate", many, client="10.2.0.1")
    assert "The job was stopped after 0.001 s, the longest that one may take" in answer
    assert "draw fewer pictures at once" in answer
    assert "fault" not in strict.log


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux to count a process's naps")
def test_a_page_at_rest_lets_the_processor_rest(strict: RunningPage) -> None:
    """Gradio looked for events a thousand times a second, which took a tenth of a core."""
    strict.wait_for_model()

    def naps() -> int:
        found = re.search(
            r"^voluntary_ctxt_switches:\s+(\d+)",
            Path(f"/proc/{strict.process.pid}/status").read_text(),
            re.MULTILINE,
        )
        assert found is not None
        return int(found[1])

    counts = []
    for _ in range(5):  # what an earlier test set off may still be ending
        before = naps()
        time.sleep(1)
        counts.append(naps() - before)
        if counts[-1] < 200:
            return
    pytest.fail(f"naps a second: {counts}")


def test_a_taken_port_is_told_with_the_remedy(needs_gradio: None) -> None:
    """Here by `app.py` itself, in a process that has to import everything."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, str(ROOT / "app.py"), "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in ended.stderr
    assert "--port 0" in ended.stderr


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (("--model", "nowhere"), 1, "there is no model 'nowhere'"),
        (("--port", "70000"), 2, "port must be between 0 and 65535, got 70000"),
        (("--max-seconds", "0"), 2, "max_seconds must be greater than 0"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(
    flags: tuple[str, ...], status: int, message: str, tmp_path: Path
) -> None:
    found, stdout, stderr = demo(tmp_path, *flags)
    assert (found, stdout) == (status, "")
    assert message in stderr


def test_a_damaged_model_ends_the_server(
    tiny_model: Path, tmp_path: Path, needs_gradio: None
) -> None:
    """Never a page that looks alive and cannot draw."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "transformer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    status, _, stderr = demo(tmp_path, "--model", str(broken), "--port", "0")
    assert status == 1
    assert "error:" in stderr
    assert "transformer.safetensors" in stderr


def dalle_with_packages_of(words: Sequence[str]) -> int:
    """`dalle`, which looks for packages in a folder first: the first of `words`."""
    sys.path.insert(0, words[0])
    return main(list(words[1:]))


def test_an_mcp_package_that_does_not_fit_is_told(
    tiny_model: Path, tmp_path: Path, needs_gradio: None
) -> None:
    """Gradio left the tools out without a word."""
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp" / "__init__.py").touch()
    words = [str(tmp_path), "demo", "--model", str(tiny_model), "--port", "0", "--mcp", "true"]
    with Command(words, tmp_path / "page", program=dalle_with_packages_of) as page:
        assert page.ended() == 1
        assert "error: --mcp cannot be served" in page.stderr
        assert "pip install 'dalle-studio[mcp]'" in page.stderr
