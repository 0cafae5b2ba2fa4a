"""How far a job of the page is, and how often that is shown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

if TYPE_CHECKING:
    from dalle.results import CaptionResult, Frame

BETWEEN_ROWS_S = 0.2
"""Least time between two rows that are shown: on few cores, what a browser takes to paint one is
taken from the drawing."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is."""

    state: Literal["waiting", "loading", "drawing", "done", "stopped"]
    """`done` and `stopped` end a task; `stopped` ends the job as well."""
    task: int = 0
    """Which task, from 0."""
    ahead: int = 0
    """Jobs before this one, while it waits."""
    part: float = 0.0
    """How much of the job is drawn, 0 to 1."""
    seconds_left: float | None = None
    frame: Frame | None = None
    """What is being drawn."""
    candidates: int = 0
    """How many are drawn for the task."""
    result: CaptionResult | None = None
    """The ranked pictures of a task that is done, or those complete when it was stopped."""
    reason: str = ""
    """Why it was stopped, for the person."""
    seconds: float = 0.0
    """Time since the job began to draw."""

    @property
    def first_candidate(self) -> int:
        """Index of the first candidate that is being drawn; those before it are complete."""
        return 0 if self.frame is None else self.frame.first_candidate

    @property
    def rows_done(self) -> int:
        """Complete rows of the token grid of the candidates being drawn."""
        return 0 if self.frame is None else self.frame.rows_done

    @property
    def rows(self) -> int:
        """Rows of the whole grid."""
        return 0 if self.frame is None else self.frame.rows

    @property
    def previews(self) -> tuple[Image.Image | None, ...]:
        """Every candidate as far as it is drawn; None for those not begun."""
        if self.frame is None:
            return ()
        complete = [image.image for image in self.frame.finished[: self.first_candidate]]
        begun = [*complete, *self.frame.previews]
        return (*begun, *[None] * (self.candidates - len(begun)))

    @property
    def preview(self) -> Image.Image | None:
        """The first candidate alone, as far as it is drawn."""
        if self.frame is None:
            return None
        return self.frame.finished[0].image if self.first_candidate else self.frame.preview


def paced(steps: Iterator[Progress]) -> Iterator[Progress]:
    """`steps` without the rows that follow too soon upon one that is shown."""
    shown_at = -math.inf
    for step in steps:
        if step.state == "drawing":
            if step.seconds - shown_at < BETWEEN_ROWS_S:
                continue
            shown_at = step.seconds
        yield step
