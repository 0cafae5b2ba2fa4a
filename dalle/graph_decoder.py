"""Decoding on a GPU: every step is one recorded CUDA graph, so that no kernel waits for Python.

A graph does the same work on the same memory again. So all that changes from step to step is read
from tensors, keys and values lie where they always lay, and of the suffix a step reads a few more
slots than there are, which are hidden: to the next quarter, so that four graphs draw a picture.

Axis letters: c captions, g candidates of a caption, p prefix slots, s suffix slots, k image
vocabulary.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dalle.kv_cache import KeyValues, KVCache, LayerMemory, Visible
from dalle.sequence import image_slot
from dalle.transformer import Block, DecodeBlock, JointTransformer

QUARTERS = 4
"""Graphs of a picture; each reads up to a quarter of the suffix more than it must."""
KEPT_DESKS = 2
"""Desks without a user that are kept nevertheless, each with a cache and its graphs."""
COMPILED_SHAPES = 64
"""Shapes, types and models that a process may compile a block for; with torch's own limit of eight,
what comes after them is run uncompiled."""
_RECORDING = threading.Lock()
"""Only one graph can be recorded at a time in a process, whatever thread or model records it."""


class Desk:
    """Memory that the steps of batches of one shape work on, one batch after another.

    Args:
        transformer: The model, on its device.
        prefix: Keys and values of a prefill, per layer, of the shape that is worked on.
        candidates: Images of each caption (g).
        decode_block: What takes new tokens through a block.
    """

    def __init__(
        self,
        transformer: JointTransformer,
        prefix: Sequence[KeyValues],
        *,
        candidates: int,
        decode_block: DecodeBlock,
    ) -> None:
        self._transformer = transformer
        self._decode_block = decode_block
        sequence = transformer.sequence
        captions, _, prefix_len, _ = prefix[0].keys.shape
        device = prefix[0].keys.device
        self._suffix_len = sequence.total_len - prefix_len
        self._prompt_len = prefix_len - image_slot(0, sequence)
        self._cache = KVCache(
            [KeyValues(*(torch.empty_like(one) for one in pair)) for pair in prefix],
            candidates=candidates,
            suffix_len=self._suffix_len,
        )
        for keys, values in self._cache.suffix:
            # What is hidden is still multiplied by 0, which whatever lay there might not survive.
            keys.zero_()
            values.zero_()
        self._tokens = torch.zeros(captions, candidates, dtype=torch.int64, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._slots = torch.arange(sequence.total_len, device=device)
        self._logits = torch.empty(
            captions, candidates, sequence.image_vocab, dtype=torch.float32, device=device
        )
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None  # of torch's own type

    def suits(self, prefix: Sequence[KeyValues], candidates: int) -> bool:
        """Whether a prefill's keys are of the shape that is worked on here."""
        shape = self._cache.prefix[0].keys.shape
        return shape == prefix[0].keys.shape and candidates == self._tokens.shape[1]

    def begin(self, prefix: Sequence[KeyValues]) -> None:
        """Take the keys and values of another prefill of the same shape."""
        for ours, theirs in zip(self._cache.prefix, prefix, strict=True):
            ours.keys.copy_(theirs.keys)
            ours.values.copy_(theirs.values)

    def step(self, tokens: Tensor, position: int) -> Tensor:
        """Scores for the tokens after `tokens`, shape (c, g, k), float32; overwritten by the next.

        Args:
            tokens: Shape (c, g), int64.
            position: Their raster position.
        """
        self._tokens.copy_(tokens)
        self._position.fill_(position)
        reach = self._reach(position)
        if tokens.device.type != "cuda":
            self._run(reach)
        else:
            if reach not in self._graphs:
                self._graphs[reach] = self._record(reach)
            self._graphs[reach].replay()
        return self._logits

    def _reach(self, position: int) -> int:
        """How many suffix slots are read at `position`: whole quarters."""
        quarter = -(-self._suffix_len // QUARTERS)
        needed = position - self._prompt_len + 1
        return min(-(-needed // quarter) * quarter, self._suffix_len)

    def _run(self, reach: int) -> None:
        """One step over the first `reach` suffix slots; reads and writes this desk's tensors."""
        transformer = self._transformer
        slot = self._position + image_slot(0, transformer.sequence)  # 1
        read = self._slots[: self._cache.prefix_len + reach]  # p+s
        visible = {}
        for kind in dict.fromkeys(transformer.config.layer_masks()):
            mask = transformer.mask(kind)
            seen = read <= slot if mask is None else mask[slot, : len(read)].squeeze(0)
            visible[kind] = Visible(
                suffix_index=self._position - self._prompt_len,
                suffix=slice(0, reach),
                hidden=~seen,
            )
        self._logits.copy_(
            transformer.decode_seeing(
                self._tokens,
                self._position,
                self._cache.layers,
                visible,
                decode_block=self._decode_block,
            )
        )

    def _record(self, reach: int) -> torch.cuda.CUDAGraph:
        """A graph of `_run`, after one run in which kernels are chosen and, if wanted, compiled."""
        graph = torch.cuda.CUDAGraph()
        with _RECORDING:
            here, aside = torch.cuda.current_stream(), _stream_aside()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                self._run(reach)
            here.wait_stream(aside)
            # Other threads, which load a CLIP or read a picture, may go on meanwhile. A desk's
            # graphs never run at once, and their scores are copied out, so they share memory.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"
            ):
                self._run(reach)
        self._pool = graph.pool()
        return graph


@functools.cache
def _stream_aside() -> torch.cuda.Stream:
    """Where all graphs are recorded: each further stream would keep workspaces of its own."""
    return torch.cuda.Stream()


def compiled_block(**options: Any) -> DecodeBlock:
    """`Block.decode` as torch compiles it.

    Keys and values of the suffix are handed over once: told of them twice, to be written and to be
    read, torch copies all of them at every step. `options` are those of `torch.compile`.
    """
    torch._dynamo.config.recompile_limit = COMPILED_SHAPES

    def decode(block: Block, x: Tensor, memory: LayerMemory, visible: Visible) -> Tensor:
        rows = KeyValues(*(one.flatten(0, 2) for one in memory.suffix))
        return block.decode(x, LayerMemory(memory.prefix, memory.suffix, rows), visible)

    return torch.compile(decode, **options)


class Lease:
    """The use of a desk by one batch; the desk is free when whoever draws lets go of this."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk


class GraphDecoder:
    """A transformer whose steps are recorded; see `dalle.sampling.Decoder`.

    Many threads may share one: each batch that is being drawn has a desk to itself. On a CPU the
    steps are the same, but run rather than recorded, which serves tests alone.

    Args:
        transformer: The model on its device, in the type that it draws in.
        compile: Have torch compile a block first, which fuses what lies between its products: some
            tens of seconds, once a process.
    """

    def __init__(self, transformer: JointTransformer, *, compile: bool) -> None:
        self.sequence = transformer.sequence
        self._transformer = transformer
        self._decode_block = compiled_block() if compile else Block.decode
        self._desks: list[tuple[Desk, weakref.ref[Lease]]] = []
        self._lock = threading.Lock()

    def prefill(
        self, text_ids: Tensor, image_prompt: Tensor | None, *, candidates: int
    ) -> tuple[Tensor, Lease]:
        """As `JointTransformer.prefill`; its keys and values go to a desk of their shape.

        Equal captions are read each by itself, since the kernels that a GPU takes, and with them
        rounding, depend on how many rows there are.
        """
        logits, prefix = self._transformer.read(text_ids, image_prompt, merge_equal=False)
        lease = self._lease(prefix, candidates)
        lease.desk.begin(prefix)
        return logits, lease

    def decode_step(self, tokens: Tensor, position: int, cache: Lease) -> Tensor:
        """As `JointTransformer.decode_step`; the next step overwrites the scores."""
        return cache.desk.step(tokens, position)

    def _lease(self, prefix: Sequence[KeyValues], candidates: int) -> Lease:
        """A desk of the shape of `prefix`, a free one if there is any."""
        with self._lock:
            free = [desk for desk, user in self._desks if user() is None]
            desk = next((one for one in free if one.suits(prefix, candidates)), None)
            if desk is None:
                desk = Desk(
                    self._transformer, prefix, candidates=candidates,
                    decode_block=self._decode_block,
                )  # fmt: skip
            lease = Lease(desk)
            dropped = {id(desk), *map(id, free[:-KEPT_DESKS])}
            self._desks = [pair for pair in self._desks if id(pair[0]) not in dropped]
            self._desks.append((desk, weakref.ref(lease)))  # the last used is the last dropped
        return lease
