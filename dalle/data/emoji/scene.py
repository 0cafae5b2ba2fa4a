"""The plan of a picture: what stands where, in which look, on which background, under what words.

A scene is finished before a pixel is painted; `render` adds nothing but pixels. Places are in
thirty-seconds of the picture's side, so that a plan holds at any size, and whole plans fall on the
grid of a stride-4 dVAE at 64 pixels wherever they can (multiples of two).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dalle.data.emoji.subjects import Subject

UNITS = 32
"""Parts that a picture's side is divided into."""

SceneKind = Literal["plain", "background", "size", "count", "pair", "look", "panels"]
Relation = Literal["left of", "right of", "above", "below"]
Panel = Literal["top", "bottom"]


@dataclass(frozen=True)
class Cell:
    """A square place, in units of 1/32 of the picture's side."""

    left: int
    top: int
    side: int


@dataclass(frozen=True, kw_only=True)
class Placed:
    """One drawing in its place."""

    subject: Subject
    cell: Cell
    look: str | None = None
    """Name of a look; None for the drawing as it is."""
    panel: Panel | None = None
    """Half of a two-panel picture; None where the picture is one."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything about a picture but its pixels."""

    kind: SceneKind
    placed: tuple[Placed, ...]
    """Drawings, in the order their caption names them; the top panel first."""
    background: str
    """Name of the background colour."""
    background_named: bool = False
    """Whether the caption says the background."""
    size: Literal["small", "large"] | None = None
    """Size that the caption speaks of."""
    relation: Relation | None = None
    """Where the first subject is, seen from the second."""
    look: str | None = None
    """The look that the caption speaks of: the picture's own, or its bottom panel's."""
    held_out: tuple[str, ...] = ()
    """Combinations in this scene that training never shows."""
