"""Keys and values as rows of tables, against products with the same keys and values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dalle.bag_cache import BLOCK, BagCache, sums_rows_fast
from dalle.kv_cache import KeyValues, KVCache
from dalle.linear_layers import in_dtype
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.transformer import JointTransformer

CAPTIONS, CANDIDATES, HEADS, HEAD_WIDTH = 2, 3, 4, 5
SUFFIX_LEN = 2 * BLOCK + 3


def random_pair(generator: torch.Generator, *shape: int) -> KeyValues:
    return KeyValues(*torch.randn(2, *shape, generator=generator))


def in_turn(
    prefix_len: int, dtype: torch.dtype, *, room: float = 0.0
) -> tuple[list[Tensor], list[Tensor]]:
    """What all steps of one layer give in bags, and multiplied in float64."""
    generator = torch.Generator().manual_seed(prefix_len)
    prefix = random_pair(generator, CAPTIONS, HEADS, prefix_len, HEAD_WIDTH)
    bags = BagCache([prefix], candidates=CANDIDATES, suffix_len=SUFFIX_LEN, dtype=dtype)
    for tensor in (bags.layers[0].new_keys, bags.layers[0].new_values):
        tensor.fill_(room)
    wide = KeyValues(*(one.double() for one in prefix))
    plain = KVCache([wide], candidates=CANDIDATES, suffix_len=SUFFIX_LEN)
    found, expected = [], []
    for slot in range(prefix_len, prefix_len + SUFFIX_LEN):
        shape = CAPTIONS, CANDIDATES, HEADS, HEAD_WIDTH
        queries, added = torch.randn(shape, generator=generator), random_pair(generator, *shape)
        found.append(bags.layers[0].attend(queries, added, bags.seen(slot)))
        added = KeyValues(*(one.double() for one in added))
        seen = plain.visible(slot, None)
        expected.append(plain.layers[0].attend(queries.double(), added, seen))
    return found, expected


@pytest.mark.parametrize("prefix_len", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_sums_of_rows_equal_products(prefix_len: int) -> None:
    for found, expected in zip(*in_turn(prefix_len, torch.float32), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_what_is_kept_as_float16_is_eleven_bits_fine() -> None:
    for found, expected in zip(*in_turn(7, torch.float16), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_lies_in_room_that_is_not_yet_filled_never_shows(dtype: torch.dtype) -> None:
    found, _ = in_turn(3, dtype, room=torch.nan)
    assert all(one.isfinite().all() for one in found)


def test_the_prefix_is_held_once_per_caption() -> None:
    generator = torch.Generator().manual_seed(0)
    prefix = random_pair(generator, CAPTIONS, HEADS, BLOCK + 1, HEAD_WIDTH)
    for candidates in (1, 50):
        cache = BagCache([prefix], candidates=candidates, suffix_len=5, dtype=torch.float32)
        (layer,) = cache.layers
        blocks = CAPTIONS * HEADS * (2 + candidates)
        assert layer.keys.shape == (blocks * HEAD_WIDTH, BLOCK)
        slots = CAPTIONS * HEADS * (BLOCK + 1 + 5 * candidates)
        assert layer.values.shape == (slots, HEAD_WIDTH)


def test_a_picture_s_sums_do_not_depend_on_the_others() -> None:
    """Each bag is summed by itself, in the order of its rows."""
    generator = torch.Generator().manual_seed(0)
    prefix = random_pair(generator, CAPTIONS, HEADS, 9, HEAD_WIDTH)
    queries, added = (
        torch.randn(CAPTIONS, CANDIDATES, HEADS, HEAD_WIDTH, generator=generator),
        random_pair(generator, CAPTIONS, CANDIDATES, HEADS, HEAD_WIDTH),
    )

    def attended(captions: slice, candidates: slice) -> Tensor:
        given = KeyValues(*(one[captions] for one in prefix))
        cache = BagCache(
            [given],
            candidates=len(range(CANDIDATES)[candidates]),
            suffix_len=2,
            dtype=torch.float32,
        )
        new = KeyValues(*(one[captions, candidates] for one in added))
        return cache.layers[0].attend(queries[captions, candidates], new, cache.seen(9))

    together = attended(slice(None), slice(None))
    alone = attended(slice(1, 2), slice(2, 3))
    assert torch.equal(alone[0, 0], together[1, 2])


@pytest.mark.skipif(not sums_rows_fast(), reason="this torch has no FBGEMM, so no bags are taken")
@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("fp32", torch.float32), ("bf16", torch.float16), ("int8", torch.float16)],
)
@torch.inference_mode()
def test_narrow_weights_come_with_narrow_keys_and_values(dtype: str, kept: torch.dtype) -> None:
    sequence = SequenceConfig(text_len=3, text_vocab=7, grid_h=2, grid_w=2, image_vocab=11)
    transformer = JointTransformer(sequence, TransformerConfig(width=16, heads=2, layers=2))
    narrow = in_dtype(transformer, dtype)  # type: ignore[arg-type]
    _, cache = narrow.prefill(torch.zeros(1, 3, dtype=torch.int64), None, candidates=2)
    assert isinstance(cache, BagCache)
    assert {layer.keys.dtype for layer in cache.layers} == {kept}
    assert {layer.values.dtype for layer in cache.layers} == {kept}
