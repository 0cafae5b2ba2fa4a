"""What strangers may fill: the folder of uploads, and memory with the pictures of one call."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from dalle import TextToImage
from dalle.checkpoint import load_model
from dalle.clip import ClipScorer
from dalle.page.doorkeeper import Doorkeeper
from dalle.page.exports import bytes_in
from dalle.page.limits import Limits
from dalle.rerank import ClipRanker
from tests.services import service_of


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
    door = Doorkeeper(taking, limits=limits, hosts=None, endpoints=frozenset(), folder=tmp_path)
    assert status_of("/gradio_api/upload", door) == 200
    (tmp_path / "b.png").write_bytes(b"x")
    assert status_of("/gradio_api/upload", door) == 507
    assert status_of("/gradio_api/queue/join", door) == 200, "the rest of the page goes on"


class Sizes:
    """Stands where a CLIP would, and tells how large the pictures are that it is shown."""

    def scores(self, caption: str, images: list[Image.Image]) -> list[float]:
        del caption
        return [float(max(image.size)) for image in images]


def test_pictures_to_rank_are_held_small(
    needs_gradio: None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call may name 64 pictures of 40 megapixels, which once took 7 GiB of memory."""
    import gradio as gr

    from dalle.page.endpoints import Endpoints

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    ranker = ClipRanker(lambda: cast(ClipScorer, Sizes()))
    model = TextToImage(load_model(tiny_model), ranker=ranker, device="cpu")
    service = service_of(tiny_model, model, tmp_path / "results")
    pictures = []
    for name, size in (("wide", (3000, 1000)), ("small", (40, 30))):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", size, "red").save(path)
        pictures.append({"path": str(path)})
    found = Endpoints(service).rank(gr.Request(), cast(Any, pictures), "a fox")
    assert found == [{"index": 0, "score": 512.0}, {"index": 1, "score": 40.0}]
