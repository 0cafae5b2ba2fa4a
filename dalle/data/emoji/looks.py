"""What can be done to a drawing's pixels: recolouring looks, from RGBA to RGBA.

Looks that add something to the picture (a stamp, sunglasses, a close-up) are staged by `render`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from dalle.data.emoji.palette import COLOUR_WORDS, PAINTS, Rgb

_INK: Rgb = (52, 52, 58)
_SHADE: Rgb = (16, 16, 20)
_PIXEL_ART_CELLS = 12


def sketch(drawing: Image.Image) -> Image.Image:
    """Pencil lines where brightness or shape changes; clear elsewhere."""
    paper = Image.new("RGBA", drawing.size, (255, 255, 255, 255))
    gray = Image.alpha_composite(paper, drawing).convert("L")
    lines = ImageChops.lighter(_edges(gray), _edges(drawing.getchannel("A")))
    strength = lines.point(lambda value: min(255, int(value * 2.2)))
    # A white body keeps the drawing readable on any background.
    body = Image.merge("RGBA", (*[Image.new("L", drawing.size, 255)] * 3, drawing.getchannel("A")))
    ink = Image.new("RGBA", drawing.size, (*_INK, 0))
    ink.putalpha(strength)
    return Image.alpha_composite(body, ink)


def grayscale(drawing: Image.Image) -> Image.Image:
    """The same brightness without colour."""
    gray = drawing.convert("L")
    return Image.merge("RGBA", (gray, gray, gray, drawing.getchannel("A")))


def painted(colour: str, drawing: Image.Image) -> Image.Image:
    """Everything in one colour: shadows dark, flats in the colour itself, highlights light."""
    alpha = drawing.getchannel("A")
    gray = ImageOps.autocontrast(drawing.convert("L"), cutoff=1, mask=alpha)
    flat = Image.merge("RGB", (gray, gray, gray)).point(_paint_table(colour))
    flat.putalpha(alpha)
    return flat


@cache
def _paint_table(colour: str) -> list[int]:
    """Red, green and blue of each brightness, 256 of each, as `Image.point` takes them."""
    dark, middle, light = PAINTS[colour]
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    bands = ImageOps.colorize(ramp, dark, light, middle).split()
    return [value for band in bands for value in band.tobytes()]


def upside_down(drawing: Image.Image) -> Image.Image:
    """Mirrored top to bottom, as a reflection in water."""
    return drawing.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def silhouette(drawing: Image.Image) -> Image.Image:
    """The bare shape, filled with near-black."""
    shape = Image.new("RGBA", drawing.size, (*_SHADE, 0))
    shape.putalpha(drawing.getchannel("A"))
    return shape


def neon(drawing: Image.Image) -> Image.Image:
    """Glowing lines in the drawing's own colours, brightened; meant for a dark wall."""
    glow = drawing.convert("HSV")
    hue, saturation, value = glow.split()
    vivid = Image.merge(
        "HSV",
        (
            hue,
            saturation.point(lambda v: min(255, int(v * 1.3))),
            value.point(lambda v: 170 + v // 3),
        ),
    ).convert("RGB")
    gray = drawing.convert("L")
    lines = ImageChops.lighter(
        ImageChops.multiply(_edges(gray), drawing.getchannel("A")), _edges(drawing.getchannel("A"))
    ).point(lambda v: min(255, int(v * 2.6)))
    halo = lines.filter(ImageFilter.GaussianBlur(max(drawing.size) / 26)).point(
        lambda v: min(110, int(v * 1.1))
    )
    vivid = vivid.convert("RGBA")
    vivid.putalpha(ImageChops.lighter(lines, halo))
    return vivid


def pixel_art(drawing: Image.Image) -> Image.Image:
    """A few large square pixels, each fully there or not."""
    longest = max(drawing.size)
    width, height = (max(1, round(side * _PIXEL_ART_CELLS / longest)) for side in drawing.size)
    small = drawing.resize((width, height), Image.Resampling.BOX)
    small.putalpha(small.getchannel("A").point(lambda value: 255 if value >= 110 else 0))
    return small.resize(drawing.size, Image.Resampling.NEAREST)


RECOLOURINGS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "sketch": sketch,
    "grayscale": grayscale,
    **{f"colored {colour}": partial(painted, colour) for colour in PAINTS},
    "upside-down": upside_down,
    "silhouette": silhouette,
    "neon": neon,
    "pixel art": pixel_art,
}
"""Looks that turn one drawing into another of the same size."""

STAGED = ("close-up", "postage stamp", "sunglasses", "hat")
"""Looks that `render` composes from the drawing and its surroundings."""

LOOKS = (*RECOLOURINGS, *STAGED)
"""Every look."""

_ALREADY_WORN = {"sunglasses": "glasses", "hat": "hat"}


def suits(look: str, name: str) -> bool:
    """Whether `look` makes sense for the subject called `name`.

    A subject named after a colour is not painted ("a red apple colored blue" has no clear
    picture), and nothing wears what it is or has on already.
    """
    if look.startswith("colored "):
        return COLOUR_WORDS.isdisjoint(name.split())
    return look not in _ALREADY_WORN or _ALREADY_WORN[look] not in name


def _edges(band: Image.Image) -> Image.Image:
    """Size of the brightness step around each pixel, 0 to 255; the border repeats outwards."""
    values = np.pad(np.asarray(band, dtype=np.int16), 1, mode="edge")  # y+2 x+2
    across = np.abs(values[1:-1, 2:] - values[1:-1, :-2])
    down = np.abs(values[2:, 1:-1] - values[:-2, 1:-1])
    return Image.fromarray(np.minimum(255, np.maximum(across, down)).astype(np.uint8))
