"""Files that `torch.save` wrote, read without torch and without unpickling them.

A pickle is a program. Of its instructions those are carried out here that build lists, mappings and
the descriptions of tensors; whatever else it names stands for an object that keeps its state and
does nothing. So nothing that a file holds is imported or called, a module is read whose classes are
not installed, and only tensors that somebody asks for are read at all.

Source: torch/serialization.py; a zip archive with `data.pkl` since 1.6, before that a row of
pickles with the storages behind them.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

MAX_PICKLE_BYTES = 64 * 2**20
"""Of what describes the tensors; their values lie elsewhere."""
_MAX_PARTS = 100_000
_MAX_NAME_CHARS = 300
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class BrokenFileError(Exception):
    """The file is damaged, forged, or none that torch wrote; the text says how."""


@dataclass(frozen=True)
class _Named:
    """What a pickle names, and would import."""

    module: str
    name: str


class _Inert:
    """An object of a class that is not looked at."""

    state: object = None


@dataclass(frozen=True)
class _Storage:
    """A row of numbers in the file."""

    key: str
    dtype: torch.dtype
    numbers: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.numbers * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: _Storage

    @property
    def dtype(self) -> torch.dtype:
        """Type of its numbers."""
        return self.storage.dtype


class TorchFile:
    """The tensors of a module or state dict that torch saved.

    Attributes:
        tensors: By their names in the state dict.
    """

    def __init__(self, path: Path) -> None:
        """Read what the file says of its tensors.

        Raises:
            BrokenFileError: It cannot be read.
            OSError: It cannot be opened.
        """
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
        return flat.as_strided(found.shape, found.strides, found.offset).clone()

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
                root = _built(pickle)

        def values_of(storage: _Storage, file: IO[bytes]) -> bytes:
            with zipfile.ZipFile(file) as archive:
                entry = _stored(archive, f"{prefix}data/{storage.key}", most=storage.size)
                return archive.read(entry)

        self._values_of: Callable[[_Storage, IO[bytes]], bytes] = values_of
        return root

    def _open_legacy(self, file: IO[bytes]) -> object:
        size = self._path.stat().st_size
        if _built(file) != _LEGACY_MAGIC:
            raise BrokenFileError("it does not begin as torch's files do")
        _built(file), _built(file)  # the protocol, and the machine's sizes of integers
        known: dict[str, _Storage] = {}
        root = _built(file, known)
        places: dict[str, int] = {}
        keys = _built(file)
        if not isinstance(keys, list):
            raise BrokenFileError("the list of its storages is missing")
        for key in keys:
            storage = known[key]
            if file.read(8) != storage.numbers.to_bytes(8, "little"):
                raise BrokenFileError(f"storage {key[:40]} has another size than is said")
            places[key] = file.tell()
            if file.seek(storage.size, 1) > size:
                raise BrokenFileError(f"storage {key[:40]} is cut off")

        def values_of(storage: _Storage, file: IO[bytes]) -> bytes:
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


# --------------------------------------------------------------------------- a pickle, carried out


class _Machine:
    """The stack that a pickle's instructions work on."""

    def __init__(self, known: dict[str, _Storage]) -> None:
        self.known = known
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def after_mark(self) -> list[Any]:
        """What was put upon the newest mark, taken off with it."""
        start = self.marks.pop()
        taken, self.stack[start:] = self.stack[start:], []
        return taken

    def taken(self, count: int) -> list[Any]:
        """The newest `count` objects, taken off."""
        start = len(self.stack) - count
        if start < 0:
            raise BrokenFileError("an instruction needs more than there is")
        taken, self.stack[start:] = self.stack[start:], []
        return taken

    def put_inert(self, _instead_of: Sequence[object]) -> None:
        """An object of an unknown class, instead of what was taken off."""
        self.stack.append(_Inert())

    def drop(self) -> None:
        """Without the newest object, or the newest mark if nothing is upon it."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.taken(1)

    def build(self, state: object) -> None:
        """Give the object on top its state, if it is one that keeps it."""
        if isinstance(self.stack[-1], _Inert):
            self.stack[-1].state = state

    def put_into(self, items: Sequence[Any]) -> None:
        """Keys and values into the mapping on top; into objects of unknown classes, nothing."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Others are hashed at will: a tuple of a few bytes may keep a processor for years.
            if type(self.stack[-1]) is dict and type(key) in (str, int):
                self.stack[-1][key] = value

    def append(self, items: Sequence[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(items)

    def call(self) -> object:
        """What the function below its arguments would make."""
        function, arguments = self.taken(2)
        if not isinstance(function, _Named):
            return _Inert()
        if function == _Named("collections", "OrderedDict"):
            return {}
        if function.module == "torch._utils":
            if function.name == "_rebuild_tensor_v2":
                return _stored_tensor(*arguments[:4])
            if function.name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
                return arguments[0]
        return _Inert()

    def persistent(self) -> object:
        """A storage, or what a module's class is said to be."""
        kind, *rest = self.stack.pop()
        if kind == "module":  # with its source, in old files
            return rest[0]
        named, key, _, numbers = rest[:4]
        if any(one is not None for one in rest[4:]):
            raise BrokenFileError("a storage is a part of another, which is not read")
        is_storage = isinstance(named, _Named) and named.name in _DTYPES
        if not is_storage or type(key) is not str or type(numbers) is not int or numbers < 0:
            raise BrokenFileError("a storage is of a type that is not read")
        storage = _Storage(key, _DTYPES[named.name], numbers)
        return self.known.setdefault(key, storage)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _built(file: IO[bytes], known: dict[str, _Storage] | None = None) -> object:
    """What the next pickle of a file describes; its storages join `known`."""
    machine = _Machine({} if known is None else known)
    for opcode, argument, place in pickletools.genops(file):
        if place is not None and place > MAX_PICKLE_BYTES:
            break
        if opcode.name == "STOP":
            return machine.stack.pop()
        _step(machine, opcode.name, argument)
    raise BrokenFileError("what describes its tensors does not end")


def _step(machine: _Machine, name: str, argument: Any) -> None:
    """Carry out one instruction of those that Python writes from protocol 2 on.

    `torch.save` writes protocol 2 unless it is told otherwise.
    """
    stack = machine.stack
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(machine.memo[argument])
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
        machine.memo[len(machine.memo) if name == "MEMOIZE" else argument] = stack[-1]
    elif name in _TUPLES:
        stack.append(tuple(machine.taken(_TUPLES[name])))
    elif name == "GLOBAL":
        stack.append(_Named(*argument.split(" ", 1)))
    elif name in _STRUCTURES:
        _STRUCTURES[name](machine)
    elif name not in ("PROTO", "FRAME"):
        raise BrokenFileError(f"it has the instruction {name}, which torch does not write")


_STRUCTURES: Mapping[str, Callable[[_Machine], object]] = {
    "MARK": lambda machine: machine.marks.append(len(machine.stack)),
    "EMPTY_DICT": lambda machine: machine.stack.append({}),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.after_mark())),
    "SETITEMS": lambda machine: machine.put_into(machine.after_mark()),
    "SETITEM": lambda machine: machine.put_into(machine.taken(2)),
    "APPENDS": lambda machine: machine.append(machine.after_mark()),
    "APPEND": lambda machine: machine.append(machine.taken(1)),
    "BINPERSID": lambda machine: machine.stack.append(machine.persistent()),
    "REDUCE": lambda machine: machine.stack.append(machine.call()),
    "NEWOBJ": lambda machine: machine.put_inert(machine.taken(2)),
    "NEWOBJ_EX": lambda machine: machine.put_inert(machine.taken(3)),
    "STACK_GLOBAL": lambda machine: machine.stack.append(_Named(*machine.taken(2))),
    "EMPTY_SET": lambda machine: machine.put_inert(()),
    "ADDITEMS": lambda machine: machine.append(machine.after_mark()),
    "FROZENSET": lambda machine: machine.put_inert(machine.after_mark()),
    "POP": _Machine.drop,
    "POP_MARK": _Machine.after_mark,
    "BUILD": lambda machine: machine.build(machine.stack.pop()),
}


