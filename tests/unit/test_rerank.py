"""The order of candidates."""

from __future__ import annotations

import math

import pytest

from dalle.rerank import rank

NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ([], []),
        ([-3.0, -1.0, -2.0], [1, 2, 0]),
        ([0.5, 0.5, 0.7, 0.5], [2, 0, 1, 3]),  # ties keep their order
        ([NAN, -5.0, NAN, -4.0], [3, 1, 0, 2]),  # NaN never wins, and stays in order
        ([NAN, -math.inf], [1, 0]),  # not even against the worst
        ([-math.inf, math.inf, 0.0], [1, 2, 0]),
    ],
)
def test_the_highest_score_comes_first(scores: list[float], order: list[int]) -> None:
    assert rank(scores) == order
