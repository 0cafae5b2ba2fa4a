"""Attention under a mask that hides most slots: in pieces, each with the slots that it sees.

A piece is a row or a column of the grid. All are brought to one size, so that they are one call.

Axis letters: b batch, a heads, s slots, f head width; p pieces, q queries of a piece, k keys of a
piece; t text slots, start included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from dalle.model_config import SequenceConfig
from dalle.sequence import image_slot


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Which slots meet under a mask.

    Attributes:
        text_slots: Slots before the first image token (t); they see each other causally.
        queries: Image slots of each piece, shape (p, q), int64; the last may stand there again.
        keys: Slots that a piece sees, shape (p, k), int64; slot 0 fills them up.
        seen: Whether a query sees a key, shape (p, q, k), bool.
        places: Where in (p q) each image slot stands, shape (s - t), int64.
    """

    text_slots: int
    queries: Tensor
    keys: Tensor
    seen: Tensor
    places: Tensor


def pieces_of(mask: Tensor, config: SequenceConfig) -> Pieces:
    """The rows, or else the columns, of the grid with what they see: whichever is less.

    Args:
        mask: Which slots each slot sees, shape (s, s), bool.
        config: Lengths of the sequence.
    """
    first, width = image_slot(0, config), config.grid_w
    slots = torch.arange(first, config.total_len)
    by_row = list(slots.split(width))
    # The last token of an image is never an input: a column of one row may have no slot.
    by_column = [slots[column::width] for column in range(min(width, len(slots)))]
    return min(
        (_pieces(mask, groups, first) for groups in (by_row, by_column)),
        key=lambda found: found.seen.numel(),
    )


def _pieces(mask: Tensor, groups: list[Tensor], first: int) -> Pieces:
    longest = max(map(len, groups))
    # A last row or column that lacks a slot, the last token's, repeats the one before.
    queries = torch.stack(
        [torch.cat([group, group[-1:].expand(longest - len(group))]) for group in groups]
    )  # p q
    seen_slots = [mask[group].any(dim=0).nonzero().squeeze(-1) for group in groups]
    keys = pad_sequence(seen_slots, batch_first=True)  # p k
    counts = torch.tensor([len(slots) for slots in seen_slots])
    there = torch.arange(keys.shape[1]) < counts[:, None]  # p k
    seen = mask[queries[:, :, None], keys[:, None, :]] & there[:, None, :]  # p q k
    places = torch.empty(len(mask) - first, dtype=torch.int64)
    places[queries.flatten() - first] = torch.arange(queries.numel())
    return Pieces(text_slots=first, queries=queries, keys=keys, seen=seen, places=places)


def attend_in_pieces(qkv: Tensor, pieces: Pieces) -> Tensor:
    """Attention of a whole sequence, shape (b, s, a * f).

    Args:
        qkv: Queries, keys and values, shape (3, b, a, s, f).
        pieces: Which slots meet.
    """
    heads = qkv.shape[2]
    text_queries, text_keys, text_values = qkv[:, :, :, : pieces.text_slots]
    of_text = scaled_dot_product_attention(
        text_queries, text_keys, text_values, is_causal=True
    )  # b a t f
    count, length = pieces.queries.shape
    queries = qkv[0, :, :, pieces.queries.flatten()]  # b a pq f
    memory = qkv[1:, :, :, pieces.keys.flatten()]  # 2 b a pk f
    queries = rearrange(queries, "b a (p q) f -> b (a p) q f", p=count)
    keys, values = rearrange(memory, "two b a (p k) f -> two b (a p) k f", p=count)
    seen = repeat(pieces.seen, "p q k -> (a p) q k", a=heads)
    mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
    mixed = rearrange(mixed, "b (a p) q f -> b a (p q) f", a=heads, q=length)
    whole = torch.cat([of_text, mixed[:, :, pieces.places]], dim=2)  # b a s f
    return rearrange(whole, "b a s f -> b s (a f)")
