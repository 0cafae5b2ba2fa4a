"""Tar shards as img2dataset and `dalle data emoji` write them, read in any order.

A sample is what a shard holds under one key, in whatever order: `000000012.png`, `.txt` and, where
there is one, `.json`. Names are labels only: nothing is unpacked, and no other kind of member is
read.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
)
from dalle.data.scene_index import INDEX_FILE, read_scene_index
from dalle.data.tar_headers import Member, TarListing, list_members
from dalle.errors import DataError

_log = logging.getLogger(__name__)

_PARTS = ("picture", "caption", "truth")
_LIMITS = {"picture": MAX_PICTURE_BYTES, "caption": MAX_TEXT_BYTES, "truth": MAX_TEXT_BYTES}
_ABSENT = -1
MAX_SHARD_SAMPLES = 10_000_000
"""Most samples that a shard may be said to hold: each that is missing takes memory."""


@dataclass(frozen=True)
class _Entry:
    """Where one sample's parts are; a part that is missing has size -1."""

    key: str
    places: tuple[tuple[int, int], ...]
    """Offset and size of picture, caption and truth."""

    def is_like(self, other: _Entry) -> bool:
        """Whether picture and caption are there, and a truth if `other` has one."""
        (_, picture), (_, caption), (_, truth) = self.places
        complete = picture != _ABSENT and caption != _ABSENT
        return complete and (truth != _ABSENT or other.places[2][1] == _ABSENT)


class TarShards:
    """The samples of every `.tar` in a folder, sorted by shard name and kept in shard order.

    What a torn shard has lost stays in the set as samples that raise: as many as `dataset.json`
    says the shard held, or else the one it was torn in.

    Args:
        folder: Folder with the shards directly in it.

    Raises:
        DataError: No shard holds a sample, or dataset.json makes no sense.
        OSError: A shard cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        expected = _expected_samples(folder)
        self._shards = sorted({path.name for path in tar_paths(folder)} | expected.keys())
        self._faults: dict[int, str] = {}
        digest = hashlib.sha256()
        keys: list[str] = []
        shards: list[int] = []
        places: list[tuple[tuple[int, int], ...]] = []
        for number, name in enumerate(self._shards):
            for entry in self._shard_entries(name, expected.get(name), first=len(keys)):
                keys.append(entry.key)
                shards.append(number)
                places.append(entry.places)
                digest.update(f"{entry.key}\n{entry.places}\n".encode(errors="replace"))
        if len(self._faults) == len(keys):
            raise DataError(f"{folder} holds no readable sample in {len(self._shards)} tar shards")
        self._keys = keys
        self._shard_of = np.array(shards, dtype=np.int32)  # n
        self._places = np.array(places, dtype=np.int64)  # n part offset-and-size
        self._fingerprint = digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """A hash of the samples' names, places and sizes."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; see `dalle.data.samples.SampleSet`."""
        key = self._good_key(index)
        image, caption = self._read(index, ("picture", "caption"))
        if image is None or caption is None:
            part = "picture" if image is None else "caption"
            raise DataError(f"sample {key}: it has no {part}")
        return Sample(key=key, image=image, caption=decode_caption(key, caption))

    def picture(self, index: int) -> bytes:
        """The picture alone; see `dalle.data.samples.SampleSet`."""
        key = self._good_key(index)
        (image,) = self._read(index, ("picture",))
        if image is None:
            raise DataError(f"sample {key}: it has no picture")
        return image

    def truth(self, index: int) -> Mapping[str, Any] | None:
        """What the `.json` says; see `dalle.data.samples.SampleSet`."""
        key = self._good_key(index)
        (truth,) = self._read(index, ("truth",))
        return None if truth is None else decode_truth(key, truth)

    def key(self, index: int) -> str:
        """What sample `index` is called; see `dalle.data.samples.SampleSet`."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in 0 to {len(self) - 1}, got {index}")
        return self._keys[index]

    def picture_name(self, index: int) -> str:
        """Its key, as no two samples share a picture; see `dalle.data.samples.SampleSet`."""
        return self.key(index)

    def _good_key(self, index: int) -> str:
        key = self.key(index)
        if index in self._faults:
            raise DataError(f"sample {key}: {self._faults[index]}")
        return key

    def _read(self, index: int, parts: Sequence[str]) -> list[bytes | None]:
        """Some parts of a sample; None for each that is not there."""
        key = self._keys[index]
        path = self.folder / self._shards[self._shard_of[index]]
        found: list[bytes | None] = []
        try:
            with path.open("rb") as file:
                for part in parts:
                    offset, size = self._places[index, _PARTS.index(part)].tolist()
                    if size == _ABSENT:
                        found.append(None)
                        continue
                    if size > _LIMITS[part]:
                        limit = _LIMITS[part]
                        raise DataError(
                            f"sample {key}: its {part} is too large ({size} bytes, over {limit})"
                        )
                    file.seek(offset)
                    content = file.read(size)
                    if len(content) < size:
                        raise DataError(f"sample {key}: shard {path.name} became shorter")
                    found.append(content)
        except OSError as err:
            raise DataError(f"sample {key}: shard {path.name} cannot be read: {err}") from err
        return found

    def _shard_entries(self, name: str, expected: int | None, *, first: int) -> Iterator[_Entry]:
        """A shard's samples, then a placeholder with a fault for each one that it lost."""
        path = self.folder / name
        listing = list_members(path) if path.exists() else TarListing((), "the file is missing")
        entries = _group(path.stem, listing.members)
        torn = listing.torn
        if torn and entries and not entries[-1].is_like(entries[0]):
            entries.pop()  # cut in the middle
        if torn is None and expected is not None and len(entries) < expected:
            torn = "dataset.json lists more"
        yield from entries
        if torn is None or len(entries) == expected:
            return
        count = max(expected or 0, len(entries) + 1)
        least = "" if expected else "at least "
        reason = f"shard {name}: {len(entries)} of {least}{count} samples can be read; {torn}"
        _log.warning("%s: %s", self.folder, reason)
        for missing in range(len(entries), count):
            self._faults[first + missing] = reason
            yield _Entry(f"{path.stem}/missing-{missing}", ((0, _ABSENT),) * len(_PARTS))


