"""In which arithmetic a transformer's tokens are drawn, and by whom.

On a CPU by torch, or by the compiled step; on a GPU by torch's kernels, recorded as CUDA graphs.

What the ways cost and lose is measured in docs/results/performance.md.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import torch

from dalle.config import Dtype, WeightType
from dalle.device import autocast_dtype, outlive_forks
from dalle.graph_decoder import GraphDecoder
from dalle.linear_layers import MICROBATCH, in_dtype
from dalle.native.build import compile_library, load_library
from dalle.native.decoder import NativeDecoder
from dalle.sampling import Chooser, Decoder, choose
from dalle.transformer import JointTransformer

log = logging.getLogger(__name__)

GPU_MICROBATCH = 64
"""Candidates that a GPU decodes together: also fixed, and more, since rows cost it little."""
COMPILED_MICROBATCH = 64
"""Candidates that the compiled step decodes together, at most; nothing depends on it."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A way to draw."""

    dtype: WeightType
    """Type of the weights that are read at each step."""
    compiled: bool
    """Whether the step was compiled: ours on a CPU, by torch on a GPU."""
    decoder: Decoder
    chooser: Chooser = choose
    microbatch: int = MICROBATCH
    """Candidates that are decoded together."""
    independent: bool = False
    """Whether no bit of a picture depends on how many are decoded together."""

    def microbatches(self, candidates: int) -> list[range]:
        """Candidate indices in micro-batches of one size; the last may reach past the count.

        Drawing a few too many keeps every product of torch's the same size, hence every picture
        the same whatever the number of candidates beyond a micro-batch.

        Raises:
            ValueError: There are none.
        """
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1, got {candidates}")
        size = min(candidates, self.microbatch)
        if self.independent:  # the fewest batches, as even as can be
            size = -(-candidates // -(-candidates // self.microbatch))
        return [range(start, start + size) for start in range(0, candidates, size)]

    def together(self, candidates: int) -> int:
        """Captions with so many candidates that are decoded in one batch, at least 1."""
        return max(1, self.microbatch // candidates)


class Engines:
    """The ways to draw with one transformer; each is made when first asked for, and kept."""

    def __init__(self, transformer: JointTransformer, device: torch.device) -> None:
        """Ways to draw with `transformer`, which lies on `device` in float32."""
        outlive_forks()
        self._transformer = transformer
        self._device = device
        self._made: dict[tuple[WeightType, bool], Engine] = {}
        self._lock = threading.Lock()

    def preferred(self, dtype: Dtype, *, compile: bool) -> Engine:
        """The engine for what a person asked for.

        Args:
            dtype: `auto` is the fastest that loses nothing worth the name: bf16 where the
                processor or GPU has it, or where the compiled step is at hand; else fp32.
            compile: Compile the step if nobody has. On a CPU, where it is at hand, it is used
                anyway; on a GPU, torch does it anew in every process.

        Raises:
            BuildError: The step cannot be compiled.
        """
        native: WeightType = "bf16" if autocast_dtype("auto", self._device) else "fp32"
        if self._device.type != "cpu":
            return self.exactly(native if dtype == "auto" else dtype, compiled=compile)
        if compile:
            compile_library()
        compiled = load_library() is not None
        if dtype == "auto":  # the compiled step computes in bf16 anywhere
            return self.exactly("bf16" if compiled else native, compiled=compiled)
        return self.exactly(dtype, compiled=compiled)

    def exactly(self, dtype: WeightType, *, compiled: bool) -> Engine:
        """The engine that a picture was drawn with; a warning where it cannot be had here."""
        if compiled and self._device.type == "cpu" and load_library() is None:
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
        if self._device.type != "cpu":
            recorded = GraphDecoder(in_dtype(self._transformer, dtype), compile=compiled)
            return Engine(
                dtype=dtype, compiled=compiled, decoder=recorded, microbatch=GPU_MICROBATCH
            )
        if not compiled:
            return Engine(dtype=dtype, compiled=False, decoder=in_dtype(self._transformer, dtype))
        library = load_library()
        assert library is not None, "whoever asks for the compiled step has looked"
        native = NativeDecoder(self._transformer, library, weights=dtype)
        return Engine(
            dtype=dtype, compiled=True, decoder=native, chooser=native.choose,
            microbatch=COMPILED_MICROBATCH, independent=True,
        )  # fmt: skip
