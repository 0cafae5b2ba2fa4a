"""In which arithmetic a transformer's tokens are drawn, and by whom: torch, or the compiled step.

What the ways cost and lose is measured in docs/results/performance.md.
"""

from __future__ import annotations

import copy
import logging
import threading
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dalle.config import Dtype, WeightType
from dalle.device import autocast_dtype
from dalle.native.build import compile_library, load_library
from dalle.native.decoder import NativeDecoder
from dalle.native.packing import quantize_rows
from dalle.sampling import Chooser, Decoder, choose
from dalle.transformer import JointTransformer

log = logging.getLogger(__name__)

MICROBATCH = 16
"""Candidates that torch decodes together. Fixed, because its rounding depends on it."""
COMPILED_MICROBATCH = 64
"""Candidates that the compiled step decodes together, at most; nothing depends on it."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A way to draw."""

    dtype: WeightType
    """Type of the weights that are read at each step."""
    compiled: bool
    """Whether the compiled step does the work."""
    decoder: Decoder
    chooser: Chooser = choose

    def microbatches(self, candidates: int) -> list[range]:
        """Candidate indices in micro-batches of one size; the last may reach past the count.

        Drawing a few too many keeps every product of torch's the same size, hence every picture
        the same whatever the number of candidates beyond a micro-batch.
        """
        size = min(candidates, MICROBATCH)
        if self.compiled:  # the fewest batches, as even as can be
            size = -(-candidates // -(-candidates // COMPILED_MICROBATCH))
        return [range(start, start + size) for start in range(0, candidates, size)]

    def together(self, candidates: int) -> int:
        """Captions with so many candidates that are decoded in one batch, at least 1."""
        most = COMPILED_MICROBATCH if self.compiled else MICROBATCH
        return max(1, most // candidates)


class Engines:
    """The ways to draw with one transformer; each is made when first asked for, and kept."""

    def __init__(self, transformer: JointTransformer, device: torch.device) -> None:
        """Ways to draw with `transformer`, which lies on `device` in float32."""
        self._transformer = transformer
        self._device = device
        self._made: dict[tuple[WeightType, bool], Engine] = {}
        self._lock = threading.Lock()

    def preferred(self, dtype: Dtype, *, compile: bool) -> Engine:
        """The engine for what a person asked for.

        Args:
            dtype: `auto` is the fastest that loses nothing worth the name: bf16 where the
                processor or GPU has it, or where the compiled step is at hand; else fp32.
            compile: Compile the step if nobody has; where it is at hand, it is used anyway.

        Raises:
            ValueError: int8 or compiling is asked for on a GPU.
            BuildError: The step cannot be compiled.
        """
        native: WeightType = "bf16" if autocast_dtype("auto", self._device) else "fp32"
        if self._device.type != "cpu":
            if dtype == "int8" or compile:
                raise ValueError(
                    f"dtype int8 and compile are for CPUs, got dtype {dtype} and compile {compile} "
                    f"on {self._device.type}; leave them out, or use device cpu"
                )
            return self.exactly(native if dtype == "auto" else dtype, compiled=False)
        if compile:
            compile_library()
        compiled = load_library() is not None
        if dtype == "auto":  # the compiled step computes in bf16 anywhere
            return self.exactly("bf16" if compiled else native, compiled=compiled)
        return self.exactly(dtype, compiled=compiled)

    def exactly(self, dtype: WeightType, *, compiled: bool) -> Engine:
        """The engine that a picture was drawn with; a warning where it cannot be had here."""
        if compiled and (self._device.type != "cpu" or load_library() is None):
            log.warning(
                "drawn with the compiled decode step, which is not at hand: single pixels may "
                "differ; --compile true makes it"
            )
            compiled = False
        with self._lock:
            if (dtype, compiled) not in self._made:
                self._made[dtype, compiled] = self._make(dtype, compiled)
            return self._made[dtype, compiled]

    def _make(self, dtype: WeightType, compiled: bool) -> Engine:
        if compiled:
            library = load_library()
            assert library is not None, "whoever asks for the compiled step has looked"
            native = NativeDecoder(self._transformer, library, weights=dtype)
            return Engine(dtype=dtype, compiled=True, decoder=native, chooser=native.choose)
        return Engine(dtype=dtype, compiled=False, decoder=in_dtype(self._transformer, dtype))


class Bf16Linear(nn.Module):
    """A linear layer that multiplies in bfloat16, between float32 states."""

    weight: Tensor
    bias: Tensor

    def __init__(self, source: nn.Linear) -> None:
        """Round the weights of `source`."""
        super().__init__()
        self.register_buffer("weight", source.weight.detach().bfloat16(), persistent=False)
        self.register_buffer("bias", source.bias.detach().bfloat16(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., i) to (..., o), float32."""
        return linear(x.bfloat16(), self.weight, self.bias).float()


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, whose inputs are quantised row by row as they come.

    torch's own dynamic quantisation has one scale for a whole batch, so that a picture would
    depend on its neighbours.
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, source: nn.Linear) -> None:
        """Quantise `source`, one scale for each output."""
        super().__init__()
        weight, scales = quantize_rows(source.weight.detach().float())
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("bias", source.bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., i) to (..., o), float32."""
        rows = x.reshape(-1, x.shape[-1])
        smallest = torch.finfo(x.dtype).tiny
        steps = rows.abs().amax(dim=-1, keepdim=True).clamp_min_(smallest).div_(127)
        whole = (rows / steps).round_().to(torch.int8)
        sums = torch._int_mm(whole, self.weight.t()).to(x.dtype)
        return torch.addcmul(self.bias, sums, steps * self.scales).view(*x.shape[:-1], -1)


def in_dtype(transformer: JointTransformer, dtype: WeightType) -> JointTransformer:
    """`transformer` itself for fp32, else a copy with weights of `dtype`.

    On a CPU only the products with weights are narrow. Keys and values stay float32: torch's
    products of one bfloat16 query with its keys took two to five times as long as in float32.
    """
    if dtype == "fp32":
        return transformer
    other = copy.deepcopy(transformer)
    if dtype == "bf16" and transformer.start.device.type != "cpu":
        return other.bfloat16()
    narrow = Bf16Linear if dtype == "bf16" else Int8Linear
    for block in other.block_list():
        for owner, name in (
            (block.attention, "qkv"),
            (block.attention, "out"),
            (block, "mlp_in"),
            (block, "mlp_out"),
        ):
            setattr(owner, name, narrow(getattr(owner, name)))
    return other
