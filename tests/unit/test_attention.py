"""Attention masks against a slow reading of the paper's definitions, and the cache's room."""

from __future__ import annotations

import itertools

import pytest
import torch
from einops import rearrange

from dalle.attention import (
    QUERIES_AT_ONCE,
    CausalSelfAttention,
    _attend,
    causal_mask,
)
from dalle.kv_cache import KeyValues, KVCache
from dalle.model_config import LayerMask, SequenceConfig

GRIDS = [(1, 1), (1, 5), (5, 1), (3, 4), (4, 4), (6, 3)]
KINDS: list[LayerMask] = ["dense", "row", "column", "conv"]


def layout(grid: tuple[int, int], text_len: int = 3) -> SequenceConfig:
    return SequenceConfig(
        text_len=text_len, text_vocab=5, grid_h=grid[0], grid_w=grid[1], image_vocab=4
    )


def cells_before(row: int, column: int, grid_w: int) -> list[tuple[int, int]]:
    """Grid cells in raster order up to and with (row, column), the newest last."""
    cells = [(y, x) for y in range(row + 1) for x in range(grid_w)]
    return cells[: cells.index((row, column)) + 1]


def visible_cells(
    kind: LayerMask, row: int, column: int, grid_w: int, kernel: int
) -> set[tuple[int, int]]:
    """Cells that the token at (row, column) attends to, read off the paper's figure 11."""
    past = cells_before(row, column, grid_w)
    if kind == "dense":
        return set(past)
    if kind == "row":  # "the previous 5 image tokens in raster order" for a row of 4
        return set(past[-(grid_w + 1) :])
    if kind == "column":
        return {(y, x) for y, x in past if x == column}
    reach = kernel // 2
    square = set()
    for up, left in itertools.product(range(-reach, reach + 1), repeat=2):
        y, x = row - up, column - left
        while x < 0:  # off the left side: on from the right side, a row up
            y, x = y - 1, x + grid_w
        while x >= grid_w:
            y, x = y + 1, x - grid_w
        square.add((y, x))
    return square & set(past)


@pytest.mark.parametrize("kernel", [1, 3, 5, 11])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", KINDS)
def test_mask_equals_the_papers_definition(
    kind: LayerMask, grid: tuple[int, int], kernel: int
) -> None:
    config = layout(grid)
    text_slots = 1 + config.text_len  # the start token, then the caption
    cells = [(y, x) for y in range(grid[0]) for x in range(grid[1])][:-1]  # the last is no input
    expected = torch.zeros(config.total_len, config.total_len, dtype=torch.bool)
    for query in range(text_slots):
        expected[query, : query + 1] = True
    for index, (row, column) in enumerate(cells):
        expected[text_slots + index, :text_slots] = True
        for cell in visible_cells(kind, row, column, grid[1], kernel):
            expected[text_slots + index, text_slots + cells.index(cell)] = True
    assert torch.equal(causal_mask(kind, config, kernel), expected)


def test_row_mask_of_the_papers_figure() -> None:
    """Figure 11: six text tokens, a 4x4 grid; each image token sees five image tokens."""
    mask = causal_mask("row", layout((4, 4), text_len=6), 3)
    newest = mask[7 + 9]  # the token at row 2, column 1
    assert newest[:7].all()
    assert newest[7:].nonzero().flatten().tolist() == [5, 6, 7, 8, 9]


def test_conv_mask_of_the_papers_figure() -> None:
    """Figure 11d: a 3x3 kernel on a 4x4 grid, wrapping around like the row mask."""
    mask = causal_mask("conv", layout((4, 4), text_len=6), 3)[7:, 7:]
    assert mask[9].nonzero().flatten().tolist() == [4, 5, 6, 8, 9], "row 2, column 1"
    assert mask[8].nonzero().flatten().tolist() == [3, 4, 5, 7, 8], "at the left side it wraps"


