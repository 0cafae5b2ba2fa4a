"""Captioned pictures on disk, whatever their layout: one small contract, and the door to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dalle.data.folder import PictureFolder
from dalle.data.picture_table import TABLE_SUFFIXES, PictureTable, table_in
from dalle.data.sample import Sample
from dalle.data.scene_index import INDEX_FILE, read_scene_index
from dalle.data.tar_shards import TarShards, tar_paths
from dalle.errors import DataError

__all__ = ["Sample", "SampleSet", "open_samples", "samples_together"]


class SampleSet(Protocol):
    """Captioned pictures with random access; can be pickled and sent to another process."""

    @property
    def fingerprint(self) -> str:
        """A hash that changes when samples come, go or change size."""

    def __len__(self) -> int:
        """Number of samples, unreadable ones included."""

    def key(self, index: int) -> str:
        """What sample `index` is called, readable or not.

        Raises:
            IndexError: `index` is not in 0 to the length.
        """

    def picture_name(self, index: int) -> str:
        """What the picture of sample `index` is called: alike where it has several captions.

        Raises:
            IndexError: `index` is not in 0 to the length.
        """

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, counted from 0.

        Raises:
            DataError: The sample is damaged or incomplete; the text names its key.
            IndexError: `index` is not in 0 to the length.
        """

    def picture(self, index: int) -> bytes:
        """The picture of sample `index` by itself, which need not have a caption.

        Raises:
            DataError: The sample is damaged or has none; the text names its key.
            IndexError: `index` is not in 0 to the length.
        """

    def truth(self, index: int) -> Mapping[str, Any] | None:
        """What the `.json` beside the picture of sample `index` says; None where there is none.

        Whatever else it holds than an emoji scene's ground truth is nobody's concern, so it is
        read where it is asked for, and never in training.

        Raises:
            DataError: It cannot be read, or holds no object; the text names the sample's key.
            IndexError: `index` is not in 0 to the length.
        """


def open_samples(path: Path) -> SampleSet:
    """The captioned pictures at a path: a table that names them, or a folder.

    A folder with a `.tar` directly in it is read as shards, one with a table named as in
    `dalle.data.picture_table` as that, any other as pictures with `.txt` beside them. Damaged
    samples stay in the set and raise when they are read, so that whoever reads them can count them.

    Raises:
        DataError: There is no such path, it cannot be read, or it holds no samples.
    """
    try:
        if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
            return PictureTable(path)
        if not path.is_dir():
            raise DataError(
                f"{path} is not a folder; give a folder of .tar shards or of captioned pictures, "
                f"or a table of pictures and captions ({', '.join(TABLE_SUFFIXES)})"
            )
        if tar_paths(path) or read_scene_index(path):
            return TarShards(path)
        return table_in(path) or PictureFolder(path)
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err}") from err


def samples_together(path: Path) -> int:
    """How many consecutive samples of a set were made to differ in one thing only; 1 is none.

    Raises:
        DataError: The set's `dataset.json` cannot be read or makes no sense.
    """
    together = read_scene_index(path).get("together", 1)
    if type(together) is not int or together < 1:
        raise DataError(
            f"{path / INDEX_FILE}: together must be a whole number from 1 on, got {together!r}"
        )
    return together
