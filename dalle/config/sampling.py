"""How pictures are drawn: sampling settings, and the counts and seed of a request."""

from __future__ import annotations

import difflib
import numbers
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, Unpack

WeightType = Literal["fp32", "bf16", "int8"]
Dtype = Literal["auto", "fp32", "bf16", "int8"]

MAX_CANDIDATES = 4096
"""More candidates of one caption than anybody has drawn; guards against a slip of the hand."""
_BESIDE = ("image", "candidates", "keep", "seed", "ranker", "keep_rows", "layout", "crop", "region")
"""What calls take beside sampling options; mistyped, it arrives among these."""
LEAST_ABOVE_0 = 1e-30
"""Smallest temperature and mass above 0: what single precision would round to 0 is refused."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How image tokens are drawn; applied in the order temperature, top_k, top_p."""

    temperature: float = 1.0
    """Divides the logits; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Keep only this many likeliest tokens; None keeps all."""
    top_p: float = 1.0
    """Keep the fewest tokens that hold this probability mass; 1 keeps all."""
    guidance_scale: float = 1.0
    """null + scale * (conditional - null); 1 is off and costs nothing."""

    def __post_init__(self) -> None:
        """Refuse values of another type or outside their ranges, naming the remedy."""
        for name in ("temperature", "top_p", "guidance_scale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, float | int):
                raise TypeError(f"{name} must be a number, got {value!r}")
        if self.top_k is not None and type(self.top_k) is not int:
            raise TypeError(f"top_k must be a whole number or None, got {self.top_k!r}")
        for name in ("temperature", "top_p"):
            if 0 < (value := getattr(self, name)) < LEAST_ABOVE_0:
                raise ValueError(f"{name} above 0 must be at least {LEAST_ABOVE_0:g}, got {value}")
        if not 0 <= self.temperature <= 100:
            raise ValueError(
                f"temperature must be between 0 (greedy) and 100, got {self.temperature}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k must be at least 1, got {self.top_k}; to keep every token, leave it out "
                "(null in YAML) or say --top-k 0"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}; 1 keeps every token")
        if not 0 <= self.guidance_scale <= 100:
            raise ValueError(
                f"guidance_scale must be between 0 and 100, got {self.guidance_scale}; 1 is off"
            )


class SamplingOptions(TypedDict, total=False):
    """Keyword arguments that change a `SamplingConfig`; None, like absence, keeps its value."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    guidance_scale: float | None


def override_sampling(
    default: SamplingConfig, **options: Unpack[SamplingOptions]
) -> SamplingConfig:
    """`default` with every option that is not None; `top_k` 0 switches the filter off.

    Raises:
        TypeError: There is no such option, or its value is no number.
        ValueError: A value lies outside its range.
    """
    known = SamplingOptions.__annotations__
    if unknown := options.keys() - known.keys():
        name = min(unknown)
        near = difflib.get_close_matches(name, (*known, *_BESIDE), n=1, cutoff=0.62)
        hint = f"the options are {', '.join(known)}"
        if near and near[0] != name:  # what one call takes another may not
            hint = f"did you mean {near[0]}?"
        raise TypeError(f"unknown sampling option {name!r}; {hint}")
    given: dict[str, Any] = {
        name: _plain(value) for name, value in options.items() if value is not None
    }
    if type(given.get("top_k")) is int and given["top_k"] == 0:
        given["top_k"] = None
    return replace(default, **given)


def _plain(value: Any) -> Any:
    """Numbers of NumPy, say, as Python's own, which can be written to JSON; the rest as it is."""
    match value:
        case bool():
            return value
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            return float(value)
    return value


def check_counts(*, candidates: int, keep: int) -> None:
    """Refuse counts that make no pictures.

    Raises:
        ValueError: `candidates` or `keep` is out of range.
    """
    if not 1 <= candidates <= MAX_CANDIDATES:
        raise ValueError(f"candidates must be between 1 and {MAX_CANDIDATES:,}, got {candidates}")
    if not 1 <= keep <= candidates:
        remedy = "keep at least one" if keep < 1 else "draw more candidates or keep fewer"
        raise ValueError(
            f"keep must be between 1 and candidates ({candidates}), got {keep}; {remedy}"
        )


def check_suggestions(*, count: int, seed: int, temperature: float, top_p: float) -> SamplingConfig:
    """How captions are drawn that a model writes itself.

    Raises:
        ValueError: A value is out of range.
    """
    if not 1 <= count <= MAX_CANDIDATES:
        raise ValueError(f"count must be from 1 to {MAX_CANDIDATES}, got {count}")
    check_seed(seed)
    return SamplingConfig(temperature=temperature, top_p=top_p)


def check_seed(seed: int) -> None:
    """Refuse seeds that other programs could not read back from a picture's settings.

    Raises:
        ValueError: `seed` needs more than 64 bits with its sign.
    """
    if not abs(seed) < 1 << 63:
        raise ValueError(f"seed must be a whole number below 2^63 in size, got {seed}")