def _stored_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> StoredTensor:
    """A tensor that lies within its storage, no larger than that."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise BrokenFileError("a tensor has no storage, or no shape")
    if any(type(one) is not int or not 0 <= one < 2**62 for one in numbers):
        raise BrokenFileError("a tensor has a size that none has")
    last = offset + sum((one - 1) * step for one, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count > storage.numbers or (count and last >= storage.numbers):
        raise BrokenFileError("a tensor is larger than what is stored of it")
    return StoredTensor(shape, strides, offset, storage)


def _tensors_of(root: object) -> Iterator[tuple[str, StoredTensor]]:
    """Tensors of a module's parts, or of a state dict, by the names that a state dict gives."""
    if isinstance(root, Mapping) and isinstance(root.get("state_dict"), Mapping):
        root = root["state_dict"]  # as Lightning saves it, beside much else
    left: deque[tuple[str, object]] = deque([("", root)])
    seen: set[int] = set()
    while left:
        prefix, one = left.popleft()
        if id(one) in seen:
            continue  # a module that is used twice, or that a forged file puts into itself
        seen.add(id(one))
        if len(seen) > _MAX_PARTS or len(prefix) > _MAX_NAME_CHARS:
            raise BrokenFileError("it has more parts, or longer names, than models have")
        state = one.state if isinstance(one, _Inert) else {"_parameters": one}
        if not isinstance(state, Mapping):
            continue
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _items(state.get(kind)):
                if isinstance(tensor, StoredTensor):
                    yield f"{prefix}{name[:_MAX_NAME_CHARS]}", tensor
        left += [(f"{prefix}{name}.", part) for name, part in _items(state.get("_modules"))]


def _items(mapping: object) -> list[tuple[str, object]]:
    if not isinstance(mapping, Mapping):
        return []
    return [(name, one) for name, one in mapping.items() if isinstance(name, str)]
