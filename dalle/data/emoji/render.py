"""From the plan of a scene to its pixels, and to the boxes where its subjects really are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw, ImageStat

from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.looks import RECOLOURINGS
from dalle.data.emoji.palette import BACKGROUNDS
from dalle.data.emoji.scene import UNITS, Placed, Scene

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are just outside."""

_VISIBLE = 16  # alpha below this changes no pixel noticeably and does not count for boxes
_IS_VISIBLE = [255 * (alpha >= _VISIBLE) for alpha in range(256)]
_CLOSE_UP = 2.2  # a close-up's subject is this many times as long as its panel
_FULL_ENOUGH = 0.5  # the part of a close-up that its subject should cover
_WINDOW_CENTRES = (
    (0.5, 0.5), (0.5, 0.3), (0.5, 0.7), (0.3, 0.5), (0.7, 0.5),
    (0.3, 0.3), (0.7, 0.3), (0.3, 0.7), (0.7, 0.7),
)  # fmt: skip
_STAMP_MARGIN = 1.14  # a stamp's side, as a multiple of its cell's
_STAMP_SUBJECT = 0.62
_STAMP_TEETH = 8
_OVERSAMPLING = 4
_NEON_WALL = BACKGROUNDS["black"]


@dataclass(frozen=True)
class Picture:
    """A painted scene."""

    image: Image.Image
    boxes: tuple[Box, ...]
    """Where each placed subject is visible, in the scene's order."""


class Painter:
    """Paints scenes at one size.

    Args:
        font: Where drawings come from.
        image_px: Height and width of every picture.
    """

    def __init__(self, font: EmojiFont, image_px: int) -> None:
        self.font = font
        self.image_px = image_px

    def paint(self, scene: Scene) -> Picture:
        """The scene's pixels and boxes."""
        image = Image.new("RGB", (self.image_px, self.image_px), BACKGROUNDS[scene.background])
        return Picture(image, tuple(self._place(image, placed) for placed in scene.placed))

    def _place(self, image: Image.Image, placed: Placed) -> Box:
        """Paints one subject into `image` and says where it is visible."""
        area = self._area(placed)
        cell = self._cell(placed)
        drawing = self.font.raster(placed.subject.glyph)
        match placed.look:
            case "close-up":
                return _paste_close_up(image, drawing, area)
            case "postage stamp":
                cell = _paste_stamp(image, cell, area)
            case "neon" if placed.panel is not None:
                image.paste(_NEON_WALL, area)
        drawing = _fit(drawing, cell[2] - cell[0], smooth=placed.look != "pixel art")
        if placed.look in RECOLOURINGS:
            drawing = RECOLOURINGS[placed.look](drawing)
        box = _paste_centred(image, drawing, cell)
        if placed.look == "sunglasses":
            _paste_sunglasses(image, box)
        elif placed.look == "hat":
            _paste_hat(image, box, area)
        return box

    def _area(self, placed: Placed) -> Box:
        """The picture, or the half of it that is the subject's panel."""
        px = self.image_px
        top = px // 2 if placed.panel == "bottom" else 0
        bottom = px // 2 if placed.panel == "top" else px
        return (0, top, px, bottom)

    def _cell(self, placed: Placed) -> Box:
        left, top = self._pixels(placed.cell.left), self._pixels(placed.cell.top)
        side = self._pixels(placed.cell.side)
        return (left, top, left + side, top + side)

    def _pixels(self, units: int) -> int:
        return round(units * self.image_px / UNITS)


def _fit(drawing: Image.Image, side: int, *, smooth: bool = True) -> Image.Image:
    """`drawing` scaled so that its longer side is `side` pixels."""
    scale = side / max(drawing.size)
    width, height = (max(1, round(length * scale)) for length in drawing.size)
    method = Image.Resampling.LANCZOS if smooth else Image.Resampling.BOX
    return drawing.resize((width, height), method)


def _paste_centred(image: Image.Image, drawing: Image.Image, cell: Box) -> Box:
    left = cell[0] + (cell[2] - cell[0] - drawing.width) // 2
    top = cell[1] + (cell[3] - cell[1] - drawing.height) // 2
    image.paste(drawing, (left, top), drawing)
    return _visible_box(drawing, left, top)


def _visible_box(drawing: Image.Image, left: int, top: int) -> Box:
    """Where `drawing`, put at (left, top), can be seen."""
    seen = drawing.getchannel("A").point(_IS_VISIBLE).getbbox()
    assert seen is not None, "a drawing has visible pixels"
    return (left + seen[0], top + seen[1], left + seen[2], top + seen[3])


def _paste_close_up(image: Image.Image, drawing: Image.Image, area: Box) -> Box:
    """The fullest part of `drawing`, so large that it fills `area`."""
    width, height = area[2] - area[0], area[3] - area[1]
    scale = _CLOSE_UP * width / max(drawing.size)
    part = drawing.transform(
        (width, height),
        Image.Transform.EXTENT,
        _fullest_window(drawing, width / scale, height / scale),
        Image.Resampling.BICUBIC,
    )
    image.paste(part, area[:2], part)
    return _visible_box(part, area[0], area[1])


