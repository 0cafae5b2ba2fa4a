"""What decoding remembers of a sequence: keys and values of all layers, and attention to them.

Axis letters: c captions, g candidates of a caption, a heads, f head width; p prefix slots (caption
and image prompt), s suffix slots (image tokens drawn since).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

Seen = TypeVar("Seen", contravariant=True)


class KeyValues(NamedTuple):
    """Keys and values of some slots, each of shape (b, a, s, f)."""

    keys: Tensor
    values: Tensor


class Memory(Protocol[Seen]):
    """What one layer remembers; `Seen` is the form in which it is told what its queries see."""

    def attend(self, queries: Tensor, added: KeyValues, seen: Seen) -> Tensor:
        """Attention of one new token per candidate, whose keys and values join the suffix.

        Args:
            queries: Shape (c, g, a, f).
            added: Keys and values of the new tokens, each of the shape of `queries`.
            seen: What the new tokens see, themselves included.

        Returns:
            Mixed values, of the shape of `queries`.
        """


@dataclass(frozen=True, kw_only=True)
class Visible:
    """What the query of one decode step sees in the cache; the same for all layers of a kind.

    Attributes:
        suffix_index: Where the query's own keys and values are written in the suffix; a tensor of
            shape (1), int64, where one recorded step serves many positions.
        suffix: Suffix entries that are read: a slice, which needs no copy, or their indices,
            shape (s).
        hidden: Which of the slots that are read are hidden after all, bool: shape (p) for the
            prefix alone, or (p + s). None if all are visible.
    """

    suffix_index: int | Tensor
    suffix: slice | Tensor
    hidden: Tensor | None


class LayerMemory(NamedTuple):
    """One layer of a `KVCache` in the shapes that its steps work on; views, so nothing is copied.

    Attributes:
        prefix: Keys and values of shape (c * a, p, f).
        suffix: The same memory in two shapes: for what is added, (c, a, g, s, f),
        rows: and for what is read, (c * a * g, s, f).
    """

    prefix: KeyValues
    suffix: KeyValues
    rows: KeyValues

    def attend(self, queries: Tensor, added: KeyValues, seen: Visible) -> Tensor:
        """See `Memory.attend`.

        The products are written out because the fused kernel is slow for a single query on a CPU,
        and because the candidates of a caption share its prefix without a copy. They are plain
        `bmm`s of ready-made views because a step is so small that every further call of torch
        counts.
        """
        self._add(added, seen.suffix_index)
        queries = queries.transpose(1, 2)  # c a g f
        _, _, candidates, head_width = queries.shape
        scaled = (queries * head_width**-0.5).contiguous()
        to_prefix = torch.bmm(scaled.view(-1, candidates, head_width), self.prefix.keys.mT)
        seen_keys = self.rows.keys[:, seen.suffix]  # cag s f
        # Keys times query would take two and a half times as long on AMD's processors (8 pictures
        # took a seventh longer), and three quarters as long on Intel's.
        to_suffix = torch.bmm(scaled.view(-1, 1, head_width), seen_keys.mT)  # cag 1 s
        lengths = [to_prefix.shape[-1], to_suffix.shape[-1]]  # p, s

        scores = torch.cat([to_prefix.view(-1, 1, lengths[0]), to_suffix], dim=-1)  # cag 1 p+s
        if seen.hidden is not None:
            scores[..., : len(seen.hidden)].masked_fill_(seen.hidden, -torch.inf)
        weights = scores.softmax(-1, dtype=torch.float32).to(queries.dtype)
        for_prefix, for_suffix = weights.split(lengths, dim=-1)
        mixed = torch.bmm(for_prefix.view(-1, candidates, lengths[0]), self.prefix.values)  # ca g f
        seen_values = self.rows.values[:, seen.suffix]
        mixed = torch.baddbmm(mixed.view(-1, 1, head_width), for_suffix, seen_values)  # cag 1 f
        return mixed.view(queries.shape).transpose(1, 2)

    def _add(self, added: KeyValues, index: int | Tensor) -> None:
        """Write keys and values of shape (c, g, a, f) to one entry of the suffix."""
        for held, new in zip(self.suffix, added, strict=True):
            entry = new.transpose(1, 2)  # c a g f
            if isinstance(index, Tensor):
                held.index_copy_(3, index, entry.unsqueeze(3))
            else:
                held.select(3, index).copy_(entry)


class KVCache:
    """Keys and values of all layers while images are drawn, allocated once at their final size.

    The prefix (caption and image prompt) is held once per caption, whatever the number of
    candidates; only the suffix, the tokens drawn, is held per candidate.

    Attributes:
        prefix: Per layer, keys and values of shape (c, a, p, f).
        suffix: Per layer, keys and values of shape (c, a, g, s, f), filled as tokens are drawn.
        layers: Both, per layer, as the steps take them.
    """

    def __init__(self, prefix: Sequence[KeyValues], *, candidates: int, suffix_len: int) -> None:
        """A cache that starts after `prefix`, given per layer."""
        # As it comes from a prefill, every product of every step would copy it first.
        self.prefix = tuple(KeyValues(*(one.contiguous() for one in pair)) for pair in prefix)
        self.suffix = tuple(
            KeyValues(
                _room_for(keys, candidates, suffix_len), _room_for(values, candidates, suffix_len)
            )
            for keys, values in prefix
        )
        self.layers = tuple(
            LayerMemory(
                prefix=KeyValues(*(one.flatten(0, 1) for one in old)),
                suffix=new,
                rows=KeyValues(*(one.flatten(0, 2) for one in new)),
            )
            for old, new in zip(self.prefix, self.suffix, strict=True)
        )

    @property
    def prefix_len(self) -> int:
        """Slots of the prefix (p); the first suffix entry is the slot after them."""
        return self.prefix[0].keys.shape[2]

    def visible(self, slot: int, mask: Tensor | None) -> Visible:
        """What the query at input `slot` sees under `mask`, shape (n, n), or under none."""
        index = slot - self.prefix_len
        if mask is None:
            return Visible(suffix_index=index, suffix=slice(0, index + 1), hidden=None)
        hidden = ~mask[slot, : self.prefix_len]
        seen = mask[slot, self.prefix_len : slot + 1].nonzero().squeeze(-1)
        return Visible(
            suffix_index=index,
            suffix=_slice_of(seen),
            hidden=hidden if hidden.any() else None,
        )


def _slice_of(entries: Tensor) -> slice | Tensor:
    """`entries`, shape (s), as a slice if they are evenly spaced, as rows and columns are."""
    listed = entries.tolist()
    step = listed[1] - listed[0] if len(listed) > 1 else 1
    even = slice(listed[0], listed[-1] + 1, step)
    return even if listed == list(range(even.start, even.stop, step)) else entries


def _room_for(prefix: Tensor, candidates: int, suffix_len: int) -> Tensor:
    captions, heads, _, head_width = prefix.shape
    return prefix.new_empty(captions, heads, candidates, suffix_len, head_width)
