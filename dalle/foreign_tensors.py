"""The tensors of other projects' files, taken out one by one until none is left.

Nothing that such a file holds is run: see `dalle.torch_file`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dalle.errors import ModelFormatError
from dalle.torch_file import TorchFile
from dalle.torch_pickle import BrokenFileError

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SAFE_FLOATS = ("F64", "F32", "F16", "BF16")
_NAME_CHARS = 100

Module = TypeVar("Module", bound=nn.Module)


class ForeignTensors:
    """The tensors of one file; what does not fit is gathered.

    Attributes:
        path: The file, as torch saved it, or safetensors where it ends so.
        names: Of all of its tensors, as a state dict has them.
        problems: What was wrong so far, each a clause.
    """

    def __init__(self, path: Path) -> None:
        """Read what the file says of its tensors.

        Raises:
            ModelFormatError: It cannot be read, or holds none.
            OSError: It cannot be opened.
        """
        if path.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not path.is_file():
            raise ModelFormatError(f"{path} is no file")
        self.path = path
        self.problems: list[str] = []
        self._file = _SafeFile(path) if path.suffix == ".safetensors" else _saved_by_torch(path)
        self.names = tuple(self._file.shapes)
        if not self.names:
            raise ModelFormatError(f"{path} holds neither a module nor a state dict")
        self._left = dict.fromkeys(self.names)
        self._room = path.stat().st_size

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            ModelFormatError: There is none of that name.
        """
        if name not in self._file.shapes:
            some = ", ".join(one[:_NAME_CHARS] for one in self.names[:3])
            raise ModelFormatError(f"{self.path} has no tensor {name}; its first ones are {some}")
        return self._file.shapes[name]

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor, float32; an empty one and a problem where it is missing or does not fit."""
        found = self._file.shapes.get(name)
        self._left.pop(name, None)
        if found != tuple(shape) or name not in self._file.floats:
            what = "missing" if found is None else f"no floats, or of shape {found}"
            self.problems.append(f"{name} of {self.path} is {what}, not floats {tuple(shape)}")
            return torch.zeros(0)
        if self.problems:
            return torch.zeros(0)  # it would be in vain
        try:
            tensor = self._file.read(name)
        except BrokenFileError as err:
            self.problems.append(f"{name} of {self.path} cannot be read ({err})")
            return torch.zeros(0)
        self._room -= tensor.nbytes
        if self._room < 0:
            self.problems.append(f"{self.path} claims more values than it holds")
            return torch.zeros(0)
        tensor = tensor.float().contiguous()
        if not tensor.isfinite().all():
            self.problems.append(f"{name} of {self.path} holds values that are not finite")
        return tensor

    def pass_over(self, prefix: str) -> None:
        """Forget tensors that are not needed."""
        for name in [one for one in self._left if one.startswith(prefix)]:
            del self._left[name]

    def all_problems(self) -> list[str]:
        """What was wrong, and what nobody took."""
        left = [f"{one[:_NAME_CHARS]} of {self.path} is not expected" for one in self._left]
        return self.problems + left


class _SafeFile:
    """A safetensors file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
                self.floats = {
                    name for name, one in slices.items() if one.get_dtype() in _SAFE_FLOATS
                }
        except SafetensorError as err:
            raise ModelFormatError(f"{path} cannot be read as safetensors: {err}") from err

    def read(self, name: str) -> Tensor:
        with safe_open(self._path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor


class _PickledFile:
    """A file of torch's."""

    def __init__(self, file: TorchFile) -> None:
        self.shapes = {name: one.shape for name, one in file.tensors.items()}
        self.floats = {name for name, one in file.tensors.items() if one.dtype in _FLOATS}
        self.read = file.read


def _saved_by_torch(path: Path) -> _PickledFile:
    try:
        return _PickledFile(TorchFile(path))
    except BrokenFileError as err:
        raise ModelFormatError(
            f"{path} cannot be read as a file of torch's: {err}; get it again from where it was "
            "published"
        ) from err


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
