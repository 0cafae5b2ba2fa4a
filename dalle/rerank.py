"""Putting candidates in order: the best first, and what "best" was measured by.

Axis letters: g candidates of a caption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

RankerName = Literal["likelihood"]
"""`likelihood`: mean log-probability of a candidate's image tokens, by the model that drew it."""


def rank(scores: Sequence[float]) -> list[int]:
    """Indices of `scores`, highest first; equal scores keep their order, NaN comes last."""
    by_score = [(math.isnan(score), 0.0 if math.isnan(score) else -score) for score in scores]
    return sorted(range(len(scores)), key=by_score.__getitem__)
