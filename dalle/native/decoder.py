"""A joint transformer that decodes through the compiled step of `decode.cpp`.

Axis letters: c captions, g candidates of a caption, t caption positions, r image tokens given as a
prompt, k image vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dalle.config import SamplingConfig, WeightType
from dalle.kv_cache import KeyValues, KVCache
from dalle.model_config import LayerMask
from dalle.native.packing import (
    PANEL,
    WEIGHT_BYTES,
    PackedLinear,
    address,
    pack_linear,
)
from dalle.native.structures import (
    Choice,
    Layer,
    LayerCache,
    LayerPrefix,
    Model,
    Norm,
    Prefill,
    Step,
)
from dalle.sequence import image_slot
from dalle.transformer import Block, JointTransformer

_BYTES_PER_THREAD = 1 << 20
"""Weights that a thread should have to itself: waiting for each other costs smaller models more."""
_PREFILL_ROWS = 512
"""Slots of captions that are read together, about: weights are read seldom, states lie near."""


class NativeCache:
    """What the drawing of one batch works on: keys and values, and all memory that steps use."""

    def __init__(self, cache: KVCache, *, threads: int, scratch: Tensor, logits: Tensor) -> None:
        """Wrap the cache of a prefill.

        Args:
            cache: Keys and values, in the type that the step stores them in.
            threads: How many work at once, each in its part of the scratch; whoever goes on with
                the drawing may have been given another number.
            scratch: Working memory, float32.
            logits: Where a step leaves its scores, shape (c, g, padded k), float32.
        """
        self.prefix = [KeyValues(*(one.contiguous() for one in pair)) for pair in cache.prefix]
        self.suffix = cache.suffix
        self.threads = threads
        self.scratch = scratch
        self.logits = logits
        self.slots = torch.arange(max(self.prefix_len, self.suffix_len), dtype=torch.int32)
        self.layers = (LayerCache * len(self.prefix))()
        for layer, prefix, suffix in zip(self.layers, self.prefix, self.suffix, strict=True):
            layer.prefix_keys, layer.prefix_values = map(address, prefix)
            layer.suffix_keys, layer.suffix_values = map(address, suffix)

    @property
    def prefix_len(self) -> int:
        """Slots of the prefix."""
        return self.prefix[0].keys.shape[2]

    @property
    def suffix_len(self) -> int:
        """Slots there is room for after it."""
        return self.suffix[0].keys.shape[3]


class NativeDecoder:
    """Captions are read, and every further token drawn, by the compiled step.

    The bits of a picture do not depend on what is decoded beside it. Many threads may share one.
    """

    def __init__(
        self, transformer: JointTransformer, library: ctypes.CDLL, *, weights: WeightType
    ) -> None:
        """Pack the weights of a transformer on the CPU.

        Args:
            transformer: The model, in float32; its embeddings and masks are read again and again.
            library: What `dalle.native.build` loaded.
            weights: Format of the weights that a step reads; sums are float32 (int8: exact).
        """
        self.sequence = transformer.sequence
        self.weights = weights
        self._library = library
        self._stored = torch.float32 if weights == "fp32" else torch.bfloat16
        self._transformer = transformer
        self._masks = transformer.config.layer_masks()
        self._kept: list[Tensor | PackedLinear | ctypes.Array[Layer]] = []
        self._model = self._pack(transformer)
        read = sum(
            one.weights.numel() for one in self._kept if isinstance(one, PackedLinear)
        ) * WEIGHT_BYTES[weights]  # fmt: skip
        self._threads_at_most = max(1, read // _BYTES_PER_THREAD)

    def prefill(
        self, text_ids: Tensor, image_prompt: Tensor | None, *, candidates: int
    ) -> tuple[Tensor, NativeCache]:
        """As `JointTransformer.prefill`; no caption sways another."""
        embedded, row_of = self._transformer.embed_distinct(text_ids, image_prompt)
        logits, prefix = self._read(embedded)
        suffix_len = self.sequence.total_len - embedded.shape[1]
        cache = KVCache(
            [KeyValues(keys[row_of], values[row_of]) for keys, values in prefix],
            candidates=candidates,
            suffix_len=suffix_len,
        )
        rows, slots = len(text_ids) * candidates, cache.prefix_len + suffix_len
        threads = self._threads
        return logits[row_of, : self.sequence.image_vocab], NativeCache(
            cache,
            threads=threads,
            scratch=self._scratch(rows, slots, threads),
            logits=torch.empty(len(text_ids), candidates, logits.shape[-1]),
        )

    def _read(self, embedded: Tensor) -> tuple[Tensor, list[KeyValues]]:
        """Scores after each prefix, (c, padded k), and its keys and values, (c, a, p, f) by layer.

        Args:
            embedded: Prefixes, shape (c, p, d), float32.
        """
        captions, slots, width = embedded.shape
        heads = self._model.heads
        prefix = [
            KeyValues(*torch.empty(2, captions, heads, slots, width // heads, dtype=self._stored))
            for _ in self._masks
        ]
        logits = torch.empty(captions, self._model.head.panels * PANEL)
        seen = {kind: self._seen(kind, slots) for kind in dict.fromkeys(self._masks)}
        together = max(1, _PREFILL_ROWS // slots)
        threads = torch.get_num_threads()
        scratch = self._scratch(min(captions, together) * slots, slots, threads)
        for first in range(0, captions, together):
            part = slice(first, first + together)
            layers = (LayerPrefix * len(prefix))()
            for layer, (keys, values), kind in zip(layers, prefix, self._masks, strict=True):
                layer.keys, layer.values = keys[part].data_ptr(), values[part].data_ptr()
                layer.seen, layer.seen_begin = map(address, seen[kind])
            prefill = Prefill(
                captions=len(embedded[part]),
                prefix_len=slots,
                embedded=embedded[part].data_ptr(),
                layer=layers,
                scratch=scratch.data_ptr(),
                logits=logits[part].data_ptr(),
                threads=threads,
            )
            self._library.dalle_prefill(ctypes.byref(self._model), ctypes.byref(prefill))
        return logits, prefix

    def _seen(self, kind: LayerMask, slots: int) -> tuple[Tensor, Tensor]:
        """Which of the first slots each of them sees, one after another, and where each begins."""
        mask = self._transformer.mask(kind)
        sees = torch.ones(slots, slots).tril().bool() if mask is None else mask[:slots, :slots]
        begin = torch.zeros(slots + 1, dtype=torch.int32)
        begin[1:] = sees.sum(dim=1).cumsum(dim=0)
        return sees.nonzero()[:, 1].to(torch.int32), begin

    def _scratch(self, rows: int, slots: int, threads: int) -> Tensor:
        """Working memory for so many rows that look at so many slots."""
        arguments = (ctypes.c_int64(number) for number in (rows, slots, threads))
        return torch.zeros(
            self._library.dalle_scratch_floats(ctypes.byref(self._model), *arguments)
        )

    def decode_step(self, tokens: Tensor, position: int, cache: NativeCache) -> Tensor:
        """As `JointTransformer.decode_step`; the next step overwrites the scores."""
        tokens = tokens.contiguous()
        captions, candidates = tokens.shape
        seen = self._see(position, cache)
        step = Step(
            captions=captions,
            candidates=candidates,
            prefix_len=cache.prefix_len,
            suffix_len=cache.suffix_len,
            position=position,
            tokens=tokens.data_ptr(),
            cache=cache.layers,
            scratch=cache.scratch.data_ptr(),
            logits=cache.logits.data_ptr(),
            threads=cache.threads,
        )
        self._library.dalle_step(ctypes.byref(self._model), ctypes.byref(step))
        del seen  # the lists had to live until here
        return cache.logits[..., : self.sequence.image_vocab]

    def choose(
        self, logits: Tensor, noise: Tensor, captions: int, sampling: SamplingConfig
    ) -> tuple[Tensor, Tensor]:
        """As `dalle.sampling.choose`, in one call."""
        logits = logits if logits.stride(-1) == 1 and logits.stride(1) else logits.contiguous()
        _, candidates, vocab = logits.shape
        noise = noise if noise.stride(-1) == 1 else noise.contiguous()
        tokens = torch.empty(captions, candidates, dtype=torch.int64)
        log_probability = torch.empty(captions, candidates)
        threads = min(self._threads, captions * candidates)
        scratch = torch.empty(threads, 2, (vocab + 31) // 16 * 16)
        choice = Choice(
            captions=captions,
            candidates=candidates,
            vocab=vocab,
            stride=logits.stride(1),
            conditional=logits.data_ptr(),
            null=logits[captions:].data_ptr() if len(logits) > captions else None,
            noise=noise.data_ptr(),
            noise_stride=noise.stride(0),
            guidance_scale=sampling.guidance_scale,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or 0,
            scratch=scratch.data_ptr(),
            tokens=tokens.data_ptr(),
            log_probability=log_probability.data_ptr(),
            threads=threads,
        )
        self._library.dalle_choose(ctypes.byref(choice))
        return tokens, log_probability

    @property
    def _threads(self) -> int:
        return min(torch.get_num_threads(), self._threads_at_most)

    def _see(self, position: int, cache: NativeCache) -> list[Tensor]:
        """Tell each layer's cache what the query sees; returns the lists that it points to."""
        slot = image_slot(position, self.sequence)
        newest = slot - cache.prefix_len
        lists: dict[LayerMask, tuple[Tensor, Tensor]] = {}
        for kind in dict.fromkeys(self._masks):
            mask = self._transformer.mask(kind)
            if mask is None:
                lists[kind] = cache.slots[: cache.prefix_len], cache.slots[: newest + 1]
            else:
                row = mask[slot]
                before, since = row[: cache.prefix_len], row[cache.prefix_len : slot + 1]
                lists[kind] = _numbers(before), _numbers(since)
        for layer, kind in zip(cache.layers, self._masks, strict=True):
            before, since = lists[kind]
            layer.seen_prefix, layer.seen_prefix_count = before.data_ptr(), len(before)
            layer.seen_suffix, layer.seen_suffix_count = since.data_ptr(), len(since)
        return [numbers for pair in lists.values() for numbers in pair]

    # ------------------------------------------------------------------------------ packing

    def _pack(self, transformer: JointTransformer) -> Model:
        config = transformer.config
        blocks: Sequence[Block] = transformer.block_list()
        layers = (Layer * len(blocks))(*(self._layer(block) for block in blocks))
        self._kept.append(layers)
        head = pack_linear(transformer.image_unembedding_weight(), None, self.weights)
        self._kept.append(head)
        return Model(
            format=WEIGHT_BYTES[self.weights],
            layers=config.layers,
            width=config.width,
            hidden=config.mlp_ratio * config.width,
            heads=config.heads,
            grid_w=self.sequence.grid_w,
            layer=layers,
            final_norm=self._norm(transformer.final_norm),
            head=head.structure,
            image_embedding=self._keep(transformer.image_embedding.weight),
            row_position=self._keep(transformer.row_position.weight),
            column_position=self._keep(transformer.column_position.weight),
        )

    def _layer(self, block: Block) -> Layer:
        attention = block.attention
        packed = [
            pack_linear(linear.weight, linear.bias, self.weights)
            for linear in (attention.qkv, attention.out, block.mlp_in, block.mlp_out)
        ]
        self._kept += packed
        qkv, out, mlp_in, mlp_out = (one.structure for one in packed)
        return Layer(
            attention_norm=self._norm(block.attention_norm),
            qkv=qkv,
            query_gain=self._gain(attention.query_norm),
            key_gain=self._gain(attention.key_norm),
            out=out,
            mlp_norm=self._norm(block.mlp_norm),
            mlp_in=mlp_in,
            mlp_out=mlp_out,
        )

    def _norm(self, norm: nn.LayerNorm) -> Norm:
        return Norm(gain=self._keep(norm.weight), offset=self._keep(norm.bias))

    def _gain(self, norm: nn.Module) -> int | None:
        return self._keep(norm.weight) if isinstance(norm, nn.RMSNorm) else None

    def _keep(self, tensor: Tensor) -> int:
        """Address of a tensor as float32, kept alive."""
        wide = tensor.detach().float().contiguous()
        self._kept.append(wide)
        return wide.data_ptr()


def _numbers(seen: Tensor) -> Tensor:
    """Indices of the true entries of (s), int32."""
    return seen.nonzero().squeeze(-1).to(torch.int32)
