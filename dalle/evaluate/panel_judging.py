"""Bottom panels judged in parallel processes, each of which paints what it compares with.

This file must not import torch, which every process would load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from dalle.data.emoji.font import find_font
from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import Subject
from dalle.evaluate.panel_judge import PanelJudge, PanelVerdict
from dalle.processes import Processes


@dataclass(frozen=True, kw_only=True)
class PanelJudging:
    """How panels are judged; see `PanelJudge`."""

    font: Path
    image_px: int
    subjects: tuple[Subject, ...]
    """What may be shown."""


@dataclass(frozen=True, kw_only=True)
class JudgedPanel:
    """A two-panel picture, and what its bottom should show."""

    image_u8: np.ndarray
    """The whole picture, shape (y, x, 3), uint8."""
    number: int
    """The subject's place among those of the `PanelJudging`."""
    look: str


class PanelJudges(Processes):
    """Processes with a judge of panels in each, which has painted every subject in every look."""

    def __init__(self, judging: PanelJudging, *, workers: int) -> None:
        """Promise `workers` of them; 0 is one per processor, and one is this process."""
        super().__init__(workers)
        self.judging = judging

    def verdicts(self, groups: Iterable[Sequence[JudgedPanel]]) -> Iterator[list[PanelVerdict]]:
        """What panels show: a list for each group, in order.

        Groups are taken as they are judged, a few ahead, so that they may be drawn meanwhile.

        Raises:
            FontError: The font cannot be used.
            DalleError: A process was killed.
        """
        return self.map(partial(_verdicts, self.judging), groups)


def _verdicts(judging: PanelJudging, panels: Sequence[JudgedPanel]) -> list[PanelVerdict]:
    judge = _panel_judge(judging)
    return [
        judge.judge(Image.fromarray(one.image_u8), number=one.number, look=one.look)
        for one in panels
    ]


@lru_cache(maxsize=1)
def _panel_judge(judging: PanelJudging) -> PanelJudge:
    """The judge of this process, built once."""
    return PanelJudge(Painter(find_font(judging.font), judging.image_px), judging.subjects)