def _fullest_window(
    drawing: Image.Image, width: float, height: float
) -> tuple[float, float, float, float]:
    """The window of the given size, of nine, that shows most; the central one if it shows half.

    A ring or a bow is empty in the middle.
    """
    best, fullest = (0.0, 0.0, width, height), -1.0
    alpha = drawing.getchannel("A")
    for across, down in _WINDOW_CENTRES:
        left, top = drawing.width * across - width / 2, drawing.height * down - height / 2
        right, bottom = left + width, top + height
        seen = alpha.crop((round(left), round(top), round(right), round(bottom)))
        fullness = ImageStat.Stat(seen).mean[0] / 255
        if fullness > fullest:
            best, fullest = (left, top, right, bottom), fullness
        if fullest >= _FULL_ENOUGH:
            break
    return best


def _paste_stamp(image: Image.Image, cell: Box, area: Box) -> Box:
    """An empty stamp about `cell`; returns the smaller cell where its motif goes."""
    side = min(round((cell[2] - cell[0]) * _STAMP_MARGIN), area[2] - area[0], area[3] - area[1])
    left = min(max((cell[0] + cell[2] - side) // 2, area[0]), area[2] - side)
    top = min(max((cell[1] + cell[3] - side) // 2, area[1]), area[3] - side)
    paper = _stamp_paper(side)
    image.paste(paper, (left, top), paper)
    inset = round(side * (1 - _STAMP_SUBJECT) / 2)
    return (left + inset, top + inset, left + side - inset, top + side - inset)


@lru_cache(maxsize=16)
def _stamp_paper(side: int) -> Image.Image:
    """A square stamp with a toothed edge and a tinted field, `side` pixels wide."""
    big = side * _OVERSAMPLING
    paper = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    draw = ImageDraw.Draw(paper)
    tooth = big / _STAMP_TEETH
    rim = tooth / 2
    draw.rectangle((rim / 2, rim / 2, big - rim / 2, big - rim / 2), fill=(186, 160, 112, 255))
    field = rim * 1.9
    draw.rectangle((field, field, big - field, big - field), fill=(226, 238, 246, 255))
    holes = Image.new("L", (big, big), 255)
    bite = ImageDraw.Draw(holes)
    for step in range(_STAMP_TEETH + 1):
        along = step * tooth
        for x, y in (
            (along, rim / 2),
            (along, big - rim / 2),
            (rim / 2, along),
            (big - rim / 2, along),
        ):
            bite.ellipse((x - rim / 2, y - rim / 2, x + rim / 2, y + rim / 2), fill=0)
    paper.putalpha(ImageChops.multiply(paper.getchannel("A"), holes))
    return paper.resize((side, side), Image.Resampling.BOX)


def _paste_sunglasses(image: Image.Image, box: Box) -> None:
    """Dark glasses across the upper middle of the subject in `box`."""
    width = max(6, round((box[2] - box[0]) * 0.72))
    glasses = _sunglasses(width)
    left = (box[0] + box[2] - width) // 2
    middle = box[1] + round((box[3] - box[1]) * 0.4)
    image.paste(glasses, (left, middle - glasses.height // 2), glasses)


@lru_cache(maxsize=256)
def _sunglasses(width: int) -> Image.Image:
    big, height = width * _OVERSAMPLING, round(width * 0.36) * _OVERSAMPLING
    glasses = Image.new("RGBA", (big, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(glasses)
    black, shine = (18, 18, 24, 255), (96, 104, 124, 255)
    lens = big * 0.44
    for left in (0.0, big - lens):
        draw.rounded_rectangle((left, 0, left + lens, height - 1), radius=height * 0.42, fill=black)
        draw.line(
            (left + lens * 0.25, height * 0.55, left + lens * 0.45, height * 0.25),
            fill=shine, width=max(1, round(height * 0.12)),
        )  # fmt: skip
    draw.rectangle((0, 0, big, height * 0.2), fill=black)
    return glasses.resize((width, height // _OVERSAMPLING), Image.Resampling.BOX)


def _paste_hat(image: Image.Image, box: Box, area: Box) -> None:
    """A top hat on the subject in `box`, kept inside `area`."""
    width = max(6, round((box[2] - box[0]) * 0.6))
    hat = _top_hat(width)
    left = (box[0] + box[2] - width) // 2
    top = max(area[1], box[1] + round((box[3] - box[1]) * 0.16) - hat.height)
    image.paste(hat, (left, top), hat)


@lru_cache(maxsize=256)
def _top_hat(width: int) -> Image.Image:
    big, height = width * _OVERSAMPLING, round(width * 0.68) * _OVERSAMPLING
    hat = Image.new("RGBA", (big, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(hat)
    felt, band = (34, 34, 44, 255), (206, 44, 52, 255)
    draw.rectangle((big * 0.2, 0, big * 0.8, height * 0.86), fill=felt)
    draw.rectangle((big * 0.2, height * 0.56, big * 0.8, height * 0.78), fill=band)
    draw.rounded_rectangle((0, height * 0.78, big - 1, height - 1), radius=height * 0.1, fill=felt)
    return hat.resize((width, height // _OVERSAMPLING), Image.Resampling.BOX)