def tar_paths(folder: Path) -> list[Path]:
    """The tar files directly in a folder.

    Raises:
        OSError: It cannot be listed.
    """
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".tar" and not is_hidden(path.name)
    ]


def _group(shard: str, members: Iterable[Member]) -> list[_Entry]:
    """Samples in the order in which a shard begins them; what has one key belongs together."""
    groups: list[tuple[str, dict[str, Member]]] = []
    latest: dict[str, int] = {}  # the last group of each key
    for member in members:
        key, part = _split_name(member.name)
        if part is None:
            continue
        if key not in latest or part in groups[latest[key]][1]:
            latest[key] = len(groups)
            groups.append((key, {}))
        groups[latest[key]][1][part] = member
    seen: Counter[str] = Counter()
    entries = []
    for key, parts in groups:
        if not parts.keys() >= {"picture", "caption"} and (
            parts.keys() == {"truth"} or _first_stem(key) in latest
        ):
            continue  # a loose JSON file, or something else about a sample, as in a.mask.png
        seen[key] += 1
        label = f"{shard}/{key}" if seen[key] == 1 else f"{shard}/{key}#{seen[key]}"
        if seen[key] == 2:
            _log.warning("shard %s: more than one sample is called %s; all are kept", shard, key)
        found = (parts.get(part) for part in _PARTS)
        places = tuple((m.offset, m.size) if m else (0, _ABSENT) for m in found)
        entries.append(_Entry(label, places))
    return entries


def _split_name(name: str) -> tuple[str, str | None]:
    """A member's key, and which part of a sample it is, if any."""
    name = name.removeprefix("./")  # as `tar -C FOLDER .` spells every name
    if is_hidden(name):
        return name, None
    key, ending = posixpath.splitext(name)
    ending = ending.lower()
    if ending in PICTURE_SUFFIXES:
        return key, "picture"
    return key, {CAPTION_SUFFIX: "caption", TRUTH_SUFFIX: "truth"}.get(ending)


def _first_stem(key: str) -> str | None:
    """The key that WebDataset would give, which ends at the first dot; None if it is `key`."""
    folder, slash, base = key.rpartition("/")
    stem, dot, _ = base.partition(".")
    return f"{folder}{slash}{stem}" if dot else None


def _expected_samples(folder: Path) -> dict[str, int]:
    """Samples that each shard should hold, where the folder's dataset.json says so.

    Raises:
        DataError: The file is not the index that `dalle data emoji` writes.
    """
    path = folder / INDEX_FILE
    listed = read_scene_index(folder).get("shards", ())
    try:
        shards = {shard["file"]: shard["scenes"] for shard in listed}
    except (KeyError, TypeError) as err:
        raise DataError(f"{path} does not list shards with file and scenes: {err!r}") from err
    for name, count in shards.items():
        if not isinstance(name, str) or Path(name).name != name or not isinstance(count, int):
            raise DataError(
                f"{path} lists shard {name!r} with {count!r} scenes; write the set anew"
            )
        if count > MAX_SHARD_SAMPLES:
            raise DataError(
                f"{path} lists shard {name!r} with {count:,} scenes, over {MAX_SHARD_SAMPLES:,}; "
                "split it"
            )
    return shards
