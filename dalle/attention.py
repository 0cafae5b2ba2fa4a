"""Causal self-attention over the joint sequence: training, and decoding with a key-value cache.

Axis letters: c captions, g candidates of a caption, a heads, f head width; q query slots, p prefix
slots (caption and image prompt), s suffix slots (image tokens drawn since).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dalle.kv_cache import KeyValues, Memory, Seen
from dalle.model_config import LayerMask, SequenceConfig
from dalle.sequence import SlotKind, SlotLayout, slot_layout
from dalle.sparse_attention import Pieces, attend_in_pieces


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


WRITTEN_OUT_SLOTS = 512
"""Longer sequences go to the fused kernel, which needs no memory that grows with their square."""
QUERIES_AT_ONCE = 96
"""Queries whose scores are one product: fewer waste less of it, more keep it large."""


class _WrittenOut(torch.autograd.Function):
    """Causal attention with its products written out, and a backward pass written for it.

    Left to itself, autograd would put the three gradients together from parts, multiply by the
    scale on its own and keep the scores beside the weights: a quarter more time for a pair of
    passes. Some queries at a time look at the slots up to the last of them alone; with all at once,
    half of the work is for slots that are hidden, and a pair of passes takes a seventh longer.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, hidden: Tensor) -> Tensor:
        """Mixed values, shape (b, s, a * f).

        Args:
            ctx: Holds what the backward pass needs.
            qkv: Queries, keys and values, shape (3, b, a, s, f).
            hidden: What is added to the scores, shape (s, s): 0, or -inf where a slot is hidden, as
                every later one must be.
        """
        queries, keys, values = rearrange(qkv, "three b a s f -> three (b a) s f")
        mixed = torch.empty_like(queries)
        kept = []
        for rows in _query_blocks(queries.shape[1]):
            weights = torch.baddbmm(
                hidden[rows, : rows.stop].expand(len(queries), -1, -1),
                queries[:, rows],
                keys[:, : rows.stop].mT,
                alpha=queries.shape[-1] ** -0.5,
            )
            # In place, as the gradient below: a second table costs more than the exponents.
            torch.softmax(weights, dim=-1, out=weights)
            mixed[:, rows] = weights @ values[:, : rows.stop]
            kept.append(weights)
        ctx.heads = qkv.shape[2]
        ctx.save_for_backward(queries, keys, values, *kept)
        return rearrange(mixed, "(b a) s f -> b s (a f)", a=ctx.heads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient of queries, keys and values, shape (3, b, a, s, f)."""
        queries, keys, values, *kept = ctx.saved_tensors
        head_width = queries.shape[-1]
        grad = rearrange(grad, "b s (a f) -> (b a) s f", f=head_width)
        of_qkv = torch.empty(3, *queries.shape, dtype=queries.dtype)
        of_queries, of_keys, of_values = of_qkv
        blocks = zip(_query_blocks(queries.shape[1]), kept, strict=True)
        # The last queries first: they see all slots, whose gradients the others add to.
        for number, (rows, weights) in enumerate(reversed(list(blocks))):
            seen = slice(0, rows.stop)
            # The scale stands here, where the product applies it at no cost, once for both.
            of_scores = torch.baddbmm(
                weights.new_empty(1, 1, 1),
                grad[:, rows],
                values[:, seen].mT,
                beta=0,
                alpha=head_width**-0.5,
            )
            torch._softmax_backward_data(
                of_scores, weights, -1, weights.dtype, grad_input=of_scores
            )
            of_queries[:, rows] = of_scores @ keys[:, seen]
            of_keys[:, seen].baddbmm_(of_scores.mT, queries[:, rows], beta=min(number, 1))
            of_values[:, seen].baddbmm_(weights.mT, grad[:, rows], beta=min(number, 1))
        return rearrange(of_qkv, "three (b a) s f -> three b a s f", a=ctx.heads), None


def _query_blocks(slots: int) -> list[slice]:
    return [
        slice(start, min(start + QUERIES_AT_ONCE, slots))
        for start in range(0, slots, QUERIES_AT_ONCE)
    ]


def _attend(qkv: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of a whole sequence, shape (b, s, a * f); `mask` (s, s) or None for causal.

    On a CPU short sequences are faster with the products written out: for 32 x 4 heads of 288
    slots, forward and backward in bf16 took 73 ms instead of the fused kernel's 126 ms, before
    the backward pass was written out too.

    Args:
        qkv: Queries, keys and values, shape (3, b, a, s, f).
        mask: Which slots each slot sees, bool.
    """
    slots = qkv.shape[3]
    if qkv.device.type != "cpu" or slots > WRITTEN_OUT_SLOTS:
        queries, keys, values = qkv
        mixed = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None
        )
        return rearrange(mixed, "b a s f -> b s (a f)")
    seen = mask if mask is not None else torch.ones(slots, slots, dtype=torch.bool).tril()
    hidden = torch.zeros(slots, slots, dtype=qkv.dtype).masked_fill(~seen, -torch.inf)
    return cast(Tensor, _WrittenOut.apply(qkv, hidden))


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
        self.qk_norm = qk_norm
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        head_width = width // heads
        self.query_norm = nn.RMSNorm(head_width) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_width) if qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, mask: Tensor | None, pieces: Pieces | None = None
    ) -> tuple[Tensor, KeyValues]:
        """Attention of a whole sequence at once, as in training and prefill.

        Args:
            x: States, shape (b, s, d).
            mask: Which slots each slot sees, shape (s, s), bool; None is all up to its own.
            pieces: The same as `mask`, where it is to be computed in pieces.

        Returns:
            New states, shape (b, s, d), and the keys and values they came from.
        """
        qkv = rearrange(self.qkv(x), "b s (three a f) -> three b a s f", three=3, a=self.heads)
        if self.qk_norm:
            queries, keys = self._normalise(qkv[0], qkv[1], qkv.dtype)
            qkv = torch.stack([queries, keys, qkv[2]])
        mixed = _attend(qkv, mask) if pieces is None else attend_in_pieces(qkv, pieces)
        return self.out(mixed), KeyValues(qkv[1], qkv[2])

    def decode(self, x: Tensor, memory: Memory[Seen], seen: Seen) -> Tensor:
        """Attention of one new token per candidate, whose keys and values join the suffix.

        Args:
            x: States of the new tokens, shape (c, g, d).
            memory: What this layer remembers; one entry of its suffix is written.
            seen: What the new tokens see.

        Returns:
            New states, shape (c, g, d).
        """
        captions, candidates, width = x.shape
        qkv = self.qkv(x).view(captions, candidates, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.unbind(2)  # each c g a f
        queries, keys = self._normalise(queries, keys, values.dtype)
        mixed = memory.attend(queries, KeyValues(keys, values), seen)  # c g a f
        states: Tensor = self.out(mixed.reshape(x.shape))
        return states

    def _normalise(
        self, queries: Tensor, keys: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys after QK-norm, if any, in the dtype of the values."""
        if not self.qk_norm:
            return queries, keys
        return self.query_norm(queries).to(dtype), self.key_norm(keys).to(dtype)
