"""X/Y grids: one caption drawn over two ranges of settings, as one labelled sheet."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from PIL import Image

from dalle.config import SamplingOptions, check_seed, override_sampling
from dalle.labels import shown
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.settings import DrawSettings, check_caption
from dalle.sheets import labelled_grid

AxisName = Literal["seed", "temperature", "top_k", "top_p", "guidance_scale", "words"]
"""What can change along an axis. `words` are those in `[[...]]` of the caption."""
MAX_VALUES = 1000
"""Most values of an axis that are looked at."""

_LABELS: dict[AxisName, str] = {
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top-k",
    "top_p": "top-p",
    "guidance_scale": "guidance",
}
_LABEL_CHARS = 40
_WHOLE: frozenset[str] = frozenset({"seed", "top_k"})
_RANGE = re.compile(r"(-?\d{1,19})\s*-\s*(-?\d{1,19})")
_BRACKETS = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What changes from column to column, or from row to row."""

    name: AxisName
    values: tuple[float | int | str, ...]
    """At least one; words as text, the others as numbers."""

    @property
    def labels(self) -> tuple[str, ...]:
        """A short text for each value, such as "temperature 0.8"; words as they are."""
        if self.name == "words":
            return tuple(shown(str(value), _LABEL_CHARS) for value in self.values)
        return tuple(f"{_LABELS[self.name]} {value}" for value in self.values)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: where it stands, and what is drawn there."""

    row: int
    column: int
    settings: DrawSettings
    """With `keep` 1: the best candidate is shown."""


@dataclass(frozen=True, kw_only=True)
class GridPlan:
    """A grid before it is drawn."""

    x: Axis
    """From left to right."""
    y: Axis | None
    """From top to bottom; None makes a single row."""
    cells: tuple[Cell, ...]
    """Row by row, each from left to right."""


def _groups(caption: str) -> list[tuple[str, ...]]:
    """The words in each pair of brackets."""
    inside = _BRACKETS.findall(caption)
    rest = "".join([*inside, _BRACKETS.sub("", caption)])
    if "[[" in rest or "]]" in rest:
        raise PageFault("words to try are written as [[red, blue]], and not one within another")
    groups = []
    for text in inside:
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        if not words:
            raise PageFault("write words to try between the brackets, such as [[red, blue]]")
        groups.append(words)
    return groups


def _filled(caption: str, words: Sequence[str]) -> str:
    """`caption` with a word in place of each pair of brackets."""
    left = iter(words)
    return _BRACKETS.sub(lambda _: next(left), caption)


def read_axis(name: object, text: object, *, caption: object = "") -> Axis:
    """The axis that a person typed.

    Args:
        name: One of `AxisName`.
        text: Numbers with commas between them, "0.6, 0.8, 1"; of seeds and top-k also ranges,
            "1-4". Not read for `words`, which stand in the caption.
        caption: Read for `words`: its first brackets are the axis, until `plan` decides.

    Raises:
        PageFault: There is no such axis, or a value is no number.
    """
    if name not in get_args(AxisName):
        raise PageFault(f"an axis must be one of {', '.join(get_args(AxisName))}; choose one")
    axis = cast(AxisName, name)
    if axis == "words":
        groups = _groups(caption) if isinstance(caption, str) else []
        if not groups:
            raise PageFault("write words to try in the caption, such as a [[red, blue]] fox")
        return Axis(name=axis, values=groups[0])
    parts = [part.strip() for part in text.split(",")] if isinstance(text, str) else []
    values = tuple(
        itertools.chain.from_iterable(_values(axis, part) for part in parts[:MAX_VALUES] if part)
    )
    if not values:
        raise PageFault(f"write values for {_LABELS[axis]}, such as {_EXAMPLES[axis]}")
    return Axis(name=axis, values=values)


_EXAMPLES: dict[AxisName, str] = {
    "seed": "1-4",
    "temperature": "0.6, 0.8, 1",
    "top_k": "16, 64, 256",
    "top_p": "0.7, 0.85, 1",
    "guidance_scale": "1, 1.5, 3",
}


def _values(axis: AxisName, part: str) -> Sequence[float | int]:
    """The numbers that one part of the text between commas stands for."""
    try:
        if axis not in _WHOLE:
            return (float(part),)
        if (found := _RANGE.fullmatch(part)) is None:
            return (int(part),)
    except ValueError as err:
        raise PageFault(
            f"{_LABELS[axis]} must be numbers with commas between them, such as {_EXAMPLES[axis]}, "
            f"got {shown(part, _LABEL_CHARS)!r}"
        ) from err
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + MAX_VALUES:
        raise PageFault(f"a range goes up, by less than {MAX_VALUES:,}, such as 1-4, got {part}")
    return range(first, last + 1)


def plan(settings: DrawSettings, x: Axis, y: Axis | None, *, limits: Limits) -> GridPlan:
    """What is drawn in each cell: `settings` with one value of each axis.

    If both axes are words, `x` are those in the caption's first brackets, `y` those in its second.

    Raises:
        PageFault: Both axes change the same setting, the grid has too many cells or pictures, a
            value is out of range, or the caption has other brackets than the axes stand for.
    """
    axes = [x] if y is None else [x, y]
    groups = _groups(settings.caption or "")
    of_words = [axis for axis in axes if axis.name == "words"]
    if len(groups) != len(of_words):
        raise PageFault(
            f"the caption has {len(groups)} of [[...]], but {len(of_words)} of the axes are words; "
            "choose words for as many axes as it has brackets"
        )
    if y is not None and x.name == y.name != "words":
        raise PageFault(f"both axes are {_LABELS[x.name]}; choose another for one of them")
    left = iter(groups)
    axes = [replace(axis, values=next(left)) if axis.name == "words" else axis for axis in axes]
    _check_size(math.prod(len(axis.values) for axis in axes), settings, limits)
    cells = []
    # The first axis changes fastest: cells go row by row.
    for number, values in enumerate(itertools.product(*(axis.values for axis in reversed(axes)))):
        row, column = divmod(number, len(axes[0].values))
        chosen = dict(zip(axes, reversed(values), strict=True))
        changed = _cell_settings(settings, chosen, limits=limits)
        cells.append(Cell(row=row, column=column, settings=changed))
    return GridPlan(x=axes[0], y=None if y is None else axes[1], cells=tuple(cells))


def _check_size(cells: int, settings: DrawSettings, limits: Limits) -> None:
    if cells > limits.grid_cells:
        raise PageFault(
            f"the grid has {cells:,} cells, more than {limits.grid_cells}; use fewer values"
        )
    if cells * settings.candidates > limits.grid_candidates:
        raise PageFault(
            f"{cells} cells of {settings.candidates} candidates are more pictures than "
            f"{limits.grid_candidates}; draw {limits.grid_candidates // cells} candidates at most"
        )


def _cell_settings(
    settings: DrawSettings, chosen: Mapping[Axis, float | int | str], *, limits: Limits
) -> DrawSettings:
    """`settings` with the value that is chosen of each axis, checked."""
    words = []
    try:
        for axis, value in chosen.items():
            if axis.name == "words":
                words.append(str(value))
            elif axis.name == "seed":
                check_seed(cast(int, value))
                settings = replace(settings, seed=cast(int, value))
            else:
                option = cast(SamplingOptions, {axis.name: value})
                sampling = override_sampling(settings.sampling, **option)
                settings = replace(settings, sampling=sampling)
    except ValueError as err:
        raise PageFault(str(err)) from err
    if words:
        caption = _filled(settings.caption or "", words)
        settings = replace(settings, caption=check_caption(caption, limits))
    return replace(settings, keep=1)


def join(grid: GridPlan, pictures: Sequence[Image.Image]) -> Image.Image:
    """The cells' pictures as one sheet, with the columns' labels on top and the rows' at the left.

    Args:
        grid: What was drawn.
        pictures: A picture for each of its cells, in their order, equally large.

    Raises:
        ValueError: There is not one picture for each cell.
    """
    rows = () if grid.y is None else grid.y.labels
    return labelled_grid(pictures, columns=grid.x.labels, rows=rows)
