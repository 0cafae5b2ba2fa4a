"""Keys and values as rows of tables, which a CPU mixes faster than it multiplies them.

One query's product with its keys is a weighted sum of rows if the keys lie by feature, and so is
that of its weights with the values. torch sums rows of tables for `embedding_bag`, in FBGEMM's code
made for the processor at hand, which fetches rows ahead: at 30 GB/s, where products of one row
read 17.

Axis letters: c captions, g candidates of a caption, a heads, f head width; p prefix slots (caption
and image prompt), s suffix slots (image tokens drawn since); k blocks of slots, l slots of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from dalle.kv_cache import KeyValues

BLOCK = 32
"""Slots whose keys are one row for each feature: of 16 to 64 the fastest, by little."""


def sums_rows_fast() -> bool:
    """Whether this torch has FBGEMM, as it has on x86: without it, sums of rows are slow."""
    return "fbgemm" in torch.backends.quantized.supported_engines


@dataclass(frozen=True, kw_only=True)
class InBags:
    """What the queries of one decode step see; the same for all layers.

    Attributes:
        suffix_index: Where the queries' own keys and values are written in the suffix.
        key_blocks: Blocks of keys that are read (k), the prefix's included.
        key_rows: Rows of the keys' tables, shape (c * g * a * k * f), int32.
        key_bags: Where each sum of them begins, shape (c * g * a * k), int32.
        scored: Which of the k * l scores belong to slots.
        value_rows: Rows of the values' tables, shape (c * g * a * (p + s)), int32.
        value_bags: Where each sum of them begins, shape (c * g * a), int32.
    """

    suffix_index: int
    key_blocks: int
    key_rows: Tensor
    key_bags: Tensor
    scored: slice
    value_rows: Tensor
    value_bags: Tensor


@dataclass(frozen=True, kw_only=True)
class BagMemory:
    """One layer of a `BagCache`.

    Attributes:
        keys: Rows of one feature of a block of slots, of the prefix's blocks (c a k f) first, then
            of the suffix's (c g a k f); shape (rows, l).
        values: Rows of one slot, of the prefix's (c a p) first, then of the suffix's (c g a s);
            shape (rows, f).
        new_keys: The suffix's part of `keys`, shape (c, g, a, k, f, l); the same memory.
        new_values: The suffix's part of `values`, shape (c, g, a, s, f); the same memory.
    """

    keys: Tensor
    values: Tensor
    new_keys: Tensor
    new_values: Tensor

    def attend(self, queries: Tensor, added: KeyValues, seen: InBags) -> Tensor:
        """See `dalle.kv_cache.Memory.attend`."""
        block, lane = divmod(seen.suffix_index, BLOCK)
        self.new_keys[:, :, :, block, :, lane] = added.keys
        self.new_values[:, :, :, seen.suffix_index] = added.values
        head_width = queries.shape[-1]
        bags = len(seen.value_bags)
        by_feature = self.keys.new_empty(bags, seen.key_blocks, head_width)
        by_feature.copy_((queries * head_width**-0.5).view(bags, 1, head_width))
        scores = _sums(self.keys, seen.key_rows, seen.key_bags, by_feature)  # cgak l
        weights = scores.view(bags, -1)[:, seen.scored].softmax(-1)  # cga p+s
        mixed = _sums(self.values, seen.value_rows, seen.value_bags, weights)  # cga f
        return mixed.view(queries.shape).float()


class BagCache:
    """Keys and values of all layers while images are drawn, allocated once at their final size.

    As in a `KVCache`, the prefix is held once per caption: the sums of all its candidates name the
    same rows. What a query sees must be all slots up to its own.

    Attributes:
        layers: The tables, per layer.
    """

    def __init__(
        self, prefix: Sequence[KeyValues], *, candidates: int, suffix_len: int, dtype: torch.dtype
    ) -> None:
        """A cache that starts after `prefix`.

        Args:
            prefix: Keys and values per layer, shape (c, a, p, f), float32, on a CPU.
            candidates: Images of each caption (g).
            suffix_len: Tokens that may be drawn.
            dtype: In which all is kept; sums are float32, and rounded to it.
        """
        captions, heads, prefix_len, head_width = prefix[0].keys.shape
        self._bags = captions, candidates, heads
        self._prefix_len, self._suffix_len = prefix_len, suffix_len
        self._prefix_blocks = -(-prefix_len // BLOCK)
        self._suffix_blocks = -(-suffix_len // BLOCK)
        # The prefix ends with a block, so that no gap lies between it and what is drawn.
        self._gap = self._prefix_blocks * BLOCK - prefix_len
        blocks = self._numbers(self._prefix_blocks, self._suffix_blocks)  # cga k
        self._key_rows = (blocks[..., None] * head_width + torch.arange(head_width)).int()
        self._value_rows = self._numbers(prefix_len, suffix_len).int()  # cga p+s
        self._read: tuple[int, Tensor, Tensor] | None = None
        self.layers = tuple(self._memory(pair, dtype) for pair in prefix)

    def _numbers(self, shared: int, own: int) -> Tensor:
        """What each bag reads, shape (c * g * a, shared + own), int64.

        Things are numbered as they lie in a table: first those that a caption's candidates share.
        """
        captions, candidates, heads = self._bags
        ends = captions * heads * shared
        common = rearrange(torch.arange(ends), "(c a n) -> c a n", c=captions, a=heads)
        common = repeat(common, "c a n -> (c g a) n", g=candidates)
        single = (ends + torch.arange(len(common) * own)).view(len(common), own)
        return torch.cat([common, single], dim=1)

    def _memory(self, prefix: KeyValues, dtype: torch.dtype) -> BagMemory:
        """The tables of one layer, of which the prefix is known."""
        captions, candidates, heads = self._bags
        head_width = prefix.keys.shape[-1]
        shared, own = captions * heads, captions * candidates * heads
        features = [
            shared * self._prefix_blocks * head_width,
            own * self._suffix_blocks * head_width,
        ]
        slots = [shared * self._prefix_len, own * self._suffix_len]
        keys = torch.empty(sum(features), BLOCK, dtype=dtype)
        values = torch.empty(sum(slots), head_width, dtype=dtype)
        old_keys, new_keys = keys.split(features)
        old_values, new_values = values.split(slots)
        in_blocks = pad(prefix.keys, (0, 0, self._gap, 0))
        old_keys.copy_(rearrange(in_blocks, "c a (k l) f -> (c a k f) l", l=BLOCK))
        old_values.copy_(rearrange(prefix.values, "c a p f -> (c a p) f"))
        return BagMemory(
            keys=keys,
            values=values,
            new_keys=new_keys.view(*self._bags, self._suffix_blocks, head_width, BLOCK),
            new_values=new_values.view(*self._bags, self._suffix_len, head_width),
        )

    @property
    def prefix_len(self) -> int:
        """Slots of the prefix (p); the first suffix entry is the slot after them."""
        return self._prefix_len

    def seen(self, slot: int) -> InBags:
        """What the query at input `slot` sees: all slots up to its own."""
        index = slot - self._prefix_len
        slots, blocks = slot + 1, self._prefix_blocks + index // BLOCK + 1
        if self._read is None or self._read[0] != blocks:  # seldom, as they are many
            key_rows = self._key_rows[:, :blocks].reshape(-1)
            self._read = blocks, key_rows, _starts(key_rows, self._key_rows.shape[-1])
        _, key_rows, key_bags = self._read
        value_rows = self._value_rows[:, :slots].reshape(-1)
        return InBags(
            suffix_index=index,
            key_blocks=blocks,
            key_rows=key_rows,
            key_bags=key_bags,
            scored=slice(self._gap, self._gap + slots),
            value_rows=value_rows,
            value_bags=_starts(value_rows, slots),
        )


def _starts(rows: Tensor, length: int) -> Tensor:
    """Where each bag of `length` rows begins."""
    return torch.arange(0, len(rows), length, dtype=rows.dtype)


def _sums(table: Tensor, rows: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Sums of rows of a table, each times its weight; shape (bags, row length)."""
    return embedding_bag(rows, table, bags, mode="sum", per_sample_weights=weights.view(-1))
