"""What a pickle describes, as far as it is tensors: built without importing or calling anything.

A pickle is a program. Of its instructions those are carried out here that build lists, mappings and
the descriptions of tensors; whatever else it names stands for an object that keeps its state and
does nothing.
"""

from __future__ import annotations

import itertools
import math
import pickletools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import torch

_MAX_INSTRUCTIONS = 2_000_000
_MAX_AXES = 16
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class BrokenFileError(Exception):
    """The file is damaged, forged, or none that torch wrote; the text says how."""


@dataclass(frozen=True)
class _Named:
    """What a pickle names, and would import."""

    module: str
    name: str


class Inert:
    """An object of a class that is not looked at, and what a pickle puts into it."""

    def __init__(self) -> None:
        self.state: object = None
        self.items: dict[str | int, object] = {}


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file."""

    key: str
    dtype: torch.dtype | None
    """Type of the numbers; None where it is not read."""
    numbers: int

    @property
    def size(self) -> int:
        """Bytes.

        Raises:
            BrokenFileError: The numbers are of a type that is not read.
        """
        if self.dtype is None:
            raise BrokenFileError(f"storage {self.key[:40]} is of a type that is not read")
        return self.numbers * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: Storage
    problem: str | None
    """Why its values are not read, if they are not."""

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of its numbers, if it is one that is read."""
        return self.storage.dtype


class _Machine:
    """The stack that a pickle's instructions work on."""

    def __init__(self, known: dict[str, Storage]) -> None:
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

    def name(self, module: object, name: object) -> None:
        """Put what a pickle names, of two texts."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise BrokenFileError("a name is no text")
        self.stack.append(_Named(module, name))

    def make(self, parts: int) -> None:
        """An object of an unknown class, from its newest so many parts."""
        self.taken(parts)
        self.stack.append(Inert())

    def drop(self) -> None:
        """Without the newest object, or the newest mark if nothing is upon it."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.taken(1)

    def build(self, state: object) -> None:
        """Give the object on top its state, if it is one that keeps it."""
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def put_into(self, items: Sequence[Any]) -> None:
        """Keys and values into the mapping on top, or the object that may be one."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Others are hashed at will: a tuple of a few bytes may keep a processor for years.
            top = self.stack[-1]
            into = top.items if isinstance(top, Inert) else top
            if type(into) is dict and type(key) in (str, int):
                into[key] = value

    def append(self, items: Sequence[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(items)

    def call(self) -> object:
        """What the function below its arguments would make."""
        function, arguments = self.taken(2)
        if function == _Named("torch._tensor", "_rebuild_from_type_v2"):
            function, _, arguments = arguments[:3]  # of a tensor with attributes
        if not isinstance(function, _Named) or type(arguments) is not tuple:
            return Inert()
        if function.name == "set" and arguments:
            return arguments[0]
        if function == _Named("collections", "OrderedDict"):
            return {}
        if function.module == "torch._utils":
            if function.name == "_rebuild_tensor_v2":
                return _stored_tensor(*arguments[:4], is_plain=not any(arguments[6:]))
            if function.name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
                return arguments[0]
        return Inert()

    def persistent(self) -> object:
        """A storage, or what a module's class is said to be."""
        kind, *rest = self.stack.pop()
        if kind == "module":  # with its source, in old files
            return rest[0]
        named, key, _, numbers = rest[:4]
        if type(key) is not str or type(numbers) is not int or not 0 <= numbers < 2**60:
            raise BrokenFileError("a storage has a size that none has")
        is_part = any(one is not None for one in rest[4:])  # of another storage, in old files
        is_read = isinstance(named, _Named) and not is_part
        storage = Storage(key, _DTYPES.get(named.name) if is_read else None, numbers)
        return self.known.setdefault(key, storage)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def built(file: IO[bytes], known: dict[str, Storage] | None = None) -> object:
    """What the next pickle of a file describes; its storages join `known`."""
    machine = _Machine({} if known is None else known)
    for opcode, argument, _ in itertools.islice(pickletools.genops(file), _MAX_INSTRUCTIONS):
        if opcode.name == "STOP":
            return machine.stack.pop()
        _step(machine, opcode.name, argument)
    raise BrokenFileError("what describes its tensors is longer than that of any model")


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
    "NEWOBJ": lambda machine: machine.make(2),
    "NEWOBJ_EX": lambda machine: machine.make(3),
    "STACK_GLOBAL": lambda machine: machine.name(*machine.taken(2)),
    "EMPTY_SET": lambda machine: machine.stack.append([]),
    "ADDITEMS": lambda machine: machine.append(machine.after_mark()),
    "FROZENSET": lambda machine: machine.stack.append(machine.after_mark()),
    "POP": _Machine.drop,
    "POP_MARK": _Machine.after_mark,
    "BUILD": lambda machine: machine.build(machine.stack.pop()),
}


def _stored_tensor(
    storage: Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    is_plain: bool,
) -> StoredTensor:
    """A tensor; its values are read where it lies within its storage, and is no larger."""
    if type(shape) is not tuple or type(strides) is not tuple or type(storage) is not Storage:
        raise BrokenFileError("a tensor has no storage, or no shape")
    if not len(shape) == len(strides) <= _MAX_AXES:
        raise BrokenFileError("a tensor has more axes than any has")
    numbers = (offset, *shape, *strides)
    if any(type(one) is not int or not 0 <= one < 2**62 for one in numbers):
        raise BrokenFileError("a tensor has a size that none has")
    last = offset + sum((one - 1) * step for one, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    problem = None if is_plain else "it is conjugated or negated, which is not read"
    if count > storage.numbers or (count and last >= storage.numbers):
        problem = "it is larger than what is stored of it"
    return StoredTensor(shape, strides, offset, storage, problem)
