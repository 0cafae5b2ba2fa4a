"""Causal self-attention over the joint sequence: training, and decoding with a key-value cache.

Axis letters: c captions, g candidates of a caption, a heads, f head width; q query slots, p prefix
slots (caption and image prompt), s suffix slots (image tokens drawn since).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dalle.model_config import LayerMask, SequenceConfig
from dalle.sequence import SlotKind, SlotLayout, slot_layout


def causal_mask(kind: LayerMask, config: SequenceConfig, conv_kernel: int) -> Tensor:
    """Which input slots each slot may see, shape (n, n), bool; [i, j] is "slot i sees slot j".

    The paper states its masks over tokens. Here they hold between the tokens *in the input
    slots*: a slot always sees itself, and that is the newest token known when the next element is
    predicted (slot i holds element i - 1 and predicts element i). Text slots, start included, see
    every slot up to their own. Image slots see all of the text, and of the image tokens up to
    their own:

    * dense: all of them;
    * row: the last w + 1, itself counted, so the oldest stands right above it;
    * column: those in its own column;
    * conv: those inside a square of side `conv_kernel` centred on it. Beyond a side of the grid
      the square goes on at the other side, one row up or down, as raster order does.

    Args:
        kind: The pattern.
        config: Lengths of the sequence.
        conv_kernel: Side of the conv square, odd.

    Source: Ramesh et al., arXiv:2102.12092, figure 11.
    """
    layout = slot_layout(torch.arange(config.total_len), config)
    is_image = layout.kind == SlotKind.IMAGE  # n
    slots = torch.arange(config.total_len)
    steps_back = slots[:, None] - slots  # n n
    visible = _visible_image(kind, steps_back, layout, grid_w=config.grid_w, kernel=conv_kernel)
    both_image = is_image[:, None] & is_image
    return (steps_back >= 0) & (visible | ~both_image)


def _visible_image(
    kind: LayerMask, steps_back: Tensor, layout: SlotLayout, *, grid_w: int, kernel: int
) -> Tensor:
    """The pattern between image tokens, shape (n, n), causality aside."""
    match kind:
        case "dense":
            return torch.ones_like(steps_back, dtype=torch.bool)
        case "row":
            return steps_back <= grid_w
        case "column":
            return layout.column[:, None] == layout.column
        case "conv":
            reach = kernel // 2
            offsets = torch.arange(-reach, reach + 1)
            inside = offsets[:, None] * grid_w + offsets  # rows up, columns left
            return torch.isin(steps_back, inside)


class KeyValues(NamedTuple):
    """Keys and values of some slots, each of shape (b, a, s, f)."""

    keys: Tensor
    values: Tensor


_WRITTEN_OUT_SLOTS = 512
"""Longer sequences go to the fused kernel, which needs no memory that grows with their square."""


@dataclass(frozen=True, kw_only=True)
class Visible:
    """What the query of one decode step sees in the cache; the same for all layers of a kind.

    Attributes:
        suffix_index: Where the query's own keys and values are written in the suffix.
        hidden_prefix: Prefix slots that are hidden, shape (p), bool; None if all are visible.
        suffix: Suffix entries that are visible: a slice, or their indices, shape (s).
    """

    suffix_index: int
    hidden_prefix: Tensor | None
    suffix: slice | Tensor


class KVCache:
    """Keys and values of all layers while images are drawn, allocated once at their final size.

    The prefix (caption and image prompt) is held once per caption, whatever the number of
    candidates; only the suffix, the tokens drawn, is held per candidate.

    Attributes:
        prefix: Per layer, keys and values of shape (c, a, p, f).
        suffix: Per layer, keys and values of shape (c, a, g, s, f), filled as tokens are drawn.
    """

    def __init__(self, prefix: Sequence[KeyValues], *, candidates: int, suffix_len: int) -> None:
        """A cache that starts after `prefix`, given per layer."""
        self.prefix = tuple(prefix)
        self.suffix = tuple(
            KeyValues(
                _room_for(keys, candidates, suffix_len), _room_for(values, candidates, suffix_len)
            )
            for keys, values in prefix
        )

    @property
    def prefix_len(self) -> int:
        """Slots of the prefix (p); the first suffix entry is the slot after them."""
        return self.prefix[0].keys.shape[2]

    def visible(self, slot: int, mask: Tensor | None) -> Visible:
        """What the query at input `slot` sees under `mask`, shape (n, n), or under none."""
        index = slot - self.prefix_len
        if mask is None:
            return Visible(suffix_index=index, hidden_prefix=None, suffix=slice(0, index + 1))
        hidden = ~mask[slot, : self.prefix_len]
        seen = mask[slot, self.prefix_len : slot + 1].nonzero().squeeze(-1)
        return Visible(suffix_index=index, hidden_prefix=hidden, suffix=seen)


def _room_for(prefix: Tensor, candidates: int, suffix_len: int) -> Tensor:
    captions, heads, _, head_width = prefix.shape
    return prefix.new_empty(captions, heads, candidates, suffix_len, head_width)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of a whole sequence, shapes (b, a, s, f); `mask` (s, s) or None for causal.

    On a CPU short sequences are faster with the products written out: for 32 x 4 heads of 288
    slots, forward and backward in bf16 took 73 ms instead of the fused kernel's 126 ms.
    """
    slots = queries.shape[2]
    if queries.device.type != "cpu" or slots > _WRITTEN_OUT_SLOTS:
        return scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None
        )
    seen = mask if mask is not None else torch.ones(slots, slots, dtype=torch.bool).tril()
    bias = torch.zeros(slots, slots, dtype=queries.dtype).masked_fill(~seen, -torch.inf)
    rows = queries.shape[0] * queries.shape[1]
    weights = torch.baddbmm(
        bias.expand(rows, -1, -1),
        rearrange(queries, "b a s f -> (b a) s f"),
        rearrange(keys, "b a s f -> (b a) f s"),
        alpha=queries.shape[-1] ** -0.5,
    ).softmax(dim=-1)
    mixed = weights.to(values.dtype) @ rearrange(values, "b a s f -> (b a) s f")
    return rearrange(mixed, "(b a) s f -> b a s f", a=queries.shape[1])


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which no slot sees a later one."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool) -> None:
        """Attention of `heads` heads over states of `width`.

        Args:
            width: Model width, divisible by `heads`.
            heads: Attention heads.
            qk_norm: Normalise queries and keys (RMS with learned gains) before their product.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        head_width = width // heads
        self.query_norm = nn.RMSNorm(head_width) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_width) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, KeyValues]:
        """Attention of a whole sequence at once, as in training and prefill.

        Args:
            x: States, shape (b, s, d).
            mask: Which slots each slot sees, shape (s, s), bool; None is all up to its own.

        Returns:
            New states, shape (b, s, d), and the keys and values they came from.
        """
        queries, keys, values = rearrange(
            self.qkv(x), "b s (three a f) -> three b a s f", three=3, a=self.heads
        )
        queries, keys = self._normalise(queries, keys, values.dtype)
        mixed = _attend(queries, keys, values, mask)  # b a s f
        return self.out(rearrange(mixed, "b a s f -> b s (a f)")), KeyValues(keys, values)

    def decode(self, x: Tensor, prefix: KeyValues, suffix: KeyValues, visible: Visible) -> Tensor:
        """Attention of one new token per candidate, whose keys and values join the suffix.

        The products are written out because the fused kernel is slow for a single query on a
        CPU, and because the candidates of a caption share its prefix without a copy.

        Args:
            x: States of the new tokens, shape (c, g, d).
            prefix: This layer's prefix, shapes (c, a, p, f).
            suffix: This layer's suffix, shapes (c, a, g, s, f); one entry is written.
            visible: What the new tokens see.

        Returns:
            New states, shape (c, g, d).
        """
        captions, candidates, width = x.shape
        qkv = self.qkv(x).view(captions, candidates, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # each c a g f
        queries, keys = self._normalise(queries, keys, values.dtype)
        suffix.keys[:, :, :, visible.suffix_index] = keys
        suffix.values[:, :, :, visible.suffix_index] = values
        seen_keys = suffix.keys[:, :, :, visible.suffix]  # c a g s f
        seen_values = suffix.values[:, :, :, visible.suffix]

        queries = queries * queries.shape[-1] ** -0.5
        to_prefix = queries @ prefix.keys.mT  # c a g p
        if visible.hidden_prefix is not None:
            to_prefix = to_prefix.masked_fill(visible.hidden_prefix, -torch.inf)
        to_suffix = (queries[:, :, :, None] @ seen_keys.mT).squeeze(3)  # c a g s
        weights = torch.cat([to_prefix, to_suffix], dim=-1).softmax(-1, dtype=torch.float32)
        weights = weights.to(values.dtype)  # c a g p+s
        prefix_len = to_prefix.shape[-1]
        mixed = weights[..., :prefix_len] @ prefix.values  # c a g f
        mixed = mixed + (weights[..., None, prefix_len:] @ seen_values).squeeze(3)
        states: Tensor = self.out(mixed.permute(0, 2, 1, 3).reshape(captions, candidates, width))
        return states

    def _normalise(
        self, queries: Tensor, keys: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys after QK-norm, if any, in the dtype of the values."""
        return self.query_norm(queries).to(dtype), self.key_norm(keys).to(dtype)
