"""The judge of bottom panels, judged: by ones it must accept and ones it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import Placed, Scene
from dalle.data.emoji.subjects import Subject
from dalle.data.emoji.wording import LOOK_NAMES
from dalle.evaluate import panel_judge
from dalle.evaluate.panel_judge import PanelJudge
from dalle.evaluate.panels import _BOTTOM, _TOP


@pytest.fixture(scope="module")
def judge(painter: Painter, few_subjects: tuple[Subject, ...]) -> PanelJudge:
    return PanelJudge(painter, few_subjects)


def panels(painter: Painter, subject: Subject, look: str | None, *, top: Subject) -> Image.Image:
    placed = (
        Placed(subject=top, cell=_TOP, panel="top"),
        Placed(subject=subject, cell=_BOTTOM, look=look, panel="bottom"),
    )
    return painter.paint(Scene(kind="panels", placed=placed, background="white")).image


@pytest.mark.parametrize("look", LOOK_NAMES)
def test_truth_is_right_and_other_things_are_wrong(
    look: str, judge: PanelJudge, painter: Painter, few_subjects: tuple[Subject, ...]
) -> None:
    other_look = "neon" if look != "neon" else "sketch"
    for number in range(0, len(few_subjects), 4):
        subject, other = few_subjects[number], few_subjects[number - 1]
        image = panels(painter, subject, look, top=other)
        soft = image.filter(ImageFilter.GaussianBlur(0.6))
        assert judge.judge(image, number=number, look=look).hit
        assert judge.judge(soft, number=number, look=look).hit
        wrong_subject = judge.judge(image, number=(number - 1) % len(few_subjects), look=look)
        assert (wrong_subject.subject, wrong_subject.look) == (False, True)
        wrong_look = judge.judge(image, number=number, look=other_look)
        assert (wrong_look.subject, wrong_look.look) == (True, False)
        assert not wrong_look.hit


def test_a_copy_of_the_top_is_the_subject_in_no_look(
    judge: PanelJudge, painter: Painter, few_subjects: tuple[Subject, ...]
) -> None:
    image = panels(painter, few_subjects[3], None, top=few_subjects[3])
    verdict = judge.judge(image, number=3, look="sketch")
    assert (verdict.subject, verdict.look) == (True, False)


def test_an_empty_panel_is_wrong_in_both(
    judge: PanelJudge, painter: Painter, few_subjects: tuple[Subject, ...]
) -> None:
    image = panels(painter, few_subjects[0], "sketch", top=few_subjects[0])
    image.paste((255, 255, 255), (0, 32, 64, 64))
    for look in ("sketch", "neon", "close-up"):
        verdict = judge.judge(image, number=0, look=look)
        assert (verdict.subject, verdict.look) == (False, False)


def test_the_shortlist_changes_no_verdict(
    judge: PanelJudge,
    painter: Painter,
    few_subjects: tuple[Subject, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of soft and noisy panels, which a model's are like."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(panel_judge, "SHORTLIST", 24)  # of 375, about as 256 of 9,180
    drawn = []
    for number, subject in enumerate(few_subjects):
        look = LOOK_NAMES[number % len(LOOK_NAMES)]
        image = panels(painter, subject, look, top=subject).filter(ImageFilter.GaussianBlur(1))
        noise = rng.normal(0, 25, size=(64, 64, 3))
        noisy = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
        drawn.append((noisy, number, look))
    short = [judge.judge(image, number=number, look=look) for image, number, look in drawn]
    monkeypatch.setattr(panel_judge, "SHORTLIST", 10**9)
    assert [judge.judge(image, number=number, look=look) for image, number, look in drawn] == short
