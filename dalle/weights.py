"""Tensors and folders on disk: safetensors that fit or are refused, folders that appear whole."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dalle.checksums import SUMS_FILE, read_sums, write_sums
from dalle.errors import ModelFormatError

_FLOAT_TYPES = ("F32", "F16", "BF16")

Module = TypeVar("Module", bound=nn.Module)


def check_replaceable(folder: Path) -> None:
    """Refuse to put a model folder where something else stands.

    Raises:
        ValueError: There is a file, or a folder that holds more than its SHA256SUMS lists.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"out folder {folder} is a file; give a new folder")
    names = {path.name for path in folder.iterdir()}
    ours = {SUMS_FILE, *read_sums(folder)} if SUMS_FILE in names else set()
    if others := sorted(names - ours):
        raise ValueError(
            f"out folder {folder} holds {others[0]!r}, which is no part of a model and would be "
            "lost; give a new folder"
        )


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A partial folder beside `folder`; sealed with SHA256SUMS and put in its place on success.

    Raises:
        ValueError: Something other than a model folder stands there.
    """
    folder = folder.resolve()  # of a link, what it leads to
    check_replaceable(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    # What a crash left under that name is of no use; under this one it may be the only model.
    old = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        write_sums(partial)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: It cannot be written, such as for want of room.
    """
    try:
        save_file(tensors, path)
    except SafetensorError as err:
        raise OSError(f"{path} cannot be written: {err}; make room, and start again") from err
    # The library makes files that their owner alone may read; whoever may read the folder may read
    # its weights, too. Some network mounts know no modes.
    with contextlib.suppress(OSError):
        path.chmod(0o600 | (path.parent.stat().st_mode & 0o444))


def stored(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of `module` as they are written: on the CPU, contiguous, in `dtype`."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        whole = tensor.detach().cpu().contiguous()
        narrow = whole.to(dtype)
        overflow = bool((narrow.isinf() & ~whole.isinf()).any())
        tensors[name] = whole.float() if overflow else narrow
    return tensors


def require_finite(tensors: Iterable[tuple[str, Tensor]], origin: str) -> None:
    """Refuse weights that would make every picture a blank one.

    Raises:
        ModelFormatError: A tensor holds NaN or an infinity.
    """
    for name, tensor in tensors:
        if not tensor.isfinite().all():
            raise ModelFormatError(
                f"{origin}: {name} holds values that are not finite; get the weights again from "
                "where they were published"
            )


def filled(construct: Callable[[], Module], weights: Path) -> Module:
    """The module `construct` makes, in eval mode, with the weights in a file that fits it."""
    with torch.device("meta"), _Unfilled(shapes_only=True):
        expected = construct().state_dict()
    try:
        with safe_open(weights, framework="pt") as file:
            _check_fit(expected, file, weights)
            tensors = {name: file.get_tensor(name).float() for name in expected}
    except (SafetensorError, OSError) as err:
        raise ModelFormatError(
            f"{weights} cannot be read as safetensors: {err}; copy the file again"
        ) from err
    require_finite(tensors.items(), str(weights))
    with torch.random.fork_rng(devices=[]), _Unfilled(shapes_only=False):
        module = construct()
    module.load_state_dict(tensors)
    return module.eval()


class _Unfilled(TorchFunctionMode):
    """Leaves out `torch.nn.init`: what it draws would be replaced at once.

    On the meta device, where there are only shapes, such functions even import torch's compiler and
    sympy, which takes longer than all else that happens before the first picture.
    """

    def __init__(self, *, shapes_only: bool) -> None:
        super().__init__()
        self.shapes_only = shapes_only

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__module__", "") == "torch.nn.init":
            return named["tensor"] if "tensor" in named else args[0]
        if self.shapes_only:
            func = _SAME_SHAPE.get(func, func)
        return func(*args, **named)


_SAME_SHAPE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.randn: torch.empty,
    torch.zeros_like: lambda like: torch.empty(like.shape, dtype=like.dtype),
}
"""What gives the same shape on the meta device, where nothing has content, at less cost."""


def _check_fit(expected: Mapping[str, Tensor], file: Any, weights: Path) -> None:
    """Refuse a safetensors file whose names, shapes or types differ from those expected."""
    names = set(file.keys())
    problems = [f"missing {name}" for name in expected.keys() - names]
    problems += [f"unexpected {name}" for name in names - expected.keys()]
    for name in expected.keys() & names:
        found = file.get_slice(name)
        shape, wanted = tuple(found.get_shape()), tuple(expected[name].shape)
        if shape != wanted:
            problems.append(f"{name} has shape {shape} instead of {wanted}")
        elif found.get_dtype() not in _FLOAT_TYPES:
            problems.append(f"{name} has type {found.get_dtype()}, not a float of 16 or 32 bits")
    if problems:
        raise ModelFormatError(
            f"{weights} does not fit its config.json ({len(problems)} differences): "
            f"{'; '.join(sorted(problems)[:8])}. Both must come from the same training"
        )
