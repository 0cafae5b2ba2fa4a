"""Rows that come quickly are not all shown; everything else is."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from dalle.page.pace import BETWEEN_ROWS_S, paced
from dalle.page.service import Progress


def test_rows_that_follow_too_soon_are_left_out() -> None:
    times = [0.05, 0.25, 0.75, 1.1, 1.5, 2.05, 10.0]
    rows = [
        Progress(state="drawing", rows_done=number, seconds=BETWEEN_ROWS_S * time)
        for number, time in enumerate(times, start=1)
    ]
    shown = [step.rows_done for step in paced(iter(rows))]
    assert shown == [1, 4, 7], "the first at once, the others in their time"


def test_what_is_no_row_is_always_shown() -> None:
    steps = [
        Progress(state="waiting", ahead=1),
        Progress(state="loading"),
        Progress(state="drawing", rows_done=1, seconds=0.01),
        Progress(state="done", seconds=0.02),
        Progress(state="done", task=1, seconds=0.03),
        Progress(state="stopped", seconds=0.04),
    ]
    assert list(paced(iter(steps))) == steps
