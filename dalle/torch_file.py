"""Files that `torch.save` wrote, read without torch and without unpickling them.

Nothing that a file holds is imported or called (`dalle.torch_pickle`), so a module is read whose
classes are not installed; and only tensors that somebody asks for are read at all.

Source: torch/serialization.py; a zip archive with `data.pkl` since 1.6, before that a row of
pickles with the storages behind them.
"""

from __future__ import annotations

import itertools
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from dalle.torch_pickle import BrokenFileError, Inert, Storage, StoredTensor, built

MAX_PICKLE_BYTES = 64 * 2**20
"""Of what describes the tensors; their values lie elsewhere."""
_MAX_PARTS = 100_000
_MAX_NAME_CHARS = 300
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class TorchFile:
    """The tensors of a module or state dict that torch saved.

    Attributes:
        tensors: By their names in the state dict.
    """

    def __init__(self, path: Path) -> None:
        """Read what the file says of its tensors; BrokenFileError or OSError where it cannot."""
        self._path = path
        with path.open("rb") as file:
            try:
                is_zip = zipfile.is_zipfile(file)
                file.seek(0)
                root = self._open_zip(file) if is_zip else self._open_legacy(file)
                self.tensors = dict(_tensors_of(root))
            except BrokenFileError:
                raise
            except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError,
                    ValueError, NotImplementedError, zipfile.BadZipFile) as err:  # fmt: skip
                raise BrokenFileError(f"{type(err).__name__}: {err}"[:200]) from err

    def read(self, name: str) -> Tensor:
        """The values of a tensor, on the CPU.

        Raises:
            BrokenFileError: They are not there.
            OSError: The file cannot be opened.
        """
        found = self.tensors[name]
        if found.problem is not None or found.dtype is None:
            raise BrokenFileError(found.problem or "its numbers are of a type that is not read")
        with self._path.open("rb") as file:
            try:
                values = bytearray(self._values_of(found.storage, file))
            except (LookupError, ValueError, NotImplementedError, zipfile.BadZipFile) as err:
                raise BrokenFileError(f"{type(err).__name__}: {err}"[:200]) from err
        if len(values) != found.storage.size:
            raise BrokenFileError(f"storage {found.storage.key[:40]} is cut off")
        if not values:
            return torch.empty(found.shape, dtype=found.dtype)
        flat = torch.frombuffer(values, dtype=found.dtype)
        return flat.as_strided(found.shape, found.strides, found.offset).clone()  # checked before

    # ---------------------------------------------------------------------------- two containers

    def _open_zip(self, file: IO[bytes]) -> object:
        with zipfile.ZipFile(file) as archive:
            found = [one for one in archive.infolist() if one.filename.endswith("/data.pkl")]
            if len(found) != 1:
                raise BrokenFileError("it is an archive without torch's data.pkl")
            (member,) = found
            prefix = member.filename.removesuffix("data.pkl")
            order = f"{prefix}byteorder"
            if order in archive.namelist() and archive.read(_stored(archive, order)) != b"little":
                raise BrokenFileError("its numbers are not little-endian")
            _stored(archive, member.filename, most=MAX_PICKLE_BYTES)
            with archive.open(member) as pickle:
                root = built(pickle)

        def values_of(storage: Storage, file: IO[bytes]) -> bytes:
            with zipfile.ZipFile(file) as archive:
                entry = _stored(archive, f"{prefix}data/{storage.key}", most=storage.size)
                return archive.read(entry)

        self._values_of: Callable[[Storage, IO[bytes]], bytes] = values_of
        return root

    def _open_legacy(self, file: IO[bytes]) -> object:
        size = self._path.stat().st_size
        if built(file) != _LEGACY_MAGIC:
            raise BrokenFileError("it does not begin as torch's files do")
        built(file), built(file)  # the protocol, and the machine's sizes of integers
        known: dict[str, Storage] = {}
        root = built(file, known)
        places: dict[str, int] = {}
        keys = built(file)
        if not isinstance(keys, list) or any(type(key) is not str for key in keys):
            raise BrokenFileError("the list of its storages is missing")
        for key in keys:
            storage = known[key]
            if file.read(8) != storage.numbers.to_bytes(8, "little"):
                raise BrokenFileError(f"storage {key[:40]} has another size than is said")
            places[key] = file.tell()
            if storage.size > size - places[key]:
                raise BrokenFileError(f"storage {key[:40]} is cut off")
            file.seek(storage.size, 1)

        def values_of(storage: Storage, file: IO[bytes]) -> bytes:
            file.seek(places[storage.key])
            return file.read(storage.size)

        self._values_of = values_of
        return root


def _stored(archive: zipfile.ZipFile, name: str, *, most: int = 100) -> zipfile.ZipInfo:
    """The entry of an archive, which torch neither compresses nor lets grow."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise BrokenFileError("it is compressed, which torch's files are not")
    if entry.file_size > most:
        raise BrokenFileError(f"{name[:60]} has {entry.file_size:,} bytes, not at most {most:,}")
    return entry


def _tensors_of(root: object) -> Iterator[tuple[str, StoredTensor]]:
    """Tensors of a module's parts, or of a state dict, by the names that a state dict gives."""
    if isinstance(root, Inert) and root.state is None:
        root = root.items  # a mapping of a class of its own
    if isinstance(root, dict) and isinstance(found := root.get("state_dict"), dict | Inert):
        root = found if isinstance(found, dict) else found.items  # as Lightning saves it
    left: deque[tuple[str, object]] = deque([("", root)])
    for number in itertools.count():
        if not left:
            return
        prefix, one = left.popleft()
        if number > _MAX_PARTS or len(prefix) > _MAX_NAME_CHARS:
            raise BrokenFileError("it has more parts, or longer names, than models have")
        state = one.state if isinstance(one, Inert) else {"_parameters": one}
        if not isinstance(state, dict):
            continue
        passing = state.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _items(state.get(kind)):
                is_passing = isinstance(passing, list) and name in passing
                if isinstance(tensor, StoredTensor) and not is_passing:
                    yield f"{prefix}{name[:_MAX_NAME_CHARS]}", tensor
        left += [(f"{prefix}{name}.", part) for name, part in _items(state.get("_modules"))]


def _items(mapping: object) -> list[tuple[str, object]]:
    if not isinstance(mapping, dict):
        return []
    return [(name, one) for name, one in mapping.items() if isinstance(name, str)]
