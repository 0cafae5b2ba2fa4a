"""Cases are what training never showed, and nothing of their truth is given away."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dalle.data.emoji.grammar import Grammar
from dalle.data.emoji.heldout import heldout_combinations, heldout_transform
from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import Placed, Scene
from dalle.data.emoji.subjects import Subject, list_subjects
from dalle.data.emoji.wording import LOOK_NAMES, look_caption
from dalle.evaluate.panels import _BOTTOM, _TOP, PanelCase, bottom_square, heldout_cases


@pytest.fixture(scope="module")
def subjects(painter: Painter) -> tuple[Subject, ...]:
    return list_subjects(painter.font, "core")


@pytest.fixture(scope="module")
def cases(painter: Painter, subjects: tuple[Subject, ...]) -> list[PanelCase]:
    return heldout_cases(painter, subjects, per_look=3, seed=5)


def test_every_look_has_its_cases(cases: list[PanelCase]) -> None:
    assert Counter(case.look for case in cases) == dict.fromkeys(LOOK_NAMES, 3)
    assert {case.look for case in cases if case.is_zero_shot} == {heldout_transform()}


def test_training_shows_none_of_them(cases: list[PanelCase], subjects: tuple[Subject, ...]) -> None:
    """By the rule that scenes themselves go by, for a single picture and for panels."""
    for case in cases:
        assert subjects[case.number].name == case.subject
        placed = Placed(subject=subjects[case.number], cell=_BOTTOM, look=case.look)
        for kind in ("look", "panels"):
            scene = Scene(kind=kind, placed=(placed,), background="white", look=case.look)
            assert f"subject, look: {placed.subject.unicode_name} + {case.look}" in (
                heldout_combinations(scene)
            )


def test_the_choice_depends_on_the_seed_alone(
    painter: Painter, subjects: tuple[Subject, ...], cases: list[PanelCase]
) -> None:
    def names(found: list[PanelCase]) -> list[str]:
        return [case.subject for case in found]

    assert names(heldout_cases(painter, subjects, per_look=3, seed=5)) == names(cases)
    assert names(heldout_cases(painter, subjects, per_look=3, seed=6)) != names(cases)
    more = heldout_cases(painter, subjects, per_look=1000, seed=5)
    assert len(more) == 541, "as the data card counts the held-out pairs"
    assert names(more)[:3] == names(cases)[:3]


def test_the_truth_goes_on_from_what_is_given(cases: list[PanelCase]) -> None:
    for case in cases:
        given, truth = np.asarray(case.given), np.asarray(case.truth)
        assert (given[:32] == truth[:32]).all()
        assert (given[32:] == 255).all(), "nothing of the truth is given"
        assert (truth[32:] != 255).any()


def test_panels_stand_where_the_grammar_puts_them(subjects: tuple[Subject, ...]) -> None:
    class Middle:
        """Dice that fall on the middle place."""

        def pick(self, options: tuple[object, ...]) -> object:
            return options[len(options) // 2]

    scene = Grammar(subjects)._panels(Middle(), lambda: subjects[0])  # type: ignore[arg-type]
    assert [placed.cell for placed in scene.placed] == [_TOP, _BOTTOM]


def test_captions_ask_for_both_and_say_the_bottom(cases: list[PanelCase]) -> None:
    first = cases[0]
    assert first.caption == (f"the exact same {first.subject} on the top as a sketch on the bottom")
    assert first.bottom_caption in (
        f"a sketch of a {first.subject}",
        f"a sketch of an {first.subject}",
    )
    assert look_caption("colored red", "owl") == "an owl colored red"
    assert look_caption("upside-down", "fox") == "an upside-down fox"
    with pytest.raises(ValueError, match=r"look must be one of sketch, .*, got 'oil'"):
        look_caption("oil", "fox")


def test_the_bottom_square_is_the_middle_of_the_bottom() -> None:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[32:, 16:48] = 200
    square = bottom_square(Image.fromarray(pixels))
    assert square.size == (32, 32)
    assert (np.asarray(square) == 200).all()
