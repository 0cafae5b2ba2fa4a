"""What one call of the pipeline asks for, checked at its door."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import SupportsIndex

from dalle.config import (
    SamplingConfig,
    SamplingOptions,
    check_counts,
    check_seed,
    override_sampling,
)
from dalle.rerank import Ranker


@dataclass(frozen=True, kw_only=True)
class Request:
    """Validated settings of one call; `check_request` makes it."""

    candidates: int
    keep: int
    seed: int
    ranker: Ranker
    sampling: SamplingConfig


def check_request(
    candidates: SupportsIndex,
    keep: SupportsIndex | None,
    *,
    seed: SupportsIndex,
    ranker: Ranker,
    default: SamplingConfig,
    options: SamplingOptions,
) -> Request:
    """The settings of a call, complete.

    Args:
        candidates: Pictures drawn for each caption, 1 to 4,096.
        keep: Best pictures kept, 1 to `candidates`; None keeps all.
        seed: Any whole number below 2^63 in size.
        ranker: What orders the candidates.
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
        ranker=ranker,
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
