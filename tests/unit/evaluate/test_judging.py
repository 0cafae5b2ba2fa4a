"""Judging in several processes: the same answers as one judge gives, each picture once."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle.config import DataEmoji
from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.write import render_scene
from dalle.evaluate.judging import (
    AT_ONCE,
    JudgedPicture,
    Judges,
    Judging,
    all_retrieved,
    attribute_judge,
)
from dalle.evaluate.subjects import SubjectJudge

PX = 32


@pytest.fixture(scope="module")
def pictures(font: EmojiFont) -> list[JudgedPicture]:
    """Scenes, of which every other one is blank."""
    settings = DataEmoji(
        out=Path("unused"), scenes=AT_ONCE + 4, image_px=PX, subjects="core", font=font.path
    )
    judged = []
    for index in range(settings.scenes):
        scene = render_scene(settings, index)
        image = np.array(Image.open(io.BytesIO(scene.png)).convert("RGB"))
        if index % 2:
            image[:] = 255
        judged.append(JudgedPicture(image_u8=image, truth=scene.truth))
    return judged


@pytest.fixture(scope="module")
def retrieved(pictures: list[JudgedPicture]) -> list[bool]:
    """What one judge says of each."""
    judge = SubjectJudge(image_px=PX, which="core")
    return [all(judge.retrieved(Image.fromarray(one.image_u8), one.truth)) for one in pictures]


@pytest.mark.parametrize("workers", [1, 2])
def test_each_picture_is_judged_once_as_one_judge_does(
    pictures: list[JudgedPicture], retrieved: list[bool], workers: int
) -> None:
    judging = Judging(image_px=PX, subjects="core", workers=workers)
    answers = list(all_retrieved(judging, pictures))
    assert sorted(number for number, _ in answers) == list(range(len(pictures)))
    assert all(found == retrieved[number] for number, found in answers)
    assert {found for _, found in answers} == {True, False}


@pytest.mark.parametrize("workers", [1, 2])
def test_verdicts_come_in_the_order_of_groups(pictures: list[JudgedPicture], workers: int) -> None:
    judging = Judging(image_px=PX, subjects="core", workers=workers)
    plain = [one for one in pictures if one.truth["look"] is None][:4]
    groups = [plain[:1], [], plain[1:]]
    with Judges(judging) as judges:
        found = list(judges.verdicts(iter(groups)))
    judge = attribute_judge(judging)
    assert found == [
        [judge.judge(Image.fromarray(one.image_u8), one.truth) for one in group] for group in groups
    ]


def test_a_process_that_judges_does_not_load_torch() -> None:
    program = "import sys, dalle.evaluate.judging; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
