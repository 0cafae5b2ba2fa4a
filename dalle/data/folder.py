"""A plain folder of pictures, each with its caption in a `.txt` file beside it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dalle.data.sample import (
    CAPTION_SUFFIX,
    MAX_PICTURE_BYTES,
    MAX_TEXT_BYTES,
    PICTURE_SUFFIXES,
    TRUTH_SUFFIX,
    Sample,
    decode_caption,
    decode_truth,
    is_hidden,
    read_part,
)
from dalle.errors import DataError

log = logging.getLogger(__name__)

OTHER_PICTURES = frozenset(
    {".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jfif", ".jp2", ".ppm", ".psd"}
)
"""Endings of pictures that are not read."""
_PACKED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


class PictureFolder:
    """Every picture under a folder, at any depth, sorted by its path.

    A sample's key is the picture's path from the folder, ending included, so that `cats/1.png`,
    `dogs/1.png` and `dogs/1.jpg` are three samples; the last two share `dogs/1.txt`. A picture
    without caption stays in the set as a sample that raises.

    Args:
        folder: Where the pictures are.

    Raises:
        DataError: There is no picture in it.
        OSError: It cannot be listed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        digest = hashlib.sha256()
        others: Counter[str] = Counter()
        paths = picture_paths(folder, others=others)
        self._keys = [path.relative_to(folder).as_posix() for path in paths]
        if not self._keys:
            packed = [path.name for path in folder.iterdir() if path.name.lower().endswith(_PACKED)]
            hint = f"; unpack {packed[0]}, as only plain .tar files are read" if packed else ""
            raise DataError(
                f"{folder} holds neither .tar shards nor pictures "
                f"({', '.join(sorted(PICTURE_SUFFIXES))}){hint}"
            )
        if others:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
            log.warning(
                "%s: pictures of kinds that are not read are left out (%s); make them PNG, JPEG or "
                "WebP", folder, kinds,
            )  # fmt: skip
        for key in self._keys:
            picture = folder / key
            caption = _caption_of(picture)
            sizes = (picture.stat().st_size, caption.stat().st_size if caption.is_file() else None)
            digest.update(f"{key}\n{sizes}\n".encode(errors="surrogateescape"))
        self._fingerprint = digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """A hash of the pictures' paths and sizes and their captions' sizes."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; see `dalle.data.samples.SampleSet`."""
        key = self.key(index)
        caption = read_part(key, "caption", _caption_of(self.folder / key), MAX_TEXT_BYTES)
        return Sample(key=key, image=self.picture(index), caption=decode_caption(key, caption))

    def picture(self, index: int) -> bytes:
        """The picture alone; see `dalle.data.samples.SampleSet`."""
        key = self.key(index)
        return read_part(key, "picture", self.folder / key, MAX_PICTURE_BYTES)

    def truth(self, index: int) -> Mapping[str, Any] | None:
        """What the `.json` says; see `dalle.data.samples.SampleSet`."""
        key = self.key(index)
        path = (self.folder / key).with_suffix(TRUTH_SUFFIX)
        if not path.is_file():
            return None
        return decode_truth(key, read_part(key, "truth", path, MAX_TEXT_BYTES))

    def key(self, index: int) -> str:
        """What sample `index` is called; see `dalle.data.samples.SampleSet`."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in 0 to {len(self) - 1}, got {index}")
        return self._keys[index]

    def picture_name(self, index: int) -> str:
        """Its key, as no two samples share a picture; see `dalle.data.samples.SampleSet`."""
        return self.key(index)


def picture_paths(folder: Path, *, others: Counter[str] | None = None) -> list[Path]:
    """Every picture under a folder, at any depth, sorted by its path from there.

    Links to other folders are followed, each folder once; what is hidden is left out.

    Args:
        folder: Where to look.
        others: Counts pictures of kinds that are not read, by their endings.

    Raises:
        OSError: The folder cannot be listed.
    """
    found = []
    seen = {folder.resolve()}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        here = Path(place)
        new = []
        for name in sorted(folders):
            whole = (here / name).resolve()
            if not is_hidden(name) and whole not in seen:
                seen.add(whole)
                new.append(name)
        folders[:] = new
        for name in files:
            suffix = Path(name).suffix.lower()
            if is_hidden(name):
                continue
            if suffix in PICTURE_SUFFIXES:
                found.append(here / name)
            elif others is not None and suffix in OTHER_PICTURES:
                others[suffix] += 1
    pictures = [path for path in found if path.is_file()]
    return sorted(pictures, key=lambda path: path.relative_to(folder).as_posix())


def _caption_of(picture: Path) -> Path:
    """Its caption's file, whose ending may also be in capitals, as the picture's may."""
    path = picture.with_suffix(CAPTION_SUFFIX)
    in_capitals = picture.with_suffix(CAPTION_SUFFIX.upper())
    return in_capitals if in_capitals.is_file() and not path.is_file() else path


def _raise(error: OSError) -> None:
    raise error
