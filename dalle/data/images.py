"""Picture files to RGB of one size: what is accepted, how it is turned into RGB, how it is cut.

Cuts follow the DALL-E paper (arXiv:2102.12092, listings 1 and 2) with its squares of 256 pixels
generalised. Sizes called `image_px` are (height, width).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from dalle.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_ASPECT = 8.0
"""Pictures longer than this many times their shorter side are refused."""

DECODED_TIMES = 4
"""How many times the longer side of what is cut a photograph's shorter side must have; what it has
beyond need not be decoded, and would not be seen."""

# What Pillow raises on damaged files, apart from its own errors, which are OSErrors.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError,
    MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip

_FOREIGN = (
    (rb"GIF8[79]a", "a GIF"),
    (rb"BM.{4}\0{4}", "a BMP"),
    (rb"II\*\0|MM\0\*", "a TIFF"),
    (rb".{4}ftyp(avif|avis)", "an AVIF"),
    (rb".{4}ftyp(heic|heix|mif1|msf1)", "a HEIC"),
    (rb"(?i)(\xef\xbb\xbf)?\s*(<\?xml.*)?<svg", "an SVG"),
    (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype )?html", "a web page"),
)
"""What files of other kinds begin with: a download may be called .png and be none."""

_STARTS = ((rb"\x89PNG\r\n", ".png"), (rb"\xff\xd8\xff", ".jpg"), (rb"RIFF.{4}WEBP", ".webp"))


def open_rgb(
    data: bytes, *, max_pixels: int = 40_000_000, enough_px: int | None = None
) -> Image.Image:
    """The picture in a PNG, JPEG or WebP file, as RGB the right way up.

    EXIF rotation is applied, transparency is laid over white, 16 bits are cut to 8, and of an
    animation the first frame is taken.

    Args:
        data: The file's bytes.
        max_pixels: Most pixels it may have; checked from its header, before anything is decoded.
        enough_px: A JPEG is decoded at a half, a quarter or an eighth of its size, in as much less
            time, where its shorter side then still has so many pixels; None decodes all of it.

    Raises:
        DataError: It is another format, damaged, too large, or too thin for much of it to be seen.
    """
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        # Pillow's own cap is higher than ours, and it keeps the two sides to itself.
        pixels = re.search(r"\d+", str(err))
        raise _too_large(pixels[0] if pixels else "far more", max_pixels) from err
    except _DECODER_ERRORS as err:
        raise DataError(why_unreadable(data)) from err
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(f"{width}x{height}", max_pixels)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"the picture is too thin: {width}x{height}, over {MAX_ASPECT:g} to 1")
    try:
        if enough_px is not None:
            image.draft(None, (enough_px, enough_px))  # what is no JPEG stays as it is
        image.load()
        return _to_rgb(_upright(image))
    except _DECODER_ERRORS as err:
        raise DataError(f"the picture is damaged: {err}") from err


def picture_suffix(data: bytes) -> str | None:
    """The ending that a file of these bytes should have; None if they begin like no picture."""
    return next(
        (suffix for start, suffix in _STARTS if re.match(start, data[:16], re.DOTALL)), None
    )


def why_unreadable(data: bytes) -> str:
    """What is wrong with the bytes of a picture in none of `FORMATS`."""
    head = data[:1024]
    kind = next((name for start, name in _FOREIGN if re.match(start, head, re.DOTALL)), None)
    if kind is None:
        return "the picture is damaged, or is not PNG, JPEG or WebP"
    return f"the picture is {kind}, not PNG, JPEG or WebP; save it as one of these"


def _upright(image: Image.Image) -> Image.Image:
    """A loaded picture turned as its EXIF says; as it is, where that cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except _DECODER_ERRORS:
        return image


def _too_large(pixels: str, max_pixels: int) -> DataError:
    return DataError(
        f"the picture is too large: it has {pixels} pixels, over the limit of {max_pixels}; give a "
        "smaller copy"
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        high_bytes = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8  # y x
        return Image.fromarray(high_bytes.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def centre_crop(image: Image.Image, image_px: tuple[int, int]) -> Image.Image:
    """The largest part in the middle of `image` that has the proportions of `image_px`, so sized.

    A picture that is already so comes back as it is.
    """
    height, width = image_px
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class _Listing:
    """One of the paper's two random cuts."""

    offsets: tuple[float, float]
    """Range of the part's place, as a fraction of the room it has."""
    sides: tuple[float, float]
    """Range of the shorter side it is resized to, in units of the final one."""
    flip: bool
    """Whether half of the pictures are mirrored left to right."""


_LISTINGS = {
    "vae": _Listing(offsets=(0.0, 1.0), sides=(9 / 8, 12 / 8), flip=True),
    "transformer": _Listing(offsets=(3 / 8, 5 / 8), sides=(1.0, 9 / 8), flip=False),
}


def random_crop_paper(
    image: Image.Image,
    image_px: tuple[int, int],
    rng: np.random.Generator,
    *,
    listing: Literal["vae", "transformer"],
) -> Image.Image:
    """A random part of `image`, cut as the paper does for one of its two stages.

    The largest part of the result's proportions is placed at random, resized to a random size, at
    least that of the result, and a random part of the result's size is taken. `vae` (listing 1)
    puts the first part anywhere, resizes to 9/8 to 12/8 and mirrors every other picture;
    `transformer` (listing 2) keeps it near the middle, resizes to 1 to 9/8 and never mirrors,
    because of text in pictures.

    As in the paper no picture is enlarged, except that a smaller one is brought to the size.

    Args:
        image: RGB picture of any size.
        image_px: Height and width of the result.
        rng: Source of every random choice.
        listing: The stage to cut for.
    """
    rules = _LISTINGS[listing]
    final = (image_px[1], image_px[0])  # width, height, as Pillow has them
    px = min(final)
    scale = min(have / want for have, want in zip(image.size, final, strict=True))
    part = scaled(final, scale)
    left, top = (
        _offset(have - take, rules, rng) for have, take in zip(image.size, part, strict=True)
    )
    low, high = (max(px, min(min(part), round(ratio * px))) for ratio in rules.sides)
    resized = scaled(final, int(rng.integers(low, high, endpoint=True)) / px, least=final)
    cut = image.crop((left, top, left + part[0], top + part[1]))
    if resized != part:
        method = Image.Resampling.BOX if resized[0] < part[0] else Image.Resampling.BICUBIC
        cut = cut.resize(resized, method)
    x, y = (
        int(rng.integers(0, have - take, endpoint=True))
        for have, take in zip(resized, final, strict=True)
    )
    cut = cut.crop((x, y, x + final[0], y + final[1]))
    if rules.flip and rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return cut


def scaled(
    size: tuple[int, int], scale: float, *, least: tuple[int, int] = (1, 1)
) -> tuple[int, int]:
    """Width and height times `scale`, rounded, and no less than `least`."""
    return max(least[0], round(scale * size[0])), max(least[1], round(scale * size[1]))


def _offset(slack: int, rules: _Listing, rng: np.random.Generator) -> int:
    low, high = (round(fraction * slack) for fraction in rules.offsets)
    return int(rng.integers(low, high, endpoint=True))
