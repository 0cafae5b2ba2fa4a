"""Contact sheets: many pictures on one, with captions under them where given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from dalle.labels import picture_label
from dalle.lettering import Font, font_for

if TYPE_CHECKING:
    from dalle.picture import GeneratedImage

GAP_PX = 8
LABEL_PX = 13
LINE_PX = LABEL_PX + 4
BASE_PX = 13
"""How far below its upper edge the letters of a line stand."""
MIN_CELL_PX = 128
SHEET_COLUMNS = 4
SHEET_PICTURES = 256
"""A contact sheet shows the first so many pictures; more make a picture few programs open."""
COMPLETION_COLUMNS = 6
"""Completions between a picture's kept part and its original."""
ROW_LABEL_PX = 112
"""Room for the labels at the left of a labelled grid."""


class Line(NamedTuple):
    """A line of a label."""

    text: str
    font: Font


def picture_grid(
    pictures: Sequence[Image.Image], *, columns: int, labels: Sequence[str] | None = None
) -> Image.Image:
    """`pictures` in rows of `columns`, enlarged to a legible size, on white.

    Args:
        pictures: Equally large RGB pictures, row by row.
        columns: Pictures per row, at least 1.
        labels: One line or several under each picture; None leaves no room for them.

    Raises:
        ValueError: There are no pictures or columns, or not one label for each picture.
    """
    if not pictures:
        raise ValueError("a sheet needs at least one picture, got none")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    if labels is not None and len(labels) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many labels, got {len(labels)}")
    zoom = math.ceil(MIN_CELL_PX / pictures[0].width)
    width, height = pictures[0].width * zoom, pictures[0].height * zoom
    wrapped = [list(_wrap(label, width)) for label in labels or ()]
    text_px = max(map(len, wrapped), default=0) * LINE_PX
    rows = math.ceil(len(pictures) / columns)
    cell_x, cell_y = width + GAP_PX, height + text_px + GAP_PX
    sheet = Image.new("RGB", (columns * cell_x + GAP_PX, rows * cell_y + GAP_PX), "white")
    pen = ImageDraw.Draw(sheet)
    for number, picture in enumerate(pictures):
        x = GAP_PX + number % columns * cell_x
        y = GAP_PX + number // columns * cell_y
        # Nearest keeps pixels honest: a sheet must not look smoother than its pictures.
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
        _write(pen, wrapped[number] if wrapped else (), (x, y + height))
    return sheet


def contact_sheet(images: Sequence[GeneratedImage], *, columns: int = SHEET_COLUMNS) -> Image.Image:
    """The first finished pictures, `SHEET_PICTURES` at most, with caption, score and seed.

    Raises:
        ValueError: There are no pictures or columns.
    """
    shown = images[:SHEET_PICTURES]
    labels = [picture_label(image) for image in shown]
    return picture_grid([image.image for image in shown], columns=columns, labels=labels)


def completion_sheet(
    images: Sequence[GeneratedImage],
    *,
    columns: int,
    given: Image.Image,
    original: Image.Image | None,
) -> Image.Image:
    """Pictures that go on from a given one, in rows that begin and end with it.

    Args:
        images: Finished pictures, `SHEET_PICTURES` at most are shown.
        columns: Of them, per row.
        given: Its kept part.
        original: All of it, to compare with; None leaves that column out.

    Raises:
        ValueError: There are no pictures or columns.
    """
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    shown = images[:SHEET_PICTURES]
    blank = (Image.new("RGB", given.size, "white"), "")
    end = [] if original is None else [(original, "original")]
    cells: list[tuple[Image.Image, str]] = []
    for start in range(0, len(shown), columns):
        row = [(image.image, picture_label(image)) for image in shown[start : start + columns]]
        cells += [(given, "given"), *row, *[blank] * (columns - len(row)), *end]
    return picture_grid(
        [picture for picture, _ in cells],
        columns=columns + 1 + len(end),
        labels=[label for _, label in cells],
    )


def labelled_grid(
    pictures: Sequence[Image.Image], *, columns: Sequence[str], rows: Sequence[str]
) -> Image.Image:
    """`pictures` as a table: a label over each column, and one at the left of each row.

    Args:
        pictures: Equally large RGB pictures, row by row.
        columns: A label for each column.
        rows: A label for each row; none leaves no room for them, and makes a single row.

    Raises:
        ValueError: There are no columns, or not one picture for each cell.
    """
    cells = len(columns) * max(1, len(rows))
    if len(pictures) != cells:
        raise ValueError(f"a grid of {cells} cells needs as many pictures, got {len(pictures)}")
    inner = picture_grid(pictures, columns=len(columns))
    cell_x = (inner.width - GAP_PX) // len(columns)
    cell_y = (inner.height - GAP_PX) // max(1, len(rows))
    heads = [list(_wrap(label, cell_x - GAP_PX)) for label in columns]
    sides = [list(_wrap(label, ROW_LABEL_PX - GAP_PX)) for label in rows]
    top, left = GAP_PX + max(map(len, heads)) * LINE_PX, ROW_LABEL_PX if rows else 0
    sheet = Image.new("RGB", (left + inner.width, top + inner.height), "white")
    sheet.paste(inner, (left, top))
    pen = ImageDraw.Draw(sheet)
    for column, lines in enumerate(heads):
        _write(pen, lines, (left + GAP_PX + column * cell_x, top - len(lines) * LINE_PX))
    for row, lines in enumerate(sides):
        room = cell_y - len(lines) * LINE_PX
        _write(pen, lines, (GAP_PX, top + row * cell_y + max(0, room) // 2))
    return sheet


def _write(pen: ImageDraw.ImageDraw, lines: Sequence[Line], at: tuple[int, int]) -> None:
    """Write `lines` one below the other, the first one's upper left corner `at` (x, y)."""
    x, y = at
    for number, line in enumerate(lines):
        top = y + number * LINE_PX
        # Fonts differ in what they leave above their letters: all stand on one base line.
        if isinstance(line.font, ImageFont.FreeTypeFont):
            where, anchor = (x, top + BASE_PX), "ls"
        else:
            where, anchor = (x, top), None
        pen.text(where, line.text, fill="black", font=line.font, anchor=anchor)


def _wrap(text: str, width: int) -> Iterator[Line]:
    """Lines of `text`, none wider than `width` pixels; only words too long for one are cut."""
    for paragraph in text.splitlines():
        font = font_for(paragraph, LABEL_PX)
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".lstrip()
            if font.getlength(longer) <= width:
                line = longer
                continue
            if line:
                yield Line(line, font)
            line = word
            while font.getlength(line) > width and len(line) > 1:
                fitting = _fitting(line, font, width)
                yield Line(line[:fitting], font)
                line = line[fitting:]
        yield Line(line, font)


def _fitting(word: str, font: Font, width: int) -> int:
    """How many characters of `word` fit, at least 1."""
    count = 1
    while count < len(word) and font.getlength(word[: count + 1]) <= width:
        count += 1
    return count
