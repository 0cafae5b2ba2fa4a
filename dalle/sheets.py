"""Contact sheets: many pictures on one, with captions under them where given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

GAP_PX = 8
LABEL_PX = 13
LINE_PX = LABEL_PX + 4
MIN_CELL_PX = 128

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
    font = ImageFont.load_default(LABEL_PX)
    wrapped = [list(_wrap(label, font, width)) for label in labels or ()]
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
        for line, text in enumerate(wrapped[number] if wrapped else ()):
            pen.text((x, y + height + line * LINE_PX), text, fill="black", font=font)
    return sheet


def _wrap(text: str, font: Font, width: int) -> Iterator[str]:
    """Lines of `text`, none wider than `width` pixels; only words too long for one are cut."""
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".lstrip()
            if font.getlength(longer) <= width:
                line = longer
                continue
            if line:
                yield line
            line = word
            while font.getlength(line) > width and len(line) > 1:
                fitting = _fitting(line, font, width)
                yield line[:fitting]
                line = line[fitting:]
        yield line


def _fitting(word: str, font: Font, width: int) -> int:
    """How many characters of `word` fit, at least 1."""
    count = 1
    while count < len(word) and font.getlength(word[: count + 1]) <= width:
        count += 1
    return count