@pytest.mark.parametrize("kind", KINDS)
def test_no_slot_sees_a_later_one_and_each_sees_itself(kind: LayerMask) -> None:
    mask = causal_mask(kind, layout((3, 4)), 11)
    assert not mask.triu(1).any()
    assert mask.diagonal().all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_equals_the_textbook_formula(qk_norm: bool, masked: bool) -> None:
    torch.manual_seed(0)
    attention = CausalSelfAttention(8, 2, qk_norm=qk_norm).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    mask = torch.rand(5, 5).lt(0.5).tril() | torch.eye(5, dtype=torch.bool)
    q, k, v = rearrange(attention.qkv(x), "b s (three a f) -> three b a s f", three=3, a=2)
    if qk_norm:
        eps = torch.finfo(torch.float64).eps  # RMSNorm's default
        q, k = (y / (y.square().mean(-1, keepdim=True) + eps).sqrt() for y in (q, k))
    scores = q @ k.transpose(-1, -2) / 2  # the root of f = 4
    visible = mask if masked else torch.ones(5, 5, dtype=torch.bool).tril()
    weights = torch.exp(scores) * visible
    mixed = weights / weights.sum(-1, keepdim=True) @ v
    expected = attention.out(rearrange(mixed, "b a s f -> b s (a f)"))
    states, _ = attention(x, mask if masked else None)
    torch.testing.assert_close(states, expected, rtol=1e-10, atol=1e-12)


def test_cache_holds_the_prefix_once_and_the_suffix_per_candidate() -> None:
    prefix = [KeyValues(torch.zeros(2, 4, 7, 8), torch.zeros(2, 4, 7, 8))] * 3
    for candidates in (1, 64):
        cache = KVCache(prefix, candidates=candidates, suffix_len=5)
        assert cache.prefix_len == 7
        for layer in range(3):
            assert cache.prefix[layer].keys.shape == (2, 4, 7, 8)
            assert cache.suffix[layer].keys.shape == (2, 4, candidates, 5, 8)
            assert cache.suffix[layer].values.shape == (2, 4, candidates, 5, 8)


def test_cache_lies_in_the_order_of_its_shape_whatever_the_prefill_s() -> None:
    """Every product of every step copied the prefix of a prefill, whose heads lie side by side."""
    interleaved = torch.randn(2, 7, 4, 8).transpose(1, 2)  # c a p f
    cache = KVCache([KeyValues(interleaved, interleaved)], candidates=3, suffix_len=5)
    assert cache.prefix[0].keys.is_contiguous()
    assert torch.equal(cache.prefix[0].values, interleaved)
    cache.suffix[0].keys.zero_()[1, 2, 1, 4] = 1
    assert cache.layers[0].rows.keys[1 * 4 * 3 + 2 * 3 + 1, 4].eq(1).all(), "the same memory"


def test_row_and_column_are_read_without_a_copy() -> None:
    config = layout((4, 4))
    prefix = [KeyValues(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2))]
    cache = KVCache(prefix, candidates=1, suffix_len=15)
    slot = 4 + 9  # row 2, column 1
    expected = {"row": slice(5, 10, 1), "column": slice(1, 10, 4), "dense": slice(0, 10)}
    for kind, entries in expected.items():
        mask = None if kind == "dense" else causal_mask(kind, config, 3)  # type: ignore[arg-type]
        visible = cache.visible(slot, mask)
        assert (visible.suffix_index, visible.suffix) == (9, entries)
        assert visible.hidden is None, "a caption is seen by all"
    conv = cache.visible(slot, causal_mask("conv", config, 3)).suffix
    assert isinstance(conv, torch.Tensor)
    assert conv.tolist() == [4, 5, 6, 8, 9]


@pytest.mark.parametrize(
    "slots", [7, QUERIES_AT_ONCE, QUERIES_AT_ONCE + 1, 2 * QUERIES_AT_ONCE + 5]
)
def test_written_out_attention_and_its_gradient_equal_the_fused_kernel_s(slots: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(3, 2, 2, slots, 4, generator=generator, dtype=torch.float64).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    weights = torch.randn(2, slots, 8, generator=generator, dtype=torch.float64)
    chance = torch.rand(slots, slots, generator=generator)
    mask = (chance < 0.5).tril() | torch.eye(slots, dtype=torch.bool)
    for seen in (None, mask):
        mixed = _attend(ours, seen)
        queries, keys, values = theirs
        fused = torch.nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=seen, is_causal=seen is None
        )
        expected = fused.transpose(1, 2).flatten(2)
        torch.testing.assert_close(mixed, expected)
        (found,) = torch.autograd.grad((mixed * weights).sum(), ours)
        (wanted,) = torch.autograd.grad((expected * weights).sum(), theirs)
        torch.testing.assert_close(found, wanted)
