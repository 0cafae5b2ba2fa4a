"""The judge of subjects, judged: by renderings it must accept and by ones it must refuse."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle.config import DataEmoji
from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.scene import Cell, Placed, Scene
from dalle.data.emoji.write import render_scene
from dalle.errors import DataError
from dalle.evaluate.subjects import (
    EDGE_WEIGHT,
    FEATURE_PX,
    KEPT_BYTES,
    SubjectJudge,
    area_features,
)

Judged = tuple[Image.Image, Mapping[str, Any]]
SCENES = 8


@pytest.fixture(scope="module")
def judge(font: EmojiFont) -> SubjectJudge:
    return SubjectJudge(image_px=64, which="core", font=font.path)


@pytest.fixture(scope="module")
def scenes(judge: SubjectJudge) -> list[Judged]:
    """Held-out scenes of every kind, as the generator draws them."""
    settings = DataEmoji(
        out=Path("unused"), scenes=SCENES, image_px=64, seed=183, split="heldout", subjects="core"
    )
    rendered = [render_scene(settings, index) for index in range(SCENES)]
    return [(Image.open(io.BytesIO(scene.png)).convert("RGB"), scene.truth) for scene in rendered]


def plain(judge: SubjectJudge, name: str, *, cell: tuple[int, int, int] = (2, 2, 28)) -> Judged:
    """A picture of one subject on white, and what is true of it."""
    subject = next(subject for subject in judge.subjects if subject.name == name)
    placed = Placed(subject=subject, cell=Cell(*cell))
    image = judge._painter.paint(Scene(kind="plain", placed=(placed,), background="white")).image
    entry = {"name": name, "glyph": subject.glyph, "cell": list(cell), "look": None, "panel": None}
    return image, {"scene": "plain", "subjects": [entry], "background": {"name": "white"}}


def test_ground_truth_is_retrieved(judge: SubjectJudge, scenes: list[Judged]) -> None:
    kinds = {truth["scene"] for _, truth in scenes}
    assert {"background", "count", "pair", "look", "panels"} <= kinds
    hits = [hit for image, truth in scenes for hit in judge.retrieved(image, truth)]
    assert len(hits) == sum(len(truth["subjects"]) for _, truth in scenes)
    assert np.mean(hits) >= 0.97


def test_another_scenes_truth_is_not(judge: SubjectJudge, scenes: list[Judged]) -> None:
    """With 328 subjects, chance is far below one in ten even where scenes share a background."""
    shifted = [truth for _, truth in scenes[1:] + scenes[:1]]
    hits = [
        all(judge.retrieved(image, truth))
        for (image, _), truth in zip(scenes, shifted, strict=True)
    ]
    assert np.mean(hits) <= 0.1


@pytest.mark.parametrize(
    ("shown", "claimed"),
    [("fox", "cat"), ("tomato", "red apple"), ("bus", "fox")],
)
def test_a_wrong_subject_or_colour_is_caught(shown: str, claimed: str, judge: SubjectJudge) -> None:
    image, truth = plain(judge, shown)
    assert judge.retrieved(image, truth) == [True]
    assert judge.retrieved(image, plain(judge, claimed)[1]) == [False]


def test_a_subject_in_the_wrong_place_is_caught(judge: SubjectJudge) -> None:
    image, _ = plain(judge, "fox", cell=(16, 16, 14))
    assert judge.retrieved(image, plain(judge, "fox", cell=(2, 2, 14))[1]) == [False]


def test_an_empty_picture_shows_nothing(judge: SubjectJudge) -> None:
    blank = Image.new("RGB", (64, 64), "white")
    found = [judge.retrieved(blank, plain(judge, name)[1])[0] for name in ("fox", "pizza", "bus")]
    assert found == [False] * 3


def test_each_subject_of_a_scene_is_judged_for_itself(judge: SubjectJudge) -> None:
    fox, fox_truth = plain(judge, "fox", cell=(0, 8, 16))
    cat, cat_truth = plain(judge, "cat", cell=(16, 8, 16))
    both = fox.copy()
    both.paste(cat.crop((32, 0, 64, 64)), (32, 0))
    truth = {**fox_truth, "subjects": [*fox_truth["subjects"], *cat_truth["subjects"]]}
    assert judge.retrieved(both, truth) == [True, True]
    assert judge.retrieved(fox, truth) == [True, False]


def test_a_soft_copy_is_still_recognised(judge: SubjectJudge) -> None:
    """What a dVAE loses first, fine detail, is not what tells subjects apart."""
    for name in ("fox", "pizza", "bus"):
        image, truth = plain(judge, name)
        soft = image.resize((32, 32), Image.Resampling.BOX).resize((64, 64))
        assert judge.retrieved(soft, truth) == [True], name


def test_a_subject_outside_the_list_is_an_error(judge: SubjectJudge) -> None:
    image, truth = plain(judge, "fox")
    unknown = {**truth, "subjects": [{**truth["subjects"][0], "glyph": "?", "name": "question"}]}
    with pytest.raises(DataError, match="font and subject list draw no 'question'; judge scenes"):
        judge.retrieved(image, unknown)


def test_renderings_are_kept_within_bounds(judge: SubjectJudge, font: EmojiFont) -> None:
    """256 places of every emoji of the font would have been eleven gigabytes."""
    place = (Cell(2, 2, 28), None, None, "white")
    kept = judge._renderings.cache_info().maxsize
    assert kept
    assert kept * judge._renderings(*place).nbytes <= KEPT_BYTES
    every = SubjectJudge(image_px=64, which="all", font=font.path)
    row = judge._renderings(*place).nbytes / len(judge.subjects)
    kept = every._renderings.cache_info().maxsize
    assert kept
    assert kept * row * len(every.subjects) <= KEPT_BYTES


def test_features_are_colours_and_edges() -> None:
    image = Image.new("RGB", (48, 48), (255, 0, 0))
    image.paste((0, 0, 255), (24, 0, 48, 48))  # equally bright halves, so no edge
    colours, edges = np.split(
        area_features(image, (0, 0, 48, 48)).reshape(FEATURE_PX, FEATURE_PX, 5), [3], axis=2
    )
    assert (colours[:, :12] == [1, 0, 0]).all()
    assert (colours[:, 12:] == [0, 0, 1]).all()
    assert (edges == 0).all()
    image.paste((255, 255, 255), (24, 0, 48, 48))  # mean brightness 1/3 beside 1
    edges = area_features(image, (0, 0, 48, 48)).reshape(FEATURE_PX, FEATURE_PX, 5)[:, :, 3:]
    assert (edges[:, :, 0] == 0).all(), "nothing changes from row to row"
    across = np.zeros(FEATURE_PX)
    across[11:13] = EDGE_WEIGHT * (2 / 3) / 2  # central difference on both sides of the border
    assert edges[5, :, 1] == pytest.approx(across, abs=1e-6)


def test_only_the_area_is_looked_at() -> None:
    image = Image.new("RGB", (48, 48), "white")
    before = area_features(image, (0, 0, 24, 24))
    image.paste((0, 0, 0), (24, 0, 48, 48))
    assert (area_features(image, (0, 0, 24, 24)) == before).all()
