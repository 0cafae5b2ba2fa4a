"""How the model sees a picture: its token grid in colour, what is left of it, the codes it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dalle.image_prompt import CropMode

if TYPE_CHECKING:
    from dalle.pipeline import TextToImage

Rgb = tuple[int, int, int]

_CELL_PX = 36
_NUMBER_PX = 13
# Ranges of colours in OKLab (Ottosson, 2020). The widest are lightness and blue to yellow, which
# all common kinds of colour vision tell apart; green to red only adds to them.
_LIGHTNESS = (0.38, 0.93)
_BLUE_YELLOW = (-0.14, 0.11)
_GREEN_RED = (-0.07, 0.09)
_DARK_UNDER = 0.179
"""Relative luminance under which white has more contrast than black (WCAG 2.2)."""
# Multiples of these, their whole parts dropped, spread evenly over a cube, neighbours far apart
# (Roberts, 2018: the sequence R3, powers of the inverse root of x^4 = x + 1).
_STEPS = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)


@dataclass(frozen=True, kw_only=True)
class CodeUse:
    """One entry of the codebook, as a picture uses it."""

    code: int
    count: int
    """Cells of the picture's token grid that hold it."""
    swatch: Image.Image
    """What the model draws where all cells hold it, as large as its pictures."""
    colour: Rgb
    """Its colour in the map."""


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """A picture as the model sees it."""

    picture: Image.Image
    """Cut to the model's size."""
    reconstruction: Image.Image
    """Drawn from its tokens, of the same size."""
    token_grid: np.ndarray
    """Shape (h, w), int64."""
    map: Image.Image
    """A coloured cell with the code's number for each token."""
    codes: tuple[CodeUse, ...]
    """The most used ones, most used first."""
    distinct: int
    """How many different codes the picture uses."""


def explore(
    model: TextToImage, picture: Image.Image, *, crop: CropMode = "center", top: int = 12
) -> Exploration:
    """Look at `picture` through the eyes of `model`.

    Args:
        model: The model.
        picture: RGB picture of any size, such as `Uploads.read` returns.
        crop: How it becomes as wide and high as the model's pictures.
        top: How many of the most used codes are shown, at least 1.

    Raises:
        DataError: The picture is too large or too thin.
    """
    tokenizer = model.image_tokenizer
    seen = tokenizer.see(picture, crop=crop)
    codes, counts = np.unique(seen.tokens, return_counts=True)  # k, ascending
    most = np.argsort(-counts, kind="stable")[:top]  # equal counts by the smaller code
    constant = np.broadcast_to(codes[most][:, None, None], (len(most), *tokenizer.grid))  # g h w
    swatches = tokenizer.decode(constant.copy())
    return Exploration(
        picture=seen.image,
        reconstruction=seen.reconstruction,
        token_grid=seen.tokens,
        map=token_map(seen.tokens),
        codes=tuple(
            CodeUse(code=code, count=count, swatch=swatch, colour=token_colour(code))
            for code, count, swatch in zip(
                codes[most].tolist(), counts[most].tolist(), swatches, strict=True
            )
        ),
        distinct=len(codes),
    )


def token_map(token_grid: np.ndarray) -> Image.Image:
    """A coloured cell for each token, with the code's number in it.

    Args:
        token_grid: Codes, shape (h, w).
    """
    rows, columns = token_grid.shape
    sheet = Image.new("RGB", (columns * _CELL_PX - 1, rows * _CELL_PX - 1), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_NUMBER_PX)
    for (row, column), code in np.ndenumerate(token_grid):
        left, top = column * _CELL_PX, row * _CELL_PX
        cell = (left, top, left + _CELL_PX - 2, top + _CELL_PX - 2)  # a thin line between cells
        pen.rectangle(cell, fill=token_colour(int(code)))
        pen.text(
            (left + _CELL_PX / 2, top + _CELL_PX / 2), str(code), font=font, anchor="mm",
            fill="white" if _luminance(token_colour(int(code))) < _DARK_UNDER else "black",
        )  # fmt: skip
    return sheet


def token_colour(code: int) -> Rgb:
    """The colour of a code in maps: always the same, far from that of the codes beside it.

    Colours differ mostly in lightness and from blue to yellow, which all common kinds of colour
    vision tell apart.
    """
    lightness, blue_yellow, green_red = (
        low + (high - low) * (code * step % 1)
        for step, (low, high) in zip(_STEPS, (_LIGHTNESS, _BLUE_YELLOW, _GREEN_RED), strict=True)
    )
    return _srgb(lightness, green_red, blue_yellow)


def _luminance(colour: Rgb) -> float:
    """Relative luminance, 0 to 1, as WCAG 2.2 computes it."""
    level = np.array(colour) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _srgb(lightness: float, green_red: float, blue_yellow: float) -> Rgb:
    """A colour of OKLab as sRGB, 0 to 255, cut where a screen cannot show it.

    Source: Ottosson, "A perceptual color space for image processing", 2020; sRGB: IEC 61966-2-1.
    """
    from_oklab = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = to_linear @ (from_oklab @ np.array([lightness, green_red, blue_yellow])) ** 3
    linear = linear.clip(0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(255 * float(level)) for level in coded)
    return red, green, blue
