"""Checks that several settings share."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any


def require_positive(owner: object, *names: str) -> None:
    """Refuse fields of `owner` that are not finite and greater than 0.

    Raises:
        ValueError: One of them is not.
    """
    for name in names:
        value = getattr(owner, name)
        if not 0 < value < math.inf:  # nor is NaN, which compares with nothing
            raise ValueError(f"{name} must be greater than 0{_finite(value)}, got {value}")


def require_not_negative(owner: object, *names: str) -> None:
    """Refuse fields of `owner` that are below 0, or not finite.

    Raises:
        ValueError: One of them is.
    """
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must not be negative{_finite(value)}, got {value}")


def require_fraction(owner: object, *names: str) -> None:
    """Refuse fields of `owner` that are not between 0 and 1.

    Raises:
        ValueError: One of them is not.
    """
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")


def require_decay(owner: object, *names: str) -> None:
    """Refuse fields of `owner` that are not from 0 to less than 1.

    Raises:
        ValueError: One of them is not.
    """
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be from 0 to less than 1, got {value}")


def _finite(value: float) -> str:
    """The part of a rule that only matters for what breaks it."""
    return "" if -math.inf < value < math.inf else " and finite"


def require_vocabulary(owner: object) -> None:
    """Refuse a `vocab_size` without room for the bytes.

    Raises:
        ValueError: It has none.
    """
    size = getattr(owner, "vocab_size")  # noqa: B009 - the owners share no type
    if size < 257:
        raise ValueError(f"vocab_size must be at least 257 (256 bytes and one merge), got {size}")


def require_size(owner: object) -> None:
    """Refuse an `image_px` and `width_px` that are no picture's.

    Raises:
        ValueError: One of them is not positive.
    """
    require_positive(owner, "image_px")
    if getattr(owner, "width_px") is not None:  # noqa: B009 - the owners share no type
        require_positive(owner, "width_px")


def require_whole_tokens(
    image_px: tuple[int, int], stride: int, *, section: str, whose: str
) -> None:
    """Refuse pictures that are no whole number of tokens high and wide.

    Args:
        image_px: Their height and width.
        stride: Pixels per token, along each side.
        section: What stands before the names of their settings: `data.`, or nothing.
        whose: Says whose stride it is, and how much.

    Raises:
        ValueError: The stride does not divide a side.
    """
    for name, px in zip(("image_px", "width_px"), image_px, strict=True):
        if px % stride:
            raise ValueError(f"{section}{name} ({px}) must be divisible by {whose}")


def check_region(region: Sequence[Any]) -> None:
    """Refuse what is no part of a picture: left, top, right and bottom, each from 0 to 1.

    Raises:
        TypeError: `region` is not four numbers.
        ValueError: It reaches outside, or holds nothing.
    """
    are_numbers = isinstance(region, Sequence) and all(
        isinstance(edge, numbers.Real) and not isinstance(edge, bool) for edge in region
    )
    if not are_numbers or len(region) != 4:
        raise TypeError(
            f"region must be a list of four numbers, left, top, right, bottom, got {region!r:.200}"
        )
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):  # NaN is not either
        raise ValueError(
            "region must be left, top, right and bottom as parts of the picture, each from 0 to 1 "
            "and the first two less than the others, such as 0 0 0.5 1 for its left half, got "
            f"{' '.join(f'{edge!s:.12}' for edge in region)}"
        )
