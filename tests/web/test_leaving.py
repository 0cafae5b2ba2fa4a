"""Programs that do not wait for their answer: what they asked for is not drawn to its end."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dalle.page.facts import read_facts
from dalle.page.limits import Limits
from dalle.page.quick_start import quick_import
from dalle.page.service import Service
from tests.commands import wait_until
from tests.paths import ROOT
from tests.random_models import save_random_model
from tests.web.serving import http_client

FOX = ROOT / "dalle" / "page" / "examples" / "fox.png"
LONG = {"caption": "a fox", "candidates": 4096, "keep": 1}
SHORT = {"caption": "a fox", "candidates": 1, "keep": 1}
# Gradio's own statistics use what pandas is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing")
PATIENCE_S = 60
"""Far less than the job of `LONG` takes with the model of these tests."""


@dataclass(frozen=True)
class Served:
    """A page in this process, whose queue can be looked into."""

    url: str
    service: Service

    def ask(self, endpoint: str, body: object) -> str:
        """Ask for something and get the number of the event; nobody listens yet."""
        asked = http_client().post(f"{self.url}/gradio_api/call/v2/{endpoint}", json=body)
        assert asked.status_code == 200, asked.text
        return str(asked.json()["event_id"])

    @contextlib.contextmanager
    def listening(self, endpoint: str, event: str) -> Iterator[Iterator[str]]:
        """The lines of the answer; the connection closes with the block."""
        address = f"{self.url}/gradio_api/call/{endpoint}/{event}"
        with http_client().stream("GET", address, timeout=PATIENCE_S) as answer:
            assert answer.status_code == 200
            yield answer.iter_lines()

    def is_drawing(self) -> bool:
        """Whether a job has begun to draw."""
        return any(ticket._seconds() is not None for ticket in self.service.admission._tickets)

    def inside(self) -> int:
        """How many jobs draw or wait."""
        return len(self.service.admission._tickets)

    def upload(self) -> dict[str, Any]:
        """A picture that the page has received."""
        files = {"files": ("fox.png", FOX.read_bytes(), "image/png")}
        (path,) = http_client().post(f"{self.url}/gradio_api/upload", files=files).json()
        return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of large pictures: 32 x 32 tokens, random weights."""
    return save_random_model(
        tmp_path_factory.mktemp("models") / "large-pictures", grid=32, groups=2
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this server keeps its files, as Gradio is told."""
    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("page")
        environment.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def served(model: Path, folder: Path, needs_gradio: None) -> Iterator[Served]:
    with quick_import():
        import uvicorn

        from dalle.page.build import build_page, mounted
    from dalle import TextToImage

    (results := folder / "results").mkdir()
    service = Service(
        read_facts(model),
        limits=Limits(candidates=4096, job_seconds=3600),
        folder=results,
        load=lambda: TextToImage.from_pretrained(model, device="cpu"),
    )
    service.load_in_background(lambda err: pytest.fail(str(err)))
    page = build_page(service, ranks=False)
    server = uvicorn.Server(
        uvicorn.Config(mounted(page), port=0, log_level="warning", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the server starts", seconds=PATIENCE_S)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(url=f"http://127.0.0.1:{port}", service=service)
    finally:
        service.stop_all()
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("endpoint", ["generate", "complete", "transform"])
def test_a_job_ends_with_its_row_when_its_caller_leaves(served: Served, endpoint: str) -> None:
    """It once went on to its last candidate, and others waited for pictures that nobody got."""
    body = {**LONG} if endpoint == "generate" else {"candidates": 4096, "picture": served.upload()}
    with served.listening(endpoint, served.ask(endpoint, body)):
        wait_until(served.is_drawing, what="it draws", seconds=PATIENCE_S)
    assert served.service.admission.wait_until_idle(PATIENCE_S)


@pytest.mark.parametrize("endpoint", ["generate", "rank"])
def test_who_leaves_gives_back_a_place_in_the_queue(served: Served, endpoint: str) -> None:
    body = {**SHORT} if endpoint == "generate" else {"caption": "a", "pictures": [served.upload()]}
    with served.service.admission.enter("somebody else"):
        with served.listening(endpoint, served.ask(endpoint, body)):
            wait_until(lambda: served.inside() == 2, what="two are inside", seconds=PATIENCE_S)
        wait_until(lambda: served.inside() == 1, what="one is inside", seconds=PATIENCE_S)


def test_the_pictures_of_who_leaves_are_not_read_on(served: Served) -> None:
    """A call may name dozens of them, each opened in a process of its own."""
    body = {"caption": "a fox", "pictures": [served.upload()] * 4000}
    with served.listening("rank", served.ask("rank", body)):
        wait_until(lambda: served.inside() == 1, what="one is inside", seconds=PATIENCE_S)
    assert served.service.admission.wait_until_idle(PATIENCE_S)


def test_a_cancelled_job_ends_with_its_row(served: Served) -> None:
    from gradio_client import Client
    from gradio_client.utils import Status

    client = Client(served.url, verbose=False)
    job = client.submit(**LONG, api_name="/generate")
    # The page may draw before this client has read which event it is; what it cancels until then
    # names no event, and the page refuses that without the client's saying so.
    wait_until(
        lambda: job.status().code is Status.PROCESSING, what="the job begins", seconds=PATIENCE_S
    )
    wait_until(served.is_drawing, what="it draws", seconds=PATIENCE_S)
    job.cancel()
    assert served.service.admission.wait_until_idle(PATIENCE_S)


def test_who_has_not_begun_to_listen_has_not_left(served: Served) -> None:
    event = served.ask("generate", SHORT)
    wait_until(lambda: not served.inside(), what="nobody is inside", seconds=PATIENCE_S)
    with served.listening("generate", event) as lines:
        found = [line for line in lines if line]
    assert found[-2] == "event: complete", found
    assert len(json.loads(found[-1].removeprefix("data: "))[0]["images"]) == 1
