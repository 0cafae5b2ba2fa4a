"""What strangers may fill: the folder of uploads, and memory with the pictures of one call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from PIL import Image

from dalle import TextToImage
from dalle.checkpoint import load_model
from dalle.clip import ClipScorer
from dalle.page.doorkeeper import Doorkeeper
from dalle.page.exports import bytes_in
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.service import Service
from dalle.rerank import ClipRanker
from tests.services import service_of

if TYPE_CHECKING:
    from starlette.testclient import TestClient

# Gradio's own statistics use what pandas is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing")


async def taking(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"taken"})


def status_of(path: str, door: Doorkeeper) -> int:
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"host", b"localhost")]}
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(door(scope, receive, send))
    status = sent[0]["status"]
    assert isinstance(status, int)
    return status


def test_no_upload_is_taken_once_the_folder_is_full(tmp_path: Path) -> None:
    """Results had a quota, uploads had none: any visitor could fill the disk within an hour."""
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "a.png").write_bytes(bytes(999))
    limits = Limits(received_bytes=bytes_in(tmp_path) + 1)
    door = Doorkeeper(taking, limits=limits, hosts=None, endpoints={}, folder=tmp_path)
    assert status_of("/gradio_api/upload", door) == 200
    (tmp_path / "b.png").write_bytes(b"x")
    assert status_of("/gradio_api/upload", door) == 507
    assert status_of("/gradio_api/queue/join", door) == 200, "the rest of the page goes on"


@pytest.fixture
def client(
    needs_gradio: None,
    tiny_model: Path,
    tiny_pipeline: TextToImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TestClient]:
    """The page as it is served, its folder `tmp_path`."""
    from starlette.testclient import TestClient

    from dalle.page.build import build_page, mounted
    from dalle.page.endpoints import parameters

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (results := tmp_path / "results").mkdir()
    page = build_page(service_of(tiny_model, tiny_pipeline, results), ranks=False)
    door = Doorkeeper(
        mounted(page), limits=Limits(), hosts=None, endpoints=parameters(), folder=tmp_path
    )
    with TestClient(door) as client:
        client.page = page  # type: ignore[attr-defined]
        yield client


def answer_to(client: TestClient, endpoint: str, body: object) -> str:
    """What an endpoint of the page answers."""
    asked = client.post(f"/gradio_api/call/v2/{endpoint}", json=body)
    assert asked.status_code == 200, asked.text
    return client.get(f"/gradio_api/call/{endpoint}/{asked.json()['event_id']}").text


@pytest.mark.parametrize("name", [".", "..", "a.png/b", "gone.png", "x" * 300, ""])
def test_only_files_are_taken_for_uploads(client: TestClient, tmp_path: Path, name: str) -> None:
    """Any other path once stopped Gradio's deleting of old files for as long as the page ran."""
    from gradio.route_utils import delete_files_created_by_app

    files = {"files": ("a.png", b"nothing", "image/png")}
    (path,) = client.post("/gradio_api/upload", files=files).json()
    wrong = {"path": str(Path(path).parent / name), "meta": {"_type": "gradio.FileData"}}
    if not name:  # one that hides behind a good one, where Gradio looks for it
        wrong = {"path": path, "other": {**wrong, "path": str(tmp_path)}}
    answer = answer_to(client, "complete", {"picture": wrong})
    assert "a file must be uploaded to this page first, or again after an hour" in answer
    delete_files_created_by_app(client.page, age=None)  # type: ignore[attr-defined]
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("call/v2/generate", b"{}", 400, "generate needs caption"),
        ("call/v2/generate", b'{"caption":"a","nonsense":3}', 400, "does not take 'nonsense'"),
        (
            "call/v2/rank",
            b'{"pictures": []}',
            400,
            "rank needs caption; it takes pictures, caption",
        ),
        (
            "queue/join",
            b'{"data":[],"fn_index":9999,"session_hash":"a"}',
            400,
            "be understood, fault",
        ),
        ("queue/join", None, 413, "the request is too large"),
        ("call/v2/generate", None, 413, "the request is too large"),
        ("call/generate", None, 413, "the request is too large"),
    ],
)
def test_what_gradio_stumbles_over_is_answered_in_words(
    client: TestClient, path: str, body: bytes | None, status: int, message: str
) -> None:
    """Starlette said 500 before the door could say more; an endless body was called a mistake."""
    endless = (b"x" * 65536 for _ in range(40))
    answer = client.post(
        f"/gradio_api/{path}",
        content=endless if body is None else body,
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, message in answer.text) == (status, True), answer.text


class Sizes:
    """Stands where a CLIP would, and tells how large the pictures are that it is shown."""

    def scores(self, caption: str, images: list[Image.Image]) -> list[float]:
        del caption
        return [float(max(image.size)) for image in images]


@pytest.fixture
def service(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs_gradio: None
) -> Service:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    ranker = ClipRanker(lambda: cast(ClipScorer, Sizes()))
    model = TextToImage(load_model(tiny_model), ranker=ranker, device="cpu")
    return service_of(tiny_model, model, tmp_path / "results")


def test_pictures_to_rank_are_held_small(service: Service, tmp_path: Path) -> None:
    """One call may name 64 pictures of 40 megapixels, which once took 7 GiB of memory."""
    import gradio as gr

    from dalle.page.endpoints import Endpoints

    pictures = []
    for name, size in (("wide", (3000, 1000)), ("small", (40, 30))):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", size, "red").save(path)
        pictures.append({"path": str(path)})
    found = Endpoints(service).rank(gr.Request(), cast(Any, pictures), "a fox")
    assert found == [{"index": 0, "score": 512.0}, {"index": 1, "score": 40.0}]


@pytest.mark.parametrize("endpoint", ["rank", "complete", "transform"])
def test_no_picture_is_opened_before_a_job_is_let_in(
    service: Service, tmp_path: Path, endpoint: str
) -> None:
    """Any number of calls of one caller once kept both places where pictures are decoded."""
    import gradio as gr

    from dalle.page.endpoints import Endpoints

    (damaged := tmp_path / "damaged.png").write_bytes(b"no picture")
    one: Any = {"path": str(damaged)}
    asked = {"pictures": [one], "caption": "a fox"} if endpoint == "rank" else {"picture": one}
    call = partial(getattr(Endpoints(service), endpoint), gr.Request(), **asked)
    with pytest.raises(PageFault, match="is damaged"):
        call()
    enter = partial(service.admission.enter, "unknown")
    with enter(), enter(), pytest.raises(PageFault, match="2 jobs of yours are still under way"):
        call()
    assert service.admission.wait_until_idle(0), "refused or not, no place stays taken"


@pytest.mark.parametrize(
    ("subject", "message"), [("\x01", "a subject must not be blank"), ("x" * 2001, "at most 2,000")]
)
def test_a_subject_that_is_none_is_answered_in_words(
    service: Service, subject: str, message: str
) -> None:
    import gradio as gr

    from dalle.page.endpoints import Endpoints

    picture: Any = {"path": "not looked at yet"}
    with pytest.raises(PageFault, match=message):
        Endpoints(service).transform(gr.Request(), picture, "sketch", subject)
