"""Pictures with class labels, split into those a probe learns from and those it is tested on.

Two sources: the groups of the emoji subjects (animals, food, ...), and any folder with a sub-folder
for each class.

Axes: b pictures, y x pixel rows and columns.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from dalle.config import SceneMixture
from dalle.data.emoji.dice import Dice
from dalle.data.emoji.grammar import Grammar
from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import Subject
from dalle.data.folder import picture_paths
from dalle.data.images import centre_crop, open_rgb
from dalle.data.sample import MAX_PICTURE_BYTES, PICTURE_SUFFIXES, is_hidden
from dalle.errors import DataError

log = logging.getLogger(__name__)

FOLDS = 4
"""Parts of a class's pictures, or of a group's subjects, one of which is tested on at a time."""
LEAST_PICTURES = 4
"""Fewest pictures of a class in a folder: some to learn from, one at least to test on."""
_ONE_SUBJECT = SceneMixture(plain=28, background=22, size=7, count=0, pair=0, look=0, panels=0)
_Item = TypeVar("_Item")
_Labelled = tuple[Image.Image, int, int]
"""A picture, its class, and what it is a view of."""


@dataclass(frozen=True, kw_only=True)
class LabelledPictures:
    """Pictures and the classes they belong to."""

    images_u8: np.ndarray
    """Shape (b, y, x, 3), uint8."""
    labels: np.ndarray
    """Index of each one's class, shape (b), int64."""
    units: np.ndarray
    """What each picture is a view of, shape (b), int64: a subject, or itself."""


@dataclass(frozen=True, kw_only=True)
class LabelledSplit:
    """A probe's material; no unit has pictures in both parts."""

    classes: tuple[str, ...]
    train: LabelledPictures
    """Class after class, in random order within each."""
    test: LabelledPictures


def emoji_groups(
    painter: Painter, subjects: Sequence[Subject], *, folds: int, train: int, test: int, seed: int
) -> list[LabelledSplit]:
    """Splits of scenes of one subject each, labelled with its group in the subject list.

    Every subject is on one side of the split only, so that a probe must know what animals have in
    common and not what a fox looks like. Pictures are of all its sizes, places and backgrounds.

    Args:
        painter: Paints the scenes.
        subjects: What may be shown; groups of fewer than `LEAST_PICTURES` subjects are left out.
        folds: How many splits, up to `FOLDS`: each tests on another part of a group's subjects.
        train: Pictures of each group to learn from.
        test: Pictures of each group to test on.
        seed: Of the split and the scenes.

    Raises:
        DataError: There are fewer than two groups.
    """
    numbered: dict[str, list[int]] = {}
    for number, subject in enumerate(subjects):
        numbered.setdefault(subject.group, []).append(number)
    groups = {name: found for name, found in numbered.items() if len(found) >= LEAST_PICTURES}
    if len(groups) < 2:
        raise DataError(f"a probe needs at least two groups of subjects, got {list(groups)}")
    orders = [_shuffled(members, f"{seed}/probe/{name}") for name, members in groups.items()]

    @functools.cache
    def scene(number: int, picture: int) -> Image.Image:
        dice = Dice(f"{seed}/probe/{number}/{picture}")
        # As training may show it.
        return painter.paint(Grammar((subjects[number],), _ONE_SUBJECT).draw(dice, "train")).image

    splits = []
    for fold in range(folds):
        parts: dict[str, list[_Labelled]] = {"train": [], "test": []}
        for label, order in enumerate(orders):
            first, end = fold * len(order) // FOLDS, (fold + 1) * len(order) // FOLDS
            for part, chosen, count in (
                ("test", order[first:end], test),
                ("train", order[:first] + order[end:], train),
            ):
                for picture in range(count):
                    number = chosen[picture % len(chosen)]
                    parts[part].append((scene(number, picture), label, number))
        splits.append(_split(tuple(groups), **parts))
    return splits


def labelled_folder(
    folder: Path, *, image_px: tuple[int, int], folds: int, train: int, test: int, seed: int
) -> list[LabelledSplit]:
    """Splits of the pictures of a folder whose sub-folders are the classes.

    Pictures are cut to one size; damaged ones are named and left out.

    Args:
        folder: PNG, JPEG and WebP files, one sub-folder for each class, at any depth in it.
        image_px: Height and width to bring them to.
        folds: How many splits, up to `FOLDS`: each tests on another part of a class.
        train: Pictures of each class to learn from, at most.
        test: Pictures of each class to test on, at most; a quarter where there are few.
        seed: Of the choice and the split.

    Raises:
        DataError: There are fewer than two classes, or one has too few readable pictures.
        OSError: The folder cannot be listed.
    """
    names = (
        sorted(one.name for one in folder.iterdir() if one.is_dir() and not is_hidden(one.name))
        if folder.is_dir()
        else []
    )
    if len(names) < 2:
        raise DataError(
            f"{folder} must hold a sub-folder of pictures for each class, two classes at least; "
            f"found {names or 'none'}"
        )
    classes: list[list[_Labelled]] = []
    units = itertools.count()
    for label, name in enumerate(names):
        paths = _shuffled(picture_paths(folder / name), f"{seed}/probe/{name}")
        # As many whatever `folds` is: a test part is one of four, of few pictures as well.
        readable = itertools.islice(_readable(paths, image_px), FOLDS * test + train)
        classes.append([(image, label, next(units)) for image in readable])
        if len(classes[-1]) < LEAST_PICTURES:
            raise DataError(
                f"{folder / name} must hold at least {LEAST_PICTURES} readable pictures "
                f"({', '.join(sorted(PICTURE_SUFFIXES))}); add some, or take the class out"
            )
    splits = []
    for fold in range(folds):
        parts: dict[str, list[_Labelled]] = {"train": [], "test": []}
        for pictures in classes:
            tested = min(test, len(pictures) // FOLDS)
            turned = pictures[fold * tested :] + pictures[: fold * tested]
            parts["test"] += turned[:tested]
            parts["train"] += turned[tested : tested + train]
        splits.append(_split(tuple(names), **parts))
    return splits


def _readable(paths: Sequence[Path], image_px: tuple[int, int]) -> Iterator[Image.Image]:
    """The pictures that can be read, of one size."""
    for path in paths:
        try:
            if path.stat().st_size > MAX_PICTURE_BYTES:
                raise DataError(f"it has more than {MAX_PICTURE_BYTES} bytes")
            yield centre_crop(open_rgb(path.read_bytes()), image_px)
        except (DataError, OSError) as err:
            log.warning("left out %s: %s", path, err)


def _shuffled(items: Sequence[_Item], seed: str) -> list[_Item]:
    """`items` in an order that depends on `seed` alone."""
    dice = Dice(seed)
    left, order = list(range(len(items))), []
    while left:
        order.append(items[left.pop(dice.pick(range(len(left))))])
    return order


def _split(
    classes: tuple[str, ...], *, train: Sequence[_Labelled], test: Sequence[_Labelled]
) -> LabelledSplit:
    return LabelledSplit(classes=classes, train=_stacked(train), test=_stacked(test))


def _stacked(rows: Sequence[_Labelled]) -> LabelledPictures:
    return LabelledPictures(
        images_u8=np.stack([np.asarray(image) for image, _, _ in rows]),
        labels=np.array([label for _, label, _ in rows]),
        units=np.array([unit for _, _, unit in rows]),
    )
