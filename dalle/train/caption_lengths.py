"""How long captions are in tokens, which decides how much of them a model reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from dalle.captions import CaptionTokenizer

log = logging.getLogger(__name__)

LOOKED_AT = 2000
"""Captions of a set that are measured, spread over it."""


def some_of(count: int) -> Sequence[int]:
    """Indices spread evenly over `count` captions."""
    places = np.linspace(0, count - 1, min(count, LOOKED_AT), dtype=np.int64)
    return [int(place) for place in places]


def caption_lengths(captions: Sequence[str], tokenizer: CaptionTokenizer) -> list[int]:
    """Tokens of each caption, the shortest first."""
    return sorted(len(tokenizer.encode(caption)) for caption in captions)


def tell_of_cut_captions(
    captions: Sequence[str], tokenizer: CaptionTokenizer, *, room: int, setting: str
) -> None:
    """Warn if some of `captions` have more than `room` tokens, which `setting` decides."""
    lengths = caption_lengths(captions, tokenizer)
    cut = sum(length > room for length in lengths)
    if cut:
        log.warning(
            "%d of the %d captions that were looked at have over %d tokens (the longest %d), and "
            "what is beyond is not learnt; raise %s, or give captions a vocabulary of their own",
            cut, len(lengths), room, lengths[-1], setting,
        )  # fmt: skip
