"""The settings of a tab: what its widgets ask for, and that something listens to each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from dalle import TextToImage
from dalle.page.build import build_page
from dalle.page.explore_tab import _lowered
from dalle.page.facts import read_facts
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.widgets import SettingsPanel
from tests.services import service_of


@pytest.fixture(scope="module")
def panel(tiny_model: Path) -> SettingsPanel:
    with gr.Blocks():
        return SettingsPanel(read_facts(tiny_model), Limits(), ranks=True, candidates=4, keep=2)


def values(panel: SettingsPanel, **changed: Any) -> list[Any]:
    """What the widgets show at first, but for those that are named."""
    named = {id(getattr(panel, name)): value for name, value in changed.items()}
    return [named.get(id(widget), widget.value) for widget in panel.inputs]


def test_a_new_seed_each_time_is_another_each_time(panel: SettingsPanel) -> None:
    seeds = {panel.read(values(panel), caption="a fox").seed for _ in range(8)}
    assert len(seeds) > 1
    assert panel.read(values(panel, fresh=False, seed="7"), caption="a fox").seed == 7


def test_drawings_may_share_a_seed_that_nobody_chose(panel: SettingsPanel) -> None:
    shared = panel.settled(values(panel))
    seeds = {panel.read(shared, caption=caption).seed for caption in ("a fox", "a pizza")}
    assert len(seeds) == 1


def test_a_seed_that_is_replaced_need_not_be_one(panel: SettingsPanel) -> None:
    """Bug: an empty box was refused though a new seed was asked for."""
    panel.read(values(panel, seed=""), caption="a fox")
    with pytest.raises(PageFault, match="seed must be a whole number, got ''"):
        panel.read(values(panel, seed="", fresh=False), caption="a fox")


def test_every_setting_that_can_be_seen_is_read(
    tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    """Bug: "New seed each time" stood ticked on two tabs where nothing looked at it."""
    service = service_of(tiny_model, tiny_pipeline, tmp_path)
    config = build_page(service, ranks=True).get_config_file()
    read = {place for event in config["dependencies"] for place in event["inputs"]}
    kinds = {"checkbox", "slider", "dropdown", "radio"}
    parts = [part for part in config["components"] if part["type"] in kinds]
    assert sum(part["props"]["label"] == "New seed each time" for part in parts) == 4
    unread = [part["props"]["label"] for part in parts if part["id"] not in read]
    assert unread == []


def test_headings_of_a_card_are_lowered_and_comments_of_its_code_are_not() -> None:
    card = "# A card\n\n## Use\n\n```sh\n# draws\ndalle generate\n```\n\n### More\n#no heading\n"
    assert _lowered(card) == (
        "## A card\n\n### Use\n\n```sh\n# draws\ndalle generate\n```\n\n#### More\n#no heading\n"
    )
