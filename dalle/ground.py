"""The even ground that a picture's subject stands on: its colour, and where it ends.

Axes: y x pixel rows and columns. Boxes are (left, top, right, bottom) in pixels, right and bottom
just outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

Rgb = tuple[int, int, int]
Box = tuple[int, int, int, int]

_WHITE: Rgb = (255, 255, 255)
_MEASURED_PX = 512  # pictures are measured at about this size, where noise is averaged out
_RIM_SHARE = 0.03  # a frame line one pixel wide must not pass for the ground
_GROUND_SHARE = 0.7  # of the rim; the rest may be a subject that reaches it
_GROUND_SPREAD = 24.0  # levels that an even ground may vary by, such as paper in a photograph
_DIFFERENCES = (8.0, 48.0)  # levels that tell a subject from a perfectly even, an uneven ground
_NOISE_MARGIN = 3.0  # over the ground's own spread
_DUST_SHARE = 0.005  # of a row or column; fewer pixels than this are no part of a subject


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What surrounds the subject of a picture."""

    colour: Rgb
    """White where the ground is not even."""
    is_even: bool
    subject: Box
    """What is left when even margins are trimmed; the whole picture if there are none."""


def find_ground(image: Image.Image) -> Ground:
    """The even colour along a picture's rim, if it has one, and the box of what differs from it.

    Args:
        image: RGB picture of any size.
    """
    everything = (0, 0, *image.size)
    shrink = math.ceil(max(image.size) / _MEASURED_PX)
    values = np.asarray(image.reduce(shrink), dtype=np.float32)  # y x 3
    rim = max(2, round(_RIM_SHARE * min(values.shape[:2])))
    is_rim = np.ones(values.shape[:2], dtype=bool)
    is_rim[rim:-rim, rim:-rim] = False
    colour = np.median(values[is_rim], axis=0)  # 3
    difference = np.abs(values - colour).max(axis=2)  # y x
    spread = float(np.quantile(difference[is_rim], _GROUND_SHARE))
    if spread > _GROUND_SPREAD:
        return Ground(colour=_WHITE, is_even=False, subject=everything)
    red, green, blue = (round(float(level)) for level in colour)
    is_subject = difference > np.clip(_NOISE_MARGIN * spread, *_DIFFERENCES)
    (top, bottom), (left, right) = (_extent(is_subject, axis=axis) for axis in (1, 0))
    subject = (left * shrink, top * shrink, right * shrink, bottom * shrink)
    if left == right or top == bottom:  # nothing but ground
        subject = everything
    return Ground(colour=(red, green, blue), is_even=True, subject=clip_box(subject, image.size))


def _extent(is_subject: np.ndarray, *, axis: int) -> tuple[int, int]:
    """First row (`axis` 1) or column (0) of a mask with more than dust in it, and that after."""
    dust = _DUST_SHARE * is_subject.shape[axis]
    found = np.flatnonzero(is_subject.sum(axis=axis) > dust)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


def clip_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """`box` in whole pixels, as far as it lies in a picture of `size` (width, height)."""
    left, top, right, bottom = (
        min(max(round(edge), 0), length) for edge, length in zip(box, (*size, *size), strict=True)
    )
    return left, top, right, bottom
