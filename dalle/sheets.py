"""Contact sheets: many pictures on one, with captions under them where given."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP_PX = 8
LABEL_PX = 13
MIN_CELL_PX = 128


def picture_grid(
    pictures: Sequence[Image.Image], *, columns: int, labels: Sequence[str] | None = None
) -> Image.Image:
    """`pictures` in rows of `columns`, enlarged to a legible size, on white.

    Args:
        pictures: Equally large RGB pictures, row by row.
        columns: Pictures per row, at least 1.
        labels: One line or several under each picture; None leaves no room for them.

    Raises:
        ValueError: There are no pictures, or not one label for each.
    """
    if not pictures:
        raise ValueError("a sheet needs at least one picture, got none")
    if labels is not None and len(labels) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many labels, got {len(labels)}")
    zoom = max(1, math.ceil(MIN_CELL_PX / pictures[0].width))
    width, height = pictures[0].width * zoom, pictures[0].height * zoom
    font = ImageFont.load_default(LABEL_PX)
    wrapped = [_wrap(label, font, width) for label in labels or ()]
    text_px = max((text.count("\n") + 1 for text in wrapped), default=0) * (LABEL_PX + 4)
    rows = math.ceil(len(pictures) / columns)
    cell_x, cell_y = width + GAP_PX, height + text_px + GAP_PX
    sheet = Image.new("RGB", (columns * cell_x + GAP_PX, rows * cell_y + GAP_PX), "white")
    pen = ImageDraw.Draw(sheet)
    for number, picture in enumerate(pictures):
        x = GAP_PX + number % columns * cell_x
        y = GAP_PX + number // columns * cell_y
        # Nearest keeps pixels honest: a sheet must not look smoother than its pictures.
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
        if wrapped:
            pen.text((x, y + height + 2), wrapped[number], fill="black", font=font, spacing=2)
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text` broken between words so that no line is wider than `width` pixels."""
    lines = [""]
    for paragraph in text.split("\n"):
        for word in paragraph.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and font.getlength(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        lines.append("")
    return "\n".join(lines).strip()
