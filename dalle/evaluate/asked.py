"""What a model is asked to draw: captions of a file, of emoji scenes, or of pictures of one's own.

Axes: y x pixel rows and columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dalle.caption_file import DELIMITERS
from dalle.config import DataEmoji
from dalle.data.emoji.write import render_scene
from dalle.data.picture_table import PictureTable
from dalle.data.pictures import readable_pictures
from dalle.data.samples import SampleSet, open_samples
from dalle.errors import DataError
from dalle.labels import size_text
from dalle.prompts import check_prompt
from dalle.seeds import derive_seed

log = logging.getLogger(__name__)

LOOKED_AT = 20
"""Pictures looked at, at most, for each that is to be asked for: of a set with ten captions there
are no more to be found."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A caption to draw, and what is known of it."""

    caption: str
    truth: Mapping[str, Any] | None = None
    """Ground truth of the scene that the caption was made for."""
    image: Image.Image | None = None
    """The true picture, RGB, of the model's size."""


def square_px(image_px: tuple[int, int]) -> int:
    """The side of pictures, given height and width, as emoji scenes have one.

    Raises:
        ValueError: They are not square.
    """
    if image_px[0] != image_px[1]:
        raise ValueError(
            f"emoji are drawn in squares, which pictures of {size_text(image_px)} are not; measure "
            "on pictures of your own (--set or --data)"
        )
    return image_px[0]


def ask_scenes(rendering: DataEmoji, numbers: Iterable[int]) -> list[Asked]:
    """Emoji scenes `numbers` of the set that `rendering` would write, with their truth."""
    asked = []
    for number in numbers:
        scene = render_scene(rendering, number)
        asked.append(
            Asked(
                caption=scene.caption,
                truth=scene.truth,
                image=Image.open(BytesIO(scene.png)).convert("RGB"),
            )
        )
    return asked


def pictures_at(path: Path) -> SampleSet | None:
    """The captioned pictures in a folder or table; None where a file holds captions alone.

    Raises:
        DataError: There are none, where there can be nothing else.
        OSError: It cannot be read.
    """
    if path.is_file() and path.suffix.lower() != ".jsonl":
        try:
            return PictureTable(path) if path.suffix.lower() in DELIMITERS else None
        except DataError:
            return None
    return open_samples(path)


def ask_pictures(
    samples: SampleSet, most: int, *, image_px: tuple[int, int], seed: int
) -> list[Asked]:
    """Pictures drawn by lot, each with a caption of its own; damaged ones are named and left out.

    A caption that several pictures have, and a picture that has several captions, is asked for
    once: figures of a set rest on its members' being drawn independently.

    Args:
        samples: Where they are drawn from.
        most: How many to take, or all there are among `LOOKED_AT` times as many.
        image_px: Height and width to bring them to, as training does: scaled, and cut around the
            centre.
        seed: Of the lot; a smaller number takes the first of a larger one's.

    Raises:
        DataError: None can be read.
    """
    order = np.random.default_rng(derive_seed(seed, "asked")).permutation(len(samples)).tolist()
    asked: dict[str, Asked] = {}
    pictures: set[bytes] = set()
    repeated = 0
    for _, picture in readable_pictures(samples, order[: LOOKED_AT * most], image_px=image_px):
        try:
            caption = check_prompt(picture.caption)
        except ValueError as err:
            log.warning("left out %s: %s", picture.key, err)
            continue
        image = Image.fromarray(picture.image_u8.numpy())
        if caption in asked or image.tobytes() in pictures:
            repeated += 1
            continue
        asked[caption] = Asked(caption=picture.caption, image=image)
        pictures.add(image.tobytes())
        if len(asked) == most:
            break
    if not asked:
        raise DataError("the set holds no picture with a caption that can be read; see above")
    if repeated:
        log.info(
            "%d were passed over, whose caption or picture was among the %d chosen already",
            repeated, len(asked),
        )  # fmt: skip
    return list(asked.values())
