"""Many pictures judged in parallel processes, each of which renders what it compares.

This file must not import torch, which every process would load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from PIL import Image

from dalle.evaluate.attributes import AttributeJudge, Verdict
from dalle.evaluate.subjects import SubjectJudge
from dalle.processes import Processes, map_in_processes

AT_ONCE = 8
"""Pictures that a process is given at a time: few, as one may take as long as ten others."""


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How pictures are judged; see `SubjectJudge` and `AttributeJudge`."""

    image_px: int
    subjects: Literal["core", "all"]
    workers: int = 0
    """Processes; 0 for one per processor, 1 for none beside this one."""


@dataclass(frozen=True, kw_only=True)
class JudgedPicture:
    """A picture, and what it should show."""

    image_u8: np.ndarray
    """Shape (y, x, 3), uint8."""
    truth: Mapping[str, Any]
    """The scene's ground truth, as `.json` members hold it."""


def all_retrieved(
    judging: Judging, pictures: Sequence[JudgedPicture]
) -> Iterator[tuple[int, bool]]:
    """The number of each picture, in any order, and whether all its subjects are retrieved.

    Raises:
        FontError: No usable emoji font was found.
        DataError: A truth names a subject that these settings do not draw.
    """
    # Those of one place and look follow each other, since a judge keeps what it rendered last.
    order = sorted(range(len(pictures)), key=lambda number: _place(pictures[number].truth))
    groups = [order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)]
    tasks = [[pictures[number] for number in group] for group in groups]
    answers = map_in_processes(partial(_retrieved, judging), tasks, workers=judging.workers)
    for group, found in zip(groups, answers, strict=True):
        yield from zip(group, found, strict=True)


def _place(truth: Mapping[str, Any]) -> str:
    """Where and how the subjects of a scene are drawn, to sort by."""
    drawn = [(entry["cell"], entry["look"], entry["panel"]) for entry in truth["subjects"]]
    return repr((truth["background"]["name"], drawn))


def _retrieved(judging: Judging, pictures: Sequence[JudgedPicture]) -> list[bool]:
    judge = _subject_judge(judging)
    return [all(judge.retrieved(Image.fromarray(one.image_u8), one.truth)) for one in pictures]


@lru_cache(maxsize=1)
def _subject_judge(judging: Judging) -> SubjectJudge:
    """What judging needs, built once per process."""
    return SubjectJudge(image_px=judging.image_px, which=judging.subjects)


class Judges(Processes):
    """Processes with a judge of attributes in each, which keeps what it painted."""

    def __init__(self, judging: Judging) -> None:
        """Promise `judging.workers` of them."""
        super().__init__(judging.workers)
        self.judging = judging

    def verdicts(self, groups: Iterable[Sequence[JudgedPicture]]) -> Iterator[list[Verdict]]:
        """What pictures show of their truths: a list for each group, in order.

        Groups are taken as they are judged, a few ahead, so that they may be drawn meanwhile.

        Raises:
            FontError: No usable emoji font was found.
            DataError: A truth names a subject that these settings do not draw.
        """
        return self.map(partial(_verdicts, self.judging), groups)


def _verdicts(judging: Judging, pictures: Sequence[JudgedPicture]) -> list[Verdict]:
    judge = attribute_judge(judging)
    return [judge.judge(Image.fromarray(one.image_u8), one.truth) for one in pictures]


@lru_cache(maxsize=1)
def attribute_judge(judging: Judging) -> AttributeJudge:
    """The judge of this process, built once.

    Raises:
        FontError: No usable emoji font was found.
    """
    return AttributeJudge(image_px=judging.image_px, which=judging.subjects)
