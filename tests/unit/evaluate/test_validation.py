"""The judge's own marks: what it is asked about, and that they fall when it judges badly."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle.config import DataEmoji
from dalle.data.emoji.dice import Dice
from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.write import render_scene
from dalle.evaluate.attributes import Attribute, AttributeJudge, Verdict
from dalle.evaluate.judging import Judges, Judging, attribute_judge
from dalle.evaluate.validation import turned, validate, wrong_claim

Scenes = tuple[list[Image.Image], list[Mapping[str, Any]]]
KINDS = {"background": 2, "size": 1, "count": 1, "pair": 1, "panels": 1}
"""How many of each kind; looks cost renderings, and panels have them too."""


@pytest.fixture(scope="module")
def judges(font: EmojiFont) -> Judges:
    del font  # skips without one
    return Judges(Judging(image_px=64, subjects="core", workers=1))


@pytest.fixture(scope="module")
def judge(judges: Judges) -> AttributeJudge:
    """The one that all of them are in this process."""
    return attribute_judge(judges.judging)


@pytest.fixture(scope="module")
def scenes(judge: AttributeJudge) -> Scenes:
    """Held-out scenes of every kind; those of looks on white."""
    del judge  # skips without a font
    settings = DataEmoji(
        out=Path("unused"), scenes=99, image_px=64, seed=5, split="heldout", subjects="core"
    )
    wanted = dict(KINDS)
    images: list[Image.Image] = []
    truths: list[Mapping[str, Any]] = []
    for index in range(99):
        scene = render_scene(settings, index)
        kind = scene.truth["scene"]
        costly = scene.truth["look"] is not None and scene.truth["background"]["name"] != "white"
        if wanted.get(kind, 0) and not costly:
            wanted[kind] -= 1
            images.append(Image.open(io.BytesIO(scene.png)).convert("RGB"))
            truths.append(scene.truth)
    assert not any(wanted.values())
    return images, truths


def test_the_judge_is_right_about_ground_truth(judges: Judges, scenes: Scenes) -> None:
    images, truths = scenes
    blank = [Image.new("RGB", (64, 64), "white")] * len(images)
    found = validate(judges, images, blank, truths, seed=0)
    assert found.others is not None
    assert found.images.rate >= 5 / 6
    assert (found.rebuilt.rate, found.others.rate) == (0, 0)
    assert found.images.n == found.rebuilt.n == found.others.n == 6
    unnamed = sum("{" not in truth["template"] for truth in truths)
    assert {name: rate.n for name, rate in found.caught.items()} == {
        "subject": 6 - unnamed, "background": 6, "size": 1, "count": 1, "relation": 1, "look": 1,
        "panels": 1,
    }  # fmt: skip
    assert found.caught.keys() == found.caught_rebuilt.keys()
    assert np.mean([rate.rate for rate in found.caught.values()]) >= 0.9


def test_a_judge_who_accepts_everything_is_seen_through(
    judges: Judges, judge: AttributeJudge, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = judge.judge

    def lenient(image: Image.Image, truth: Mapping[str, Any]) -> Verdict:
        return Verdict(attributes=dict.fromkeys(strict(image, truth).attributes, True))

    monkeypatch.setattr(judge, "judge", lenient)
    images, truths = scenes[0][:3], scenes[1][:3]
    found = validate(judges, images, images, truths, seed=0)
    assert found.others is not None
    assert found.images.rate == found.rebuilt.rate == found.others.rate == 1
    assert {rate.rate for rate in found.caught.values()} == {0}


@pytest.mark.parametrize(
    "attribute", ["subject", "background", "count", "size", "relation", "look"]
)
def test_a_wrong_claim_is_wrong_in_one_thing(
    attribute: Attribute, judge: AttributeJudge, scenes: Scenes
) -> None:
    spoken = {"count": "count", "relation": "pair", "size": "size", "look": "panels"}
    kind = spoken.get(attribute, "pair")
    truth = next(truth for truth in scenes[1] if truth["scene"] == kind)
    before = repr(truth)
    said = set()
    for number in range(40):
        wrong = wrong_claim(truth, attribute, judge.subjects, Dice(str(number)))
        assert wrong is not None
        member = "subjects" if attribute == "subject" else attribute
        assert wrong[member] != truth[member]
        assert {**wrong, member: truth[member]} == truth
        said.add(repr(wrong[member]))
    assert len(said) > 1 or attribute == "size", "not always the same"
    assert repr(truth) == before, "the truth itself is left alone"


def test_another_subject_is_of_the_same_group(judge: AttributeJudge, scenes: Scenes) -> None:
    groups = {subject.glyph: subject.group for subject in judge.subjects}
    for truth in scenes[1]:
        wrong = wrong_claim(truth, "subject", judge.subjects, Dice("a"))
        if "{" not in truth["template"]:
            assert wrong is None, "a photo may show anything"
            continue
        assert wrong is not None
        shown, said = ([entry["glyph"] for entry in t["subjects"]] for t in (truth, wrong))
        assert groups[said[0]] == groups[shown[0]]
        changed = [old != new for old, new in zip(shown, said, strict=True)]
        assert changed == [glyph == shown[0] for glyph in shown], "the others stay"


def test_turned_panels_change_places() -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.paste((0, 0, 255), (0, 4, 8, 8))
    found = turned(image)
    assert found.getpixel((3, 3)) == (0, 0, 255)
    assert found.getpixel((3, 4)) == (255, 0, 0)
    assert image.getpixel((3, 3)) == (255, 0, 0), "the picture itself is left alone"
