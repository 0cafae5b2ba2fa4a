"""The least time that work can take on a machine: its operations, its bytes, the machine's rates.

A floor is the *roofline*: step by step, the larger of the bytes that must be read over the memory's
bandwidth and the operations over the rate of large products in the same precision. Caches may
beat the first on small models, so a ratio under 1 is no mistake.

Axis letters: b rows, p slots before the first drawn token, m image tokens, d width, k vocabulary.
"""

from __future__ import annotations

from dalle.bench.machine import Rates
from dalle.config import WeightType
from dalle.flops import Shape, prefill_flops, training_flops

_WEIGHT_BYTES: dict[WeightType, int] = {"fp32": 4, "bf16": 2, "int8": 1}
_CACHE_BYTES: dict[WeightType, int] = {"fp32": 4, "bf16": 2, "int8": 2}


def decode_floor_s(
    shape: Shape, rates: Rates, dtype: WeightType, *, captions: int, candidates: int, guided: bool
) -> float:
    """Least seconds for all image tokens of `candidates` pictures of each of `captions`.

    Weights are read once a step; of the cache, each caption's prefix once and each picture's own
    tokens. Dense attention is counted even where masks would spare some of it. If `guided`, a null
    caption runs beside each caption, and rows of its own beside each picture's, as `sample_tokens`
    has it: only the weights are shared.
    """
    captions *= 2 if guided else 1
    batch = captions * candidates
    prefix = shape.sequence.text_len + 1
    weights = shape.block_weights + shape.image_head_weights
    total = prefill_flops(shape, captions) / rates.flops[dtype]
    for drawn in range(1, shape.sequence.image_len):
        slots = captions * prefix + batch * drawn
        read = weights * _WEIGHT_BYTES[dtype]
        read += slots * shape.numbers_per_slot * _CACHE_BYTES[dtype]
        attention = 2 * shape.numbers_per_slot * batch * (prefix + drawn)
        flops = 2 * batch * weights + attention
        total += max(read / rates.bytes_per_s, flops / rates.flops[dtype])
    return total


def training_floor_s(shape: Shape, rates: Rates, dtype: WeightType, *, batch: int) -> float:
    """Least seconds for a training step."""
    return training_flops(shape, batch) / rates.flops[dtype]
