"""A GPU that is none: its tensors lie in ordinary memory, but may not be mixed with a CPU's.

What is written for a GPU is run here step by step on a machine without one. Found so are tensors
that were left behind on the CPU, and whatever in a decode step would have to wait for the GPU,
which no CUDA graph can record. Speed, memory, rounding and autocast are those of the CPU in fp32.

    python -m tests.simulated_gpu train vae --config ...

runs a `dalle` command that way. torch's "PrivateUse1" stands for any device that torch does not
know; as it cannot be called cuda, what asks for just that type is not run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "simgpu"
MAY_MIX = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_", "expand_as"}
"""What may be given tensors of two devices: copies, indices, and sizes to go by."""
WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select", "equal"}
"""What the CPU learns from, and so waits for."""
_recording = False
_KEPT: list[torch.library.Library] = []

Found = TypeVar("Found")


class Simulated(torch.Tensor):
    """A tensor that says it is on the GPU."""

    inner: torch.Tensor  # type: ignore[assignment]  # a method of torch's, which nobody calls

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Simulated:
        made: Simulated = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=torch.device(NAME, 0),
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Simulated({self.inner})"

    def tolist(self) -> Any:
        """Its numbers, which torch gives of no subclass."""
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        """Refused, as of a GPU's tensor."""
        raise TypeError("can't convert a GPU's tensor to numpy; copy it to the CPU first")

    __array__ = numpy  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch gives it as the first of these
        cls, func: Any, _: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return computed(func, args, kwargs or {})


class Stream(torch.Generator):
    """Random numbers of a device."""

    on_gpu: bool

    def __new__(cls, device: torch.device | str = "cpu") -> Stream:
        made = super().__new__(cls, device="cpu")  # type: ignore[call-arg]
        made.on_gpu = torch.device(device).type == NAME
        return made

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """All is done."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where its numbers are wanted."""
        return torch.device(NAME, 0) if self.on_gpu else torch.device("cpu")


class Everywhere(TorchDispatchMode):
    """Sees calls that only name the GPU, such as those that make tensors there."""

    def __init__(self) -> None:
        """Not yet entered."""
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_flatten((args, kwargs))[0]
        named = [one for one in given if isinstance(one, torch.device) and one.type == NAME]
        if named or any(isinstance(one, Simulated) for one in given):
            return computed(func, args, kwargs)
        return func(*args, **kwargs)


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What `func` gives, computed on the CPU.

    Raises:
        RuntimeError: A GPU could not do it.
    """
    composite = torch._C._dispatch_has_kernel_for_dispatch_key
    if composite(func.name(), "CompositeImplicitAutograd"):
        with Everywhere():
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
    name = func._schema.name.removeprefix("aten::")
    given = tree_flatten((args, kwargs))[0]
    ours = [one for one in given if isinstance(one, Simulated)]
    others = [
        one for one in given if isinstance(one, torch.Tensor) and not isinstance(one, Simulated)
    ]
    wanted = kwargs.get("device")
    to_gpu = bool(ours) if wanted is None else torch.device(wanted).type == NAME
    if name == "expand_as":
        to_gpu = isinstance(args[0], Simulated)
    _refuse(name, ours, others)
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}

    def bare(one: Any) -> Any:
        return one.inner if isinstance(one, Simulated) else one

    without_dispatch = torch._C._DisableTorchDispatch()
    found = func(*tree_map(bare, args), **tree_map(bare, kwargs))
    del without_dispatch
    if name == "copy_":
        return args[0]
    itself = {id(one.inner): one for one in ours}

    def dressed(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        if id(one) in itself:  # changed in place
            return itself[id(one)]
        return Simulated(one) if to_gpu else one

    return tree_map(dressed, found)


def _refuse(name: str, ours: list[Any], others: list[Any]) -> None:
    mixed = [tuple(one.shape) for one in others if one.ndim]
    if ours and mixed and name not in MAY_MIX:
        raise RuntimeError(f"{name}: a GPU's tensors with those of a CPU, of shapes {mixed}")
    if _recording and (name in WAITS or (name in ("_to_copy", "copy_") and mixed)):
        raise RuntimeError(f"{name}: no CUDA graph can record it")


class Queue:
    """A queue of work, all of which is done at once."""

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def wait_stream(self, _: object) -> None:
        """Nobody has to be waited for."""

    def synchronize(self) -> None:
        """Nothing has to be waited for."""


class Device:
    """What torch asks the module of a device."""

    def current_stream(self, *_: object) -> Queue:
        """The only one."""
        return Queue()

    def stream(self, queue: Queue) -> Queue:
        """Work in `queue`."""
        return queue

    Stream = Queue

    def is_available(self) -> bool:
        """It is."""
        return True

    def device_count(self) -> int:
        """One."""
        return 1

    def current_device(self) -> int:
        """The only one."""
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """What autocast may be asked for; it changes nothing here."""
        return [torch.bfloat16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, _: int) -> None:
        """Its numbers come from streams alone."""


def recorded(work: Callable[[], Found]) -> Found:
    """What `work` gives, of which a CUDA graph could be made.

    Raises:
        RuntimeError: It could not.
    """
    global _recording
    _recording = True
    try:
        return work()
    finally:
        _recording = False


def install() -> None:
    """Make the device, and have whatever chooses one choose it."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Device())
    autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    autocast.fallback(torch.library.fallthrough_kernel)
    _KEPT.append(autocast)
    torch.Generator = Stream  # type: ignore[misc, assignment]
    torch.inference_mode = torch.no_grad  # type: ignore[misc, assignment]  # wrappers know no other
    # Before anything else of `dalle` is imported, which would keep the function as it is.
    import dalle.device

    dalle.device.choose_device = lambda wanted: torch.device(NAME)
    from dalle.graph_decoder import Desk

    run = Desk._run

    def record(self: Desk, reach: int) -> None:
        recorded(partial(run, self, reach))

    Desk._run = record  # type: ignore[method-assign]
    Everywhere().__enter__()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    install()
    from dalle.cli import main

    sys.exit(main(sys.argv[1:]))
