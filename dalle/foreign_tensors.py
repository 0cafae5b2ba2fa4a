"""Tensors in the files of other projects, read without running what such a file may hold.

A pickled module names classes and functions that unpickling would import and call. Here only what
makes tensors is called; every other name stands for an object that keeps its state and does
nothing, so a module of classes that are not installed is read as well.
"""

from __future__ import annotations

import pickle
import types
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dalle.errors import ModelFormatError


class ForeignTensors:
    """The tensors of one file, taken out by their names; what does not fit is gathered.

    Attributes:
        path: The file.
        problems: What was wrong so far, each a clause.
    """

    def __init__(self, path: Path) -> None:
        """Read `path`; see `read_tensors` for what that raises."""
        self.path = path
        self.problems: list[str] = []
        self._left = read_tensors(path)
        self.names = tuple(self._left)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor.

        Raises:
            ModelFormatError: There is none of that name.
        """
        if name not in self._left:
            some = ", ".join(self.names[:3])
            raise ModelFormatError(f"{self.path} has no tensor {name}; its first ones are {some}")
        return self._left[name].shape

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor, float32; an empty one and a problem where it is missing or does not fit."""
        found = self._left.pop(name, None)
        if found is None or tuple(found.shape) != tuple(shape) or not found.is_floating_point():
            what = "missing" if found is None else f"{found.dtype} {tuple(found.shape)}"
            self.problems.append(f"{name} of {self.path} is {what}, not floats {tuple(shape)}")
            return torch.zeros(0)
        tensor = found.float().contiguous()
        if not tensor.isfinite().all():
            self.problems.append(f"{name} of {self.path} holds values that are not finite")
        return tensor

    def pass_over(self, prefix: str) -> None:
        """Forget tensors that are not needed."""
        self._left = {name: one for name, one in self._left.items() if not name.startswith(prefix)}

    def all_problems(self) -> list[str]:
        """What was wrong, and what nobody took."""
        return self.problems + [f"{name} of {self.path} is not expected" for name in self._left]


Module = TypeVar("Module", bound=nn.Module)


def filled_from(
    module: Module, tensors: Mapping[str, Tensor], files: Sequence[ForeignTensors]
) -> Module:
    """`module`, of the meta device until now, with `tensors`, all that its files held.

    Raises:
        ModelFormatError: One was missing, did not fit, or is left.
    """
    if problems := [problem for file in files for problem in file.all_problems()]:
        raise ModelFormatError(
            f"{' and '.join(str(file.path) for file in files)} cannot be imported "
            f"({len(problems)} differences from what is known): {'; '.join(problems[:4])}"
        )
    module.load_state_dict(tensors, assign=True)
    return module


_MAKE_TENSORS = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor_v2"),
    }
)
"""What a file may have called; torch's loader adds the types of storages."""


class _Inert:
    """Stands for whatever else a file names: it takes any arguments and state, and does nothing."""

    state: object = None

    def __new__(cls, *_args: object, **_named: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _MAKE_TENSORS else _Inert


def _load(file: IO[bytes], **named: Any) -> object:
    return _Unpickler(file, **named).load()


_PICKLING: Any = types.ModuleType("inert_pickle")
"""As much of the module `pickle` as torch's loader asks for."""
_PICKLING.Unpickler, _PICKLING.load = _Unpickler, _load


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, or of a module or state dict that torch saved.

    Args:
        path: The file; one that ends in `.safetensors` is read as that.

    Returns:
        Tensors by their names in the state dict, on the CPU.

    Raises:
        ModelFormatError: It cannot be read, holds no tensors, or claims more than it holds.
        OSError: The file cannot be opened.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as err:
            raise ModelFormatError(f"{path} cannot be read as safetensors: {err}") from err
    _refuse_compression(path)
    try:
        # Not `weights_only`, whose unpickler refuses a file for any class that it does not know.
        found = torch.load(path, map_location="cpu", pickle_module=_PICKLING, weights_only=False)
        tensors = dict(_tensors_of(found))
    except OSError:
        raise
    except Exception as err:  # damaged pickles raise nearly anything
        cause = " ".join(str(err).split())[:200]
        raise ModelFormatError(
            f"{path} cannot be read as a file of torch's: {type(err).__name__}: {cause}; get it "
            "again from where it was published"
        ) from err
    if not tensors:
        raise ModelFormatError(f"{path} holds neither a module nor a state dict")
    for name, tensor in tensors.items():
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ModelFormatError(f"{path}: {name} is larger than what the file holds of it")
    return tensors


def _refuse_compression(path: Path) -> None:
    """Refuse a file that would unpack to more than it is; torch compresses nothing.

    Raises:
        ModelFormatError: It would.
    """
    if not zipfile.is_zipfile(path):
        return  # as torch saved before 1.6
    with zipfile.ZipFile(path) as archive:
        if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
            raise ModelFormatError(f"{path} is a compressed archive, which torch does not write")


def _tensors_of(found: object) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a module's parts, or of a state dict, by the names that a state dict gives."""
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]  # as Lightning saves it, beside much else
    left: list[tuple[str, object]] = [("", found)]
    seen: set[int] = set()
    while left:
        prefix, one = left.pop()
        if id(one) in seen:
            continue  # a module that is used twice, or that a forged file puts into itself
        seen.add(id(one))
        state = one.state if isinstance(one, _Inert) else {"_parameters": one}
        if not isinstance(state, Mapping):
            continue
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _items(state.get(kind)):
                if isinstance(tensor, Tensor):
                    yield f"{prefix}{name}", tensor.detach()
        left += [(f"{prefix}{name}.", part) for name, part in _items(state.get("_modules"))]


def _items(mapping: object) -> list[tuple[object, object]]:
    return list(mapping.items()) if isinstance(mapping, Mapping) else []
