"""Settings that exist for the tests of flags only, and what is said to wrong ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from dalle import flags


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What drives."""

    power: float = 1.5
    """Power in kW, 100% of it."""
    fuel: Literal["oil", "wood"] = "oil"
    """What burns."""
    cylinders: int | None = None
    """Cylinders; None lets the maker choose."""

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise ValueError(f"power must be greater than 0, got {self.power}")


@dataclass(frozen=True, kw_only=True)
class Cart:
    """`dalle cart`: a cart that exists for these tests only."""

    out: Path
    """Where it goes."""
    names: tuple[str, ...] = ("a", "b")
    """Names on the plate."""
    label: str = "none"
    """A label."""
    wheels: int = 4
    """How many wheels."""
    roof: bool = False
    """Whether it has a roof."""
    engine: Engine = field(default_factory=lambda: Engine(power=9.0))
    spare: Engine = field(default_factory=Engine)


def parse(*argv: str) -> Cart:
    return flags.parse(Cart, argv, prog="dalle cart", positional="names")


def error(*argv: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the whole text
        parse("--out", "x", *argv)
    message = str(caught.value)
    assert "\n" not in message
    return message
