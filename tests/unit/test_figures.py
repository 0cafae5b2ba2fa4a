"""The results' fixed captions are what their headings say: seen, or held out of training."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from dalle.data.emoji.heldout import heldout_transform, is_held_out
from tests.paths import ROOT

# Every caption of the sheet whose point is a combination: kind, then its parts by Unicode name.
COMBINATIONS = {
    "a cat on a blue background": ("subject, background", "cat", "blue"),
    "a rocket on a black background": ("subject, background", "rocket", "black"),
    "three apples": ("subject, count", "red apple", "3"),
    "a dog above a car": ("subject, subject", "automobile", "dog"),
    "a sketch of a lion": ("subject, look", "lion", "sketch"),
    "a postage stamp with a penguin": ("subject, look", "penguin", "postage stamp"),
    "the exact same tiger on the top as a sketch on the bottom": (
        "subject, look",
        "tiger",
        "sketch",
    ),
    "a dog on a red background": ("subject, background", "dog", "red"),
    "a tiger on a blue background": ("subject, background", "tiger", "blue"),
    "a penguin on a pink background": ("subject, background", "penguin", "pink"),
    "a teapot on a red background": ("subject, background", "teapot", "red"),
    "a bear on a purple background": ("subject, background", "bear", "purple"),
    "a lion on an orange background": ("subject, background", "lion", "orange"),
    "a crown on a black background": ("subject, background", "crown", "black"),
    "a sunflower on a blue background": ("subject, background", "sunflower", "blue"),
    "a sketch of a dog": ("subject, look", "dog", "sketch"),
    "a sketch of a banana": ("subject, look", "banana", "sketch"),
    "a hamburger colored red": ("subject, look", "hamburger", "colored red"),
    "an upside-down octopus": ("subject, look", "octopus", "upside-down"),
    "two bicycles": ("subject, count", "bicycle", "2"),
    "a robot with sunglasses": ("subject, look", "robot", "sunglasses"),
    "a fox to the left of an owl": ("subject, subject", "fox", "owl"),
}


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    pytest.importorskip("matplotlib", reason="figures are drawn with matplotlib, extra `dev`")
    spec = importlib.util.spec_from_file_location(
        "figures", ROOT / "docs" / "results" / "figures.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_half_of_the_sheet_is_held_out(figures: ModuleType) -> None:
    assert len(figures.SEEN_CAPTIONS) == len(figures.HELDOUT_CAPTIONS) == 16


def test_upper_half_may_be_trained_on(figures: ModuleType) -> None:
    for caption in figures.SEEN_CAPTIONS:
        if caption in COMBINATIONS:
            assert not is_held_out(*COMBINATIONS[caption]), caption


def test_lower_half_is_never_trained_on(figures: ModuleType) -> None:
    for caption in figures.HELDOUT_CAPTIONS[:-1]:
        assert is_held_out(*COMBINATIONS[caption]), caption
    assert heldout_transform() in figures.HELDOUT_CAPTIONS[-1]


def test_colours_of_completed_pictures_are_never_trained_on(figures: ModuleType) -> None:
    for name, background in figures.COMPLETED:
        if background != "white":
            assert is_held_out("subject, background", name, background), name
