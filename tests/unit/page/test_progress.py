"""Rows that come quickly are not all shown; everything else is."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from dalle import TextToImage
from dalle.page.progress import BETWEEN_ROWS_S, Progress, paced


def test_rows_that_follow_too_soon_are_left_out() -> None:
    times = [0.05, 0.25, 0.75, 1.1, 1.5, 2.05, 10.0]
    rows = [
        Progress(state="drawing", ahead=number, seconds=BETWEEN_ROWS_S * time)
        for number, time in enumerate(times, start=1)
    ]
    shown = [step.ahead for step in paced(iter(rows))]
    assert shown == [1, 4, 7], "the first at once, the others in their time"


def test_what_is_no_row_is_always_shown() -> None:
    steps = [
        Progress(state="waiting", ahead=1),
        Progress(state="loading"),
        Progress(state="drawing", seconds=0.01),
        Progress(state="done", seconds=0.02),
        Progress(state="done", task=1, seconds=0.03),
        Progress(state="stopped", seconds=0.04),
    ]
    assert list(paced(iter(steps))) == steps


def test_candidates_are_shown_complete_begun_or_not_yet(tiny_pipeline: TextToImage) -> None:
    frames = list(tiny_pipeline.stream("a fox", candidates=18))
    step = Progress(state="drawing", frame=frames[4], candidates=20)
    assert (step.first_candidate, step.rows_done, step.rows) == (16, 1, 4)
    assert step.preview is step.previews[0] is frames[3].previews[0], "complete as it was drawn"
    assert step.previews[16:18] == frames[4].previews
    assert step.previews[18:] == (None, None)


def test_before_anything_is_drawn_there_is_nothing_to_show() -> None:
    step = Progress(state="loading")
    assert (step.previews, step.preview, step.rows) == ((), None, 0)
