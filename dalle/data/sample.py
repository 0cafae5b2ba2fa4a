"""One captioned picture as it lies on disk, and what its text parts must be."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle.errors import DataError

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""Endings, in lower case, of what is taken for a picture; its content is checked when opened."""

CAPTION_SUFFIX = ".txt"
TRUTH_SUFFIX = ".json"

MAX_PICTURE_BYTES = 64 << 20
MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One captioned picture, still encoded."""

    key: str
    """Names the sample in messages; unique in its set, and never used as a path."""
    image: bytes
    """The picture file's bytes, unchecked; `dalle.data.images.open_rgb` reads them."""
    caption: str


def is_hidden(name: str) -> bool:
    """Whether a path has a hidden part, such as the `._1.png` that macOS puts beside `1.png`."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def without_key(err: DataError, key: str) -> str:
    """What is wrong with sample `key`, for whoever names it before: errors begin with it."""
    return str(err).removeprefix(f"sample {key}: ")


def read_part(key: str, part: str, path: Path, limit: int) -> bytes:
    """The file that holds `part` of sample `key`.

    Raises:
        DataError: It is not there, has more than `limit` bytes, or cannot be read.
    """
    try:
        found = path.stat()
        # A pipe would be waited for, and a device has no end.
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"sample {key}: its {part} is no file ({path.name})")
        if found.st_size > limit:
            raise DataError(
                f"sample {key}: its {part} is too large ({found.st_size} bytes, over {limit})"
            )
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError as err:
        raise DataError(f"sample {key}: it has no {part} ({path.name} is not there)") from err
    except (OSError, ValueError) as err:  # a path may hold what no path can, such as a NUL
        raise DataError(f"sample {key}: its {part} cannot be read: {err}") from err


def decode_caption(key: str, content: bytes) -> str:
    """The caption in a `.txt` file, without surrounding white space.

    Raises:
        DataError: It is not UTF-8, or empty.
    """
    try:
        caption = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as err:
        raise DataError(f"sample {key}: the caption is not UTF-8 ({err.reason})") from err
    if not caption:
        raise DataError(f"sample {key}: the caption is empty")
    return caption


def decode_truth(key: str, content: bytes) -> Mapping[str, Any]:
    """The JSON object in a `.json` file.

    Raises:
        DataError: It is not JSON, or not an object.
    """
    try:
        truth = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise DataError(f"sample {key}: the .json beside it is not valid JSON: {err}") from err
    if not isinstance(truth, dict):
        raise DataError(f"sample {key}: the .json beside it holds no object")
    return truth
