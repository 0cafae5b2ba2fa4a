"""Panels judged in several processes: the same verdicts as one judge gives, in order."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import Subject
from dalle.evaluate.panel_judge import PanelJudge
from dalle.evaluate.panel_judging import JudgedPanel, PanelJudges, PanelJudging
from dalle.evaluate.panels import heldout_cases


@pytest.mark.parametrize("workers", [1, 2])
def test_verdicts_come_in_the_order_of_groups(
    workers: int, painter: Painter, few_subjects: tuple[Subject, ...]
) -> None:
    """One process judged between drawings, whatever the machine had."""
    cases = heldout_cases(painter, few_subjects, per_look=1, seed=0)[:6]
    judge = PanelJudge(painter, few_subjects)
    groups = [
        [
            JudgedPanel(image_u8=np.asarray(image), number=case.number, look=case.look)
            for image in (case.truth, case.given)
        ]
        for case in cases
    ]
    judging = PanelJudging(font=painter.font.path, image_px=painter.image_px, subjects=few_subjects)
    with PanelJudges(judging, workers=workers) as judges:
        found = list(judges.verdicts(iter([*groups, []])))
    expected = [
        [judge.judge(i, number=case.number, look=case.look) for i in (case.truth, case.given)]
        for case in cases
    ]
    assert found == [*expected, []]
    assert {verdict.hit for one in found for verdict in one} == {True, False}


def test_a_process_that_judges_does_not_load_torch() -> None:
    program = "import sys, dalle.evaluate.panel_judging; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
