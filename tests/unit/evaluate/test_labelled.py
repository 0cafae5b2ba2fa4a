"""Labelled pictures: classes, counts, and nothing on both sides of the split."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import Subject
from dalle.errors import DataError
from dalle.evaluate.labelled import FOLDS, LabelledSplit, emoji_groups, labelled_folder

log = logging.getLogger("dalle")


@pytest.fixture(scope="module")
def groups(painter: Painter, few_subjects: tuple[Subject, ...]) -> LabelledSplit:
    return emoji_groups(painter, few_subjects, folds=1, train=10, test=4, seed=3)[0]


def test_groups_have_equally_many_pictures(
    groups: LabelledSplit, few_subjects: tuple[Subject, ...]
) -> None:
    members = Counter(one.group for one in few_subjects)
    assert set(groups.classes) == {name for name, number in members.items() if number >= 4}
    assert len(groups.classes) >= 3
    count = len(groups.classes)
    assert groups.train.images_u8.shape == (10 * count, 64, 64, 3)
    assert Counter(groups.train.labels.tolist()) == dict.fromkeys(range(count), 10)
    assert Counter(groups.test.labels.tolist()) == dict.fromkeys(range(count), 4)


def test_a_subject_is_on_one_side_and_in_its_own_group(
    groups: LabelledSplit, few_subjects: tuple[Subject, ...]
) -> None:
    assert not set(groups.train.units) & set(groups.test.units)
    for part in (groups.train, groups.test):
        for label, unit in zip(part.labels, part.units, strict=True):
            assert few_subjects[unit].group == groups.classes[label]


def test_every_subject_is_tested_on_in_one_fold(
    painter: Painter, few_subjects: tuple[Subject, ...]
) -> None:
    folds = emoji_groups(painter, few_subjects, folds=FOLDS, train=4, test=8, seed=3)
    tested = [set(split.test.units.tolist()) for split in folds]
    members = Counter(one.group for one in few_subjects)
    kept = {n for n, one in enumerate(few_subjects) if members[one.group] >= 4}
    assert sum(map(len, tested)) == len(set().union(*tested)), "no subject twice"
    assert set().union(*tested) == kept
    for split in folds:
        assert not set(split.train.units) & set(split.test.units)


def test_pictures_of_a_subject_differ_and_repeat_with_the_seed(
    groups: LabelledSplit, painter: Painter, few_subjects: tuple[Subject, ...]
) -> None:
    (again,) = emoji_groups(painter, few_subjects, folds=1, train=10, test=4, seed=3)
    assert (again.train.images_u8 == groups.train.images_u8).all()
    (other,) = emoji_groups(painter, few_subjects, folds=1, train=10, test=4, seed=4)
    assert (other.train.images_u8 != groups.train.images_u8).any()
    label = groups.train.labels == 0
    pictures = {image.tobytes() for image in groups.train.images_u8[label]}
    assert len(pictures) > label.sum() / 2


def test_one_group_is_no_task(painter: Painter, few_subjects: tuple[Subject, ...]) -> None:
    animals = [one for one in few_subjects if one.group == "animals"]
    with pytest.raises(DataError, match=r"at least two groups of subjects, got \['animals'\]"):
        emoji_groups(painter, animals, folds=1, train=4, test=2, seed=0)


# ------------------------------------------------------------------------------------------ folder


def write(folder: Path, colour: str, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (40 + number, 30), colour).save(folder / f"{number}.png")


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    write(tmp_path / "red", "red", 8)
    write(tmp_path / "blue" / "deeper", "blue", 12)
    (tmp_path / "notes.txt").write_text("not a class", encoding="utf-8")
    write(tmp_path / ".ipynb_checkpoints", "red", 9)  # bug: hidden folders were classes
    (split,) = labelled_folder(tmp_path, image_px=(16, 16), folds=1, train=5, test=50, seed=0)
    assert split.classes == ("blue", "red")
    assert Counter(split.test.labels.tolist()) == {0: 3, 1: 2}, "a quarter"
    assert Counter(split.train.labels.tolist()) == {0: 5, 1: 5}, "as many as asked for"
    for part in (split.train, split.test):
        assert part.images_u8.shape[1:] == (16, 16, 3)
        blue = part.images_u8[part.labels == 0]
        assert (blue == np.array([0, 0, 255])).all()
    assert not set(split.train.units) & set(split.test.units)


@pytest.mark.parametrize("damaged", [0, 1, 5])
def test_no_picture_of_a_folder_is_tested_on_twice(tmp_path: Path, damaged: int) -> None:
    write(tmp_path / "red", "red", 9)
    write(tmp_path / "blue", "blue", 12)
    for number in range(damaged):
        (tmp_path / "blue" / f"broken-{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    tested: list[int] = []
    for split in labelled_folder(
        tmp_path, image_px=(16, 16), folds=FOLDS, train=50, test=50, seed=0
    ):
        assert Counter(split.test.labels.tolist()) == {0: 3, 1: 2}
        assert Counter(split.train.labels.tolist()) == {0: 9, 1: 7}
        assert not set(split.train.units) & set(split.test.units)
        tested += split.test.units.tolist()
    assert len(tested) == len(set(tested)) == 20


@pytest.mark.usefixtures("log_reaches_caplog")
def test_damaged_pictures_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a", "red", 6)
    write(tmp_path / "b", "blue", 6)
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    (split,) = labelled_folder(tmp_path, image_px=(16, 16), folds=1, train=9, test=9, seed=0)
    assert len(split.train.labels) + len(split.test.labels) == 12
    assert "broken.png: the picture is damaged" in caplog.text


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "must hold a sub-folder of pictures for each class, .* found none"),
        ({"a": 9}, r"two classes at least; found \['a'\]"),
        ({"a": 9, "b": 3}, r"b must hold at least 4 readable pictures \(\.jpeg, .*\); add some"),
        ({"a": 9, "b": 0}, "b must hold at least 4 readable pictures"),
    ],
)
def test_folders_that_make_no_task_are_refused(
    classes: dict[str, int], message: str, tmp_path: Path
) -> None:
    for name, count in classes.items():
        write(tmp_path / name, "red", count)
    with pytest.raises(DataError, match=message):
        labelled_folder(tmp_path, image_px=(16, 16), folds=1, train=5, test=5, seed=0)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere must hold a sub-folder"):
        labelled_folder(tmp_path / "nowhere", image_px=(16, 16), folds=1, train=5, test=5, seed=0)
