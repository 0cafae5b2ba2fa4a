"""Captioned pictures on disk, whatever their layout: one small contract, and the door to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dalle.errors import DataError

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""Endings, in lower case, of what is taken for a picture; its content is checked when opened."""

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
    truth: Mapping[str, Any] | None
    """What the `.json` beside the picture says, or None where there is none."""


class SampleSet(Protocol):
    """Captioned pictures with random access; can be pickled and sent to another process."""

    @property
    def fingerprint(self) -> str:
        """A hash that changes when samples come, go or change size."""

    def __len__(self) -> int:
        """Number of samples, unreadable ones included."""

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, counted from 0.

        Raises:
            DataError: The sample is damaged or incomplete; the text names its key.
            IndexError: `index` is not in 0 to the length.
        """


def open_samples(path: Path) -> SampleSet:
    """The captioned pictures in a folder of tar shards, or of pictures with `.txt` beside them.

    A folder with a `.tar` directly in it is read as shards. Damaged samples stay in the set and
    raise when they are read, so that whoever reads them can count them.

    Raises:
        DataError: There is no such folder, it cannot be listed, or it holds no samples.
    """
    # Here and not above: both readers import this file's definitions.
    from dalle.data.folder import PictureFolder
    from dalle.data.tar_shards import TarShards

    if not path.is_dir():
        raise DataError(
            f"{path} is not a folder; give a folder of .tar shards or of captioned pictures"
        )
    try:
        if any(path.glob("*.tar")) or (path / "dataset.json").is_file():
            return TarShards(path)
        return PictureFolder(path)
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err}") from err


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
