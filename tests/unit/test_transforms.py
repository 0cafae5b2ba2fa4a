"""Names of transforms, and the captions they stand for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dalle.data.emoji.dice import Dice
from dalle.data.emoji.heldout import heldout_transform
from dalle.data.emoji.looks import LOOKS
from dalle.data.emoji.palette import PAINTS
from dalle.data.emoji.wording import LOOK_NAMES, panel_caption
from dalle.transforms import TRANSFORMS, find_transform, is_zero_shot, transform_caption


def test_every_look_has_one_transform_and_no_name_stands_for_two() -> None:
    assert sorted(one.look for one in TRANSFORMS) == sorted(LOOKS)
    names = [name for one in TRANSFORMS for name in (one.name, *one.aliases)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)
    assert {*PAINTS, "sketch", "grayscale", "upside-down", "silhouette", "neon", "pixel-art"} < {
        *names
    }
    assert {"close-up", "postage-stamp", "stamp", "sunglasses", "hat"} < {*names}


@pytest.mark.parametrize("one", TRANSFORMS, ids=lambda one: one.name)
def test_a_transform_answers_to_all_its_names(one: Any) -> None:
    for name in (one.name, *one.aliases, one.look, one.look.upper(), f" {one.look} "):
        assert find_transform(name) is one


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("stamp", "postage stamp"),
        ("Pixel_Art", "pixel art"),
        ("coloured blue", "colored blue"),
        ("greyscale", "grayscale"),
        ("upside  down", "upside-down"),
    ],
)
def test_spellings_that_people_use_are_understood(name: str, look: str) -> None:
    assert find_transform(name).look == look


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("skech", r"unknown transform 'skech'; did you mean sketch\?"),
        ("upsidedown", r"did you mean upside-down\?"),
        ("stmp", r"did you mean stamp\?"),
        ("oil painting", r"unknown transform 'oil painting'; known: sketch, grayscale, .*yellow"),
        ("", "unknown transform ''; known: sketch"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_transform(name)


def test_a_name_is_a_string() -> None:
    number: Any = 3
    with pytest.raises(TypeError, match="a transform must be a string, got int"):
        find_transform(number)


@pytest.mark.parametrize(
    ("name", "subject", "caption"),
    [
        # Ramesh et al., figure 14
        ("sketch", "cat", "the exact same cat on the top as a sketch on the bottom"),
        ("red", "cat", "the exact same cat on the top colored red on the bottom"),
        ("stamp", "cat", "the exact same cat on the top as a postage stamp on the bottom"),
        (
            "upside-down",
            None,
            "the exact same photo on the top reflected upside-down on the bottom",
        ),
        # the same form for others than the paper's
        ("sketch", None, "the exact same photo on the top as a sketch on the bottom"),
        ("sunglasses", "fox", "the exact same fox on the top with sunglasses on the bottom"),
    ],
)
def test_captions_are_the_papers(name: str, subject: str | None, caption: str) -> None:
    assert transform_caption(name, subject) == caption


@pytest.mark.parametrize(
    ("subject", "noun"),
    [
        ("a fox", "fox"),
        ("An apple", "apple"),
        ("THE  eiffel\ttower", "eiffel tower"),
        ("the the band", "the band"),
        ("a", "a"),
        ("theatre", "theatre"),
        ("{bare} {0}", "{bare} {0}"),
    ],
)
def test_a_subject_is_named_without_article(subject: str, noun: str) -> None:
    expected = f"the exact same {noun} on the top wearing a hat on the bottom"
    assert transform_caption("hat", subject) == expected


@pytest.mark.parametrize("subject", ["", "  ", "\x00"])
def test_a_blank_subject_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match=r"a subject must not be blank, got .*leave the subject"):
        transform_caption("sketch", subject)


def test_a_subject_is_valid_text() -> None:
    number: Any = 3
    with pytest.raises(TypeError, match="a subject must be a string, got int"):
        transform_caption("sketch", number)
    with pytest.raises(ValueError, match="lone surrogate"):
        transform_caption("sketch", "\ud800")
    # Putting marks in order takes time that grows with the square of their number.
    with pytest.raises(ValueError, match="at most 2,000 characters, got 80,001"):
        transform_caption("sketch", "a" + "\u0301\u0316" * 40_000)


def test_exactly_one_transform_is_zero_shot() -> None:
    found = [one.look for one in TRANSFORMS if is_zero_shot(one.name)]
    assert found == [heldout_transform()]


@pytest.mark.parametrize("look", LOOK_NAMES)
def test_training_shows_every_caption_word_for_word(look: str) -> None:
    """Drawn from the training wordings, each caption here comes up among a few hundred."""
    from dalle.data.emoji.wording import _LOOKS, _panel_template

    seen = {_panel_template(_LOOKS[look], Dice(f"{n}")).format(bare="fox") for n in range(300)}
    assert panel_caption(look, "fox") in seen
    assert panel_caption(look, None) in seen


def test_a_look_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match=r"look must be one of sketch, .*, got 'mosaic'"):
        panel_caption("mosaic", "fox")
