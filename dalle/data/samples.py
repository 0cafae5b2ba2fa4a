"""Captioned pictures on disk, whatever their layout: one small contract, and the door to it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dalle.data.folder import PictureFolder
from dalle.data.sample import Sample
from dalle.data.tar_shards import TarShards
from dalle.errors import DataError
from dalle.schema import read_object

__all__ = ["Sample", "SampleSet", "open_samples", "samples_together"]


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


def samples_together(path: Path) -> int:
    """How many consecutive samples of a set were made to differ in one thing only; 1 is none.

    Raises:
        DataError: The set's `dataset.json` cannot be read or makes no sense.
    """
    index = path / "dataset.json"
    if not index.is_file():
        return 1
    try:
        together = read_object(index).get("together", 1)
    except (OSError, ValueError) as err:
        raise DataError(f"{index} cannot be read: {err}") from err
    if type(together) is not int or together < 1:
        raise DataError(f"{index}: together must be a whole number from 1 on, got {together!r}")
    return together
