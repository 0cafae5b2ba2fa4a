"""How many visitors the page remembers: the one that was longest away is forgotten first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dalle.page.drawn import Drawn
from dalle.page.limits import Limits
from dalle.page.restore import settings_of
from tests.services import service_of

if TYPE_CHECKING:
    from dalle import TextToImage


REMEMBERED = 6


@pytest.fixture
def page(needs_gradio: None, tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path) -> Any:
    from dalle.page.build import build_page

    service = service_of(tiny_model, tiny_pipeline, tmp_path, load=False, sessions=REMEMBERED)
    return build_page(service, ranks=False)


@pytest.fixture
def client(page: Any) -> Iterator[Any]:
    import gradio as gr
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    with TestClient(gr.mount_gradio_app(FastAPI(), page, path="/")) as client:
        yield client


def event(page: Any, name: str) -> Any:
    """The first event of the page, that of the tab Draw, which a method called `name` answers."""
    return next(one for one in page.fns.values() if getattr(one.fn, "__name__", "") == name)


def test_five_hundred_are_remembered() -> None:
    """Gradio's own limit is ten thousand, and each visitor takes a third of a MiB."""
    assert Limits().sessions == 500


def test_a_new_visitor_costs_no_description_of_every_widget(
    page: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio made one for each, for a twentieth of a second in which nobody was answered."""
    widgets = page.default_config.blocks.values()
    for widget in widgets:
        assert widget.get_config() == type(widget).get_config(widget)

    def described(*_: object) -> None:
        pytest.fail("a widget is described anew")

    for kind in {type(widget) for widget in widgets}:
        monkeypatch.setattr(kind, "get_config", described)
    visitors = page.state_holder
    caption = event(page, "_draw").inputs[0]
    visitors["one"]._update_value_in_config(caption._id, "a secret")
    assert visitors["one"].config_values[caption._id]["props"]["value"] == "a secret"
    assert "a secret" not in str(visitors["another"].config_values), "each has their own"


def test_a_visitor_too_many_takes_the_place_of_the_one_longest_away(
    page: Any, client: Any, tiny_pipeline: TextToImage
) -> None:
    toggle = event(page, "_toggle")
    current = toggle.inputs[1]
    images = tiny_pipeline.generate("a fox", candidates=2).images
    settings = settings_of(images[0].recipe)
    drawn = Drawn(place="draw", settings=(settings,), images=images, title="a fox")

    def stage_of(visitor: str) -> str:
        """What "Show all candidates" answers to a visitor."""
        asked = {"fn_index": toggle._id, "data": [True, None, 0], "session_hash": visitor}
        answer = client.post("/gradio_api/run/predict", json=asked)
        assert answer.status_code == 200, answer.text
        return str(answer.text)

    visitors = page.state_holder
    for early in ("oldest", "live"):
        visitors[early][current._id] = drawn
    for number in range(REMEMBERED - 2):
        visitors[f"visitor {number}"]  # as each request of one does
    assert "a fox: picture 2 of 2" in stage_of("live")
    assert "oldest" in visitors
    visitors["one too many"]
    assert "oldest" not in visitors
    assert len(visitors.session_data) == REMEMBERED
    assert "a fox: picture 2 of 2" in stage_of("live"), "whoever is here keeps what was drawn"
    assert "picture 2 of 2" not in stage_of("oldest"), "whoever comes back begins anew"
