"""Attention in pieces against the same mask over all slots at once."""

from __future__ import annotations

import pytest
import torch

from dalle import transformer as module
from dalle.attention import _attend, causal_mask
from dalle.model_config import LayerMask, SequenceConfig, TransformerConfig
from dalle.sparse_attention import attend_in_pieces, pieces_of
from dalle.transformer import JointTransformer

KINDS: list[LayerMask] = ["row", "column", "conv"]


def layout(grid: tuple[int, int]) -> SequenceConfig:
    return SequenceConfig(text_len=3, text_vocab=5, grid_h=grid[0], grid_w=grid[1], image_vocab=7)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (6, 2), (1, 4), (5, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_and_their_gradient_equal_the_mask(kind: LayerMask, grid: tuple[int, int]) -> None:
    config = layout(grid)
    mask = causal_mask(kind, config, 3)
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, 2, config.total_len, 4)
    ours = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    found, expected = attend_in_pieces(ours, pieces_of(mask, config)), _attend(theirs, mask)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((found * weights).sum(), ours)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), theirs)
    torch.testing.assert_close(gradient, wanted)


def test_rows_read_two_rows_and_columns_their_own() -> None:
    """At 32 x 32 tokens: the text and 64 or 32 slots instead of up to 1,027."""
    config = layout((32, 32))
    for kind, keys in (("row", 4 + 64), ("column", 4 + 32), ("conv", 4 + 5 * 32 + 37)):
        pieces = pieces_of(causal_mask(kind, config, 11), config)  # type: ignore[arg-type]
        assert pieces.seen.shape[:2] == (32, 32)
        assert pieces.seen.shape[2] <= keys + 1


def test_long_masked_sequences_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """And come out as short ones do, which are written out."""
    config = TransformerConfig(width=16, layers=4, heads=2, attention="paper", conv_kernel=3)
    torch.manual_seed(0)
    model = JointTransformer(layout((4, 4)), config)
    text_ids, tokens = torch.tensor([[1, 2, 0]]), torch.arange(16)[None] % 7
    expected = model(text_ids, tokens)
    assert not model._pieces
    monkeypatch.setattr(module, "WRITTEN_OUT_SLOTS", 8)
    found = model(text_ids, tokens)
    assert set(model._pieces) == set(config.layer_masks())
    torch.testing.assert_close(found.image, expected.image)
    torch.testing.assert_close(found.text, expected.text)
    text, image = model.prefill(text_ids, tokens[:, :14], candidates=1)
    assert text.isfinite().all()
    del image  # a prefix, shorter than the mask, is no case for pieces
