"""Pictures with class labels, split into those a probe learns from and those it is tested on.

Two sources: the groups of the emoji subjects (animals, food, ...), and any folder with a sub-folder
for each class.

Axes: b pictures, y x pixel rows and columns.
"""

from __future__ import annotations

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
from dalle.data.images import fit_square, open_rgb
from dalle.data.sample import MAX_PICTURE_BYTES, PICTURE_SUFFIXES
from dalle.errors import DataError

log = logging.getLogger(__name__)

FOLDS = 4
"""Parts of a class's pictures, or of a group's subjects, one of which is tested on at a time."""
LEAST_PICTURES = 4
"""Fewest pictures of a class in a folder: some to learn from, one at least to test on."""
_ONE_SUBJECT = SceneMixture(plain=28, background=22, size=7, count=0, pair=0, look=0, panels=0)
_Item = TypeVar("_Item")


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
    painter: Painter, subjects: Sequence[Subject], *, fold: int, train: int, test: int, seed: int
) -> LabelledSplit:
    """Scenes of one subject each, labelled with the group that the subject list puts it in.

    Every subject is on one side of the split only, so that a probe must know what animals have in
    common and not what a fox looks like. Pictures are of all its sizes, places and backgrounds.

    Args:
        painter: Paints the scenes.
        subjects: What may be shown; groups of fewer than `LEAST_PICTURES` subjects are left out.
        fold: Which part of each group's subjects is tested on, 0 to `FOLDS` - 1.
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
    parts: dict[str, list[tuple[Image.Image, int, int]]] = {"train": [], "test": []}
    for label, (name, members) in enumerate(groups.items()):
        order = _shuffled(members, f"{seed}/probe/{name}")
        first, end = fold * len(order) // FOLDS, (fold + 1) * len(order) // FOLDS
        for part, chosen, count in (
            ("test", order[first:end], test),
            ("train", order[:first] + order[end:], train),
        ):
            for picture in range(count):
                number = chosen[picture % len(chosen)]
                image = _scene(painter, subjects[number], f"{seed}/probe/{number}/{picture}")
                parts[part].append((image, label, number))
    return LabelledSplit(
        classes=tuple(groups), train=_stacked(parts["train"]), test=_stacked(parts["test"])
    )


def _scene(painter: Painter, subject: Subject, seed: str) -> Image.Image:
    """One subject, as training may show it."""
    scene = Grammar((subject,), _ONE_SUBJECT).draw(Dice(seed), "train")
    return painter.paint(scene).image


def labelled_folder(
    folder: Path, *, image_px: int, fold: int, train: int, test: int, seed: int
) -> LabelledSplit:
    """Pictures of a folder whose sub-folders are the classes.

    Pictures are cut to a square; damaged ones are named and left out.

    Args:
        folder: PNG, JPEG and WebP files, one sub-folder for each class, at any depth in it.
        image_px: Height and width to bring them to.
        fold: Which part of each class is tested on, 0 to `FOLDS` - 1.
        train: Pictures of each class to learn from, at most.
        test: Pictures of each class to test on, at most; a quarter where there are few.
        seed: Of the choice and the split.

    Raises:
        DataError: There are fewer than two classes, or one has too few readable pictures.
        OSError: The folder cannot be listed.
    """
    names = (
        sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    )
    if len(names) < 2:
        raise DataError(
            f"{folder} must hold a sub-folder of pictures for each class, two classes at least; "
            f"found {names or 'none'}"
        )
    parts: dict[str, list[tuple[Image.Image, int, int]]] = {"train": [], "test": []}
    units = itertools.count()
    for label, name in enumerate(names):
        paths = _shuffled(_picture_paths(folder / name), f"{seed}/probe/{name}")
        # The same ones whatever the fold: damaged ones must not shift which are tested on.
        readable = itertools.islice(_readable(paths, image_px), FOLDS * test + train)
        numbered = [(image, label, next(units)) for image in readable]
        if len(numbered) < LEAST_PICTURES:
            raise DataError(
                f"{folder / name} must hold at least {LEAST_PICTURES} readable pictures "
                f"({', '.join(sorted(PICTURE_SUFFIXES))}); add some, or take the class out"
            )
        tested = min(test, len(numbered) // FOLDS)
        turned = numbered[fold * tested :] + numbered[: fold * tested]
        parts["test"] += turned[:tested]
        parts["train"] += turned[tested : tested + train]
    return LabelledSplit(
        classes=tuple(names), train=_stacked(parts["train"]), test=_stacked(parts["test"])
    )


def _picture_paths(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
    )


def _readable(paths: Sequence[Path], image_px: int) -> Iterator[Image.Image]:
    """The pictures that can be read, square and of one size."""
    for path in paths:
        try:
            if path.stat().st_size > MAX_PICTURE_BYTES:
                raise DataError(f"it has more than {MAX_PICTURE_BYTES} bytes")
            yield fit_square(open_rgb(path.read_bytes()), image_px)
        except (DataError, OSError) as err:
            log.warning("left out %s: %s", path, err)


def _shuffled(items: Sequence[_Item], seed: str) -> list[_Item]:
    """`items` in an order that depends on `seed` alone."""
    dice = Dice(seed)
    left, order = list(range(len(items))), []
    while left:
        order.append(items[left.pop(dice.pick(range(len(left))))])
    return order


def _stacked(rows: Sequence[tuple[Image.Image, int, int]]) -> LabelledPictures:
    return LabelledPictures(
        images_u8=np.stack([np.asarray(image) for image, _, _ in rows]),
        labels=np.array([label for _, label, _ in rows]),
        units=np.array([unit for _, _, unit in rows]),
    )
