"""Tar shards as img2dataset and `dalle data emoji` write them, read in any order.

A sample is what stands together in a shard under one key: `000000012.png`, `.txt` and, where there
is one, `.json`. Names are labels only: nothing is unpacked, and no other kind of member is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dalle.data.sample import (
    MAX_PICTURE_BYTES,
    MAX_TEXT_BYTES,
    PICTURE_SUFFIXES,
    Sample,
    decode_caption,
    decode_truth,
)
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
        self._shards = sorted({path.name for path in folder.glob("*.tar")} | expected.keys())
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
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in 0 to {len(self) - 1}, got {index}")
        key = self._keys[index]
        if index in self._faults:
            raise DataError(f"sample {key}: {self._faults[index]}")
        content = self._read(index)
        truth = content.get("truth")
        return Sample(
            key=key,
            image=content["picture"],
            caption=decode_caption(key, content["caption"]),
            truth=None if truth is None else decode_truth(key, truth),
        )

    def _read(self, index: int) -> dict[str, bytes]:
        """The parts of a sample that are there."""
        key = self._keys[index]
        path = self.folder / self._shards[self._shard_of[index]]
        content: dict[str, bytes] = {}
        try:
            with path.open("rb") as file:
                for part, (offset, size) in zip(_PARTS, self._places[index].tolist(), strict=True):
                    if size == _ABSENT:
                        continue
                    if size > _LIMITS[part]:
                        limit = _LIMITS[part]
                        raise DataError(f"sample {key}: its {part} has {size} bytes, over {limit}")
                    file.seek(offset)
                    content[part] = file.read(size)
                    if len(content[part]) < size:
                        raise DataError(f"sample {key}: shard {path.name} became shorter")
        except OSError as err:
            raise DataError(f"sample {key}: shard {path.name} cannot be read: {err}") from err
        for part in ("picture", "caption"):
            if part not in content:
                raise DataError(f"sample {key}: it has no {part}")
        return content

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


def _group(shard: str, members: Iterable[Member]) -> list[_Entry]:
    """Samples in the order of the shard: neighbours under one key belong together."""
    groups: list[tuple[str, dict[str, Member]]] = []
    for member in members:
        key, part = _split_name(member.name)
        if part is None:
            continue
        if not groups or groups[-1][0] != key or part in groups[-1][1]:
            groups.append((key, {}))
        groups[-1][1][part] = member
    seen: Counter[str] = Counter()
    entries = []
    for key, parts in groups:
        if parts.keys() == {"truth"}:
            continue  # a loose JSON file, not a sample
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
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    suffix = f".{suffix.lower()}"
    if suffix in PICTURE_SUFFIXES:
        part: str | None = "picture"
    else:
        part = {".txt": "caption", ".json": "truth"}.get(suffix)
    return f"{folder}{slash}{stem}", part


def _expected_samples(folder: Path) -> dict[str, int]:
    """Samples that each shard should hold, where the folder's dataset.json says so.

    Raises:
        DataError: The file is not the index that `dalle data emoji` writes.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        shards = {
            shard["file"]: shard["scenes"] for shard in json.loads(path.read_bytes())["shards"]
        }
    except (ValueError, KeyError, TypeError, RecursionError) as err:
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
