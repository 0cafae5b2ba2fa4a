"""Subjects of many pictures judged in parallel processes, each of which renders what it compares.

This file must not import torch, which every process would load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from PIL import Image

from dalle.evaluate.subjects import SubjectJudge
from dalle.processes import map_in_processes

AT_ONCE = 8
"""Pictures that a process is given at a time: few, as one may take as long as ten others."""


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How pictures are judged; see `SubjectJudge`."""

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
    answers = map_in_processes(partial(_judge, judging), tasks, workers=judging.workers)
    for group, found in zip(groups, answers, strict=True):
        yield from zip(group, found, strict=True)


def _place(truth: Mapping[str, Any]) -> str:
    """Where and how the subjects of a scene are drawn, to sort by."""
    drawn = [(entry["cell"], entry["look"], entry["panel"]) for entry in truth["subjects"]]
    return repr((truth["background"]["name"], drawn))


def _judge(judging: Judging, pictures: Sequence[JudgedPicture]) -> list[bool]:
    judge = _judge_of(judging)
    return [all(judge.retrieved(Image.fromarray(one.image_u8), one.truth)) for one in pictures]


@lru_cache(maxsize=1)
def _judge_of(judging: Judging) -> SubjectJudge:
    """What judging needs, built once per process."""
    return SubjectJudge(image_px=judging.image_px, which=judging.subjects)
