"""A picture that a person gives, from a file or from memory, as RGB."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from dalle.data.images import open_rgb
from dalle.errors import DataError

MAX_PIXELS = 40_000_000
"""Most pixels of a given picture."""
MAX_FILE_BYTES = 128 * 1024**2
"""Largest file of a given picture: what `MAX_PIXELS` take up uncompressed."""

ENOUGH_PX = 512
"""Longest side of what is kept of a given picture for models that draw up to half of it."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
# Modes that a PNG file holds as they are; of the others, these lose nothing that shows in RGB.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"})
_RGB_LIKE_MODES = frozenset({"CMYK", "HSV", "LAB", "RGBX", "YCbCr"})


def read_picture(source: Image.Image | bytes | Path | str) -> Image.Image:
    """A given picture as RGB, the right way up, with transparency laid over white.

    Args:
        source: A file's path or content (PNG, JPEG or WebP), or a picture that Pillow holds.

    Raises:
        DataError: It cannot be read, is another format, damaged, too large or too thin.
        ValueError: `source` is a URL, or in a mode without a clear meaning as RGB.
        TypeError: `source` is something else.
    """
    match source:
        case bytes():
            return open_rgb(source, max_pixels=MAX_PIXELS)
        case Image.Image():
            return _read_held(source)
        case str() | Path():
            return _read_file(str(source))
        case _:
            raise TypeError(
                f"a picture must be a path, bytes or a Pillow image, got {type(source).__name__}"
            )


def enough_px(image_px: tuple[int, int]) -> int:
    """Longest side that is needed by a model that draws `image_px`, height and width."""
    return max(ENOUGH_PX, 2 * max(image_px))


def reduced(image: Image.Image, longest_px: int) -> Image.Image:
    """`image` with a longer side reduced to `longest_px`; as it is, if that is no longer.

    Whoever holds many given pictures holds them so. All others reduce them alike before anything
    else, so that a picture leads to the same tokens by whatever way it came.
    """
    if max(image.size) <= longest_px:
        return image
    small = image.copy()
    small.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return small


def _read_held(image: Image.Image) -> Image.Image:
    """A picture in memory by the same rules as files: it is written as one and read back."""
    if image.width * image.height > MAX_PIXELS:  # before it is decoded, if it is not yet
        raise DataError(
            f"the picture has {image.width}x{image.height} pixels, over the limit of {MAX_PIXELS}"
        )
    if image.mode not in _PNG_MODES | _RGB_LIKE_MODES:
        raise ValueError(
            f"a picture must be RGB or alike, got mode {image.mode}; convert it with "
            'image.convert("RGB") or give its file'
        )
    written = BytesIO()
    try:
        exif = image.getexif()
        plain = image if image.mode in _PNG_MODES else image.convert("RGB")
        if image.mode == "I":  # of whose 32 bits PNG holds 16
            plain = Image.fromarray(np.asarray(image).clip(0, 65535).astype(np.uint16))
        plain.save(written, "PNG", exif=exif, compress_level=1)
    except (OSError, SyntaxError, ValueError, EOFError) as err:
        raise DataError(f"the picture is damaged: {err}") from err
    return open_rgb(written.getvalue(), max_pixels=MAX_PIXELS)


def _read_file(name: str) -> Image.Image:
    if _URL.match(name):
        raise ValueError(f"a picture must be a file, got the URL {name:.200}; save it first")
    try:
        path = Path(name)
        if not path.is_file():
            raise DataError("it is a folder" if path.is_dir() else "there is no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"the file has over {MAX_FILE_BYTES:,} bytes; give a smaller copy")
        return open_rgb(path.read_bytes(), max_pixels=MAX_PIXELS)
    except OSError as err:
        raise DataError(f"{name}: {err.strerror or err}") from err
    except DataError as err:
        raise DataError(f"{name}: {err}") from err
