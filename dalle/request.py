"""What one call of the pipeline asks for, checked at its door."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, TypedDict, cast

from dalle.config import (
    SamplingConfig,
    SamplingOptions,
    check_counts,
    check_seed,
    override_sampling,
)
from dalle.image_prompt import CropMode, Layout, Region
from dalle.rerank import LikelihoodRanker, Ranker


class DrawOptions(SamplingOptions, total=False):
    """Keyword arguments of a call: how tokens are drawn, and what is kept of a given picture."""

    keep_rows: float | int | None
    layout: Layout | None
    crop: CropMode | None
    region: Region | None


def split_options(options: DrawOptions) -> tuple[SamplingOptions, ImageOptions]:
    """The options of `options` that sampling reads, and those that a given picture is read by."""
    names = ImageOptions.__annotations__
    given: dict[str, Any] = {
        name: value for name, value in options.items() if name in names and value is not None
    }
    others = {name: value for name, value in options.items() if name not in names}
    return cast(SamplingOptions, others), cast(ImageOptions, given)


class ImageOptions(TypedDict, total=False):
    """The options that a given picture is read by; see `dalle.image_prompt.prepare`."""

    keep_rows: float | int | None
    layout: Layout
    crop: CropMode
    region: Region | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """Validated settings of one call; `check_request` makes it."""

    candidates: int
    keep: int
    seed: int
    sampling: SamplingConfig
    ranker: Ranker = field(default_factory=LikelihoodRanker, compare=False)


def check_request(
    candidates: SupportsIndex,
    keep: SupportsIndex | None,
    *,
    seed: SupportsIndex,
    default: SamplingConfig,
    options: SamplingOptions,
) -> Request:
    """The settings of a call, complete.

    Args:
        candidates: Pictures drawn for each caption, 1 to 4,096.
        keep: Best pictures kept, 1 to `candidates`; None keeps all.
        seed: Any whole number below 2^63 in size.
        default: Sampling settings that hold unless changed.
        options: Changes to them.

    Raises:
        TypeError: A value is of another type, or an option unknown.
        ValueError: A value is out of range.
    """
    count = _whole("candidates", candidates)
    request = Request(
        candidates=count,
        keep=count if keep is None else _whole("keep", keep),
        seed=_whole("seed", seed),
        sampling=override_sampling(default, **options),
    )
    check_counts(candidates=request.candidates, keep=request.keep)
    check_seed(request.seed)
    return request


def _whole(name: str, value: SupportsIndex) -> int:
    """A whole number of any kind, such as numpy's, as an int."""
    try:
        return int(operator.index(value))
    except TypeError as err:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from err


def listed(captions: str | Iterable[str]) -> Iterable[str]:
    """Captions one by one; a string is one caption, not a list of letters."""
    return [captions] if isinstance(captions, str) else captions
