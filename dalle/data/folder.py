"""A plain folder of pictures, each with its caption in a `.txt` file beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dalle.data.sample import (
    MAX_PICTURE_BYTES,
    MAX_TEXT_BYTES,
    PICTURE_SUFFIXES,
    Sample,
    decode_caption,
    decode_truth,
)
from dalle.errors import DataError


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
        self._keys = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
        )
        if not self._keys:
            raise DataError(
                f"{folder} holds neither .tar shards nor pictures "
                f"({', '.join(sorted(PICTURE_SUFFIXES))})"
            )
        for key in self._keys:
            picture = folder / key
            caption = picture.with_suffix(".txt")
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
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in 0 to {len(self) - 1}, got {index}")
        key = self._keys[index]
        picture = self.folder / key
        caption = _read(key, "caption", picture.with_suffix(".txt"), MAX_TEXT_BYTES)
        image = _read(key, "picture", picture, MAX_PICTURE_BYTES)
        truth_path = picture.with_suffix(".json")
        truth = None
        if truth_path.is_file():
            truth = decode_truth(key, _read(key, "truth", truth_path, MAX_TEXT_BYTES))
        return Sample(key=key, image=image, caption=decode_caption(key, caption), truth=truth)


def _read(key: str, part: str, path: Path, limit: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise DataError(f"sample {key}: its {part} has {size} bytes, over {limit}")
        return path.read_bytes()
    except FileNotFoundError as err:
        raise DataError(f"sample {key}: it has no {part} ({path.name} is not there)") from err
    except OSError as err:
        raise DataError(f"sample {key}: {path.name} cannot be read: {err}") from err
