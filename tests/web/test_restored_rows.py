"""A dropped picture that went on from another one, as the tab Draw handles it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dalle.page.drawn import Earlier
from dalle.page.service import Service
from tests.services import service_of

if TYPE_CHECKING:
    from dalle import GeneratedImage, TextToImage


class Tab:
    """The tab Draw of a page, asked as Gradio asks it."""

    def __init__(self, service: Service) -> None:
        from dalle.page.build import build_page

        events = build_page(service, ranks=False).fns.values()
        by_name = {getattr(one.fn, "__name__", ""): one for one in reversed(list(events))}
        restore: Any = by_name["_restore"].fn
        draw: Any = by_name["_draw"].fn
        self.restore, self.draw, self.tab = restore, draw, restore.__self__
        self.inputs = by_name["_draw"].inputs

    def press(self, updates: dict[Any, Any], **changes: Any) -> dict[Any, Any]:
        """What the last update says after the widgets were filled by `updates` and Draw pressed."""
        import gradio as gr

        tab = self.tab
        values = [updates.get(one, getattr(one, "value", None)) for one in self.inputs]
        values = [one["value"] if isinstance(one, dict) else one for one in values]
        for name, value in changes.items():
            values[self.inputs.index(getattr(tab, name))] = value
        values[self.inputs.index(tab.shared.earlier)] = Earlier()
        last: dict[Any, Any] = {}
        for update in self.draw(gr.Request(session_hash="me"), *values):
            last = update
        return last


@pytest.fixture
def tab(needs_gradio: None, tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path) -> Tab:
    return Tab(service_of(tiny_model, tiny_pipeline, tmp_path))


@pytest.fixture
def completed(tiny_pipeline: TextToImage) -> GeneratedImage:
    given = tiny_pipeline.generate("a pizza", candidates=1, seed=3).images[0]
    prompt = tiny_pipeline.first_rows(given, 3)
    return tiny_pipeline.generate("a fox", image=prompt, candidates=2, seed=9).images[0]


def test_a_restored_picture_is_drawn_again_with_the_rows_that_it_was_given(
    tab: Tab, completed: GeneratedImage, tmp_path: Path
) -> None:
    """It once told its owner to look for the other picture."""
    completed.save(tmp_path / "dropped.png")
    updates = tab.restore(str(tmp_path / "dropped.png"))
    assert "Settings restored: seed 9" in updates[tab.tab.easel.status]
    shown = updates[tab.tab.goes_on]
    assert (shown["visible"], shown["value"]) == (True, True)
    assert shown["label"] == "Keep the first 3 rows of tokens, which the restored picture was given"
    drawn = tab.press(updates)[tab.tab.easel.current]
    assert completed.png() in {image.png() for image in drawn.images}
    assert "--vary=dropped.png --keep-rows=3" in tab.press(updates)[tab.tab.easel.code.shell]
    assert tab.tab.showing(drawn)[tab.tab.begun] == updates[tab.tab.begun]
    whole = tab.press(updates, goes_on=False)[tab.tab.easel.current]
    assert {image.recipe.prompt for image in whole.images} == {()}


def test_the_rows_of_another_model_are_left_out_and_that_is_said(
    tab: Tab, completed: GeneratedImage, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(completed.recipe, model="f" * 16)
    dataclasses.replace(completed, recipe=recipe).save(tmp_path / "dropped.png")
    updates = tab.restore(str(tmp_path / "dropped.png"))
    assert updates[tab.tab.begun] is None
    assert "Another model drew this picture" in updates[tab.tab.easel.status]
    assert "is left out" in updates[tab.tab.easel.status]


@pytest.mark.parametrize(
    ("index", "sampling", "message"),
    [
        (99, {}, "candidates 100 is not among what this page offers (1 to 64)"),
        (1, {"top_p": 0.01}, "top_p 0.01 is not among what this page offers (0.05 to 1)"),
        (1, {"top_k": 5000}, "top_k 5000 is not among what this page offers (0 to "),
        (1, {"guidance_scale": 0.5}, "guidance_scale 0.5 is not among"),
        (1, {"temperature": 3.0}, "temperature 3 is not among"),
    ],
)
def test_what_the_widgets_cannot_show_is_not_restored(
    tab: Tab,
    completed: GeneratedImage,
    tmp_path: Path,
    index: int,
    sampling: dict[str, Any],
    message: str,
) -> None:
    """Sliders beyond their ends were filled in, and the next drawing failed without saying why."""
    changed = dataclasses.replace(completed.recipe.sampling, **sampling)
    recipe = dataclasses.replace(completed.recipe, index=index, sampling=changed)
    dataclasses.replace(completed, recipe=recipe).save(tmp_path / "dropped.png")
    updates = tab.restore(str(tmp_path / "dropped.png"))
    assert message in updates[tab.tab.easel.status]
    assert "dalle generate --like" in updates[tab.tab.easel.status]
    assert tab.tab.caption not in updates


def test_whoever_draws_is_told_what_was_cut_from_the_caption(tab: Tab) -> None:
    updates = tab.press({}, caption="a fox " * 12)
    assert "only the first 12 tokens of the caption are used: " in updates[tab.tab.easel.status]
