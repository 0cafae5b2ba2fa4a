"""How often the page shows a drawing that goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dalle.page.service import Progress

BETWEEN_ROWS_S = 0.2
"""Least time between two rows that are shown: on few cores, what a browser takes to paint one is
taken from the drawing."""


def paced(steps: Iterator[Progress]) -> Iterator[Progress]:
    """`steps` without the rows that follow too soon upon one that is shown."""
    shown_at = -math.inf
    for step in steps:
        if step.state == "drawing":
            if step.seconds - shown_at < BETWEEN_ROWS_S:
                continue
            shown_at = step.seconds
        yield step
