"""VQGAN's encoder and decoder, where imported weights (tests/integration) do not tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vae import DiscreteVAE, VaeConfig

CONFIG = VaeConfig(
    family="vqgan", channels=32, groups=2, blocks_per_group=1, codebook_size=16, codebook_dim=4,
    quantizer="nearest", likelihood="l1",
)  # fmt: skip


@pytest.fixture(scope="module")
def vae() -> DiscreteVAE:
    torch.manual_seed(0)
    return DiscreteVAE(CONFIG)


@torch.no_grad()
def test_any_size_that_the_stride_divides(vae: DiscreteVAE) -> None:
    tokens = vae.encode(torch.rand(2, 3, 10, 6) * 2 - 1)
    assert tokens.shape == (2, 5, 3)
    assert vae.decode(tokens).shape == (2, 3, 10, 6)
    with pytest.raises(ValueError, match=r"must be divisible by the stride \(2\), got 9 x 6"):
        vae.encode(torch.zeros(1, 3, 9, 6))


@torch.no_grad()
def test_every_cell_sees_every_pixel(vae: DiscreteVAE) -> None:
    """Attention does: convolutions alone reach a few cells."""
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    other = pixels.clone()
    other[..., 0, 0] = -other[..., 0, 0].sign()
    difference = (vae.encoder(pixels) - vae.encoder(other)).abs().amax(dim=1)  # b h w
    assert (difference > 0).float().mean() > 0.9


@pytest.mark.parametrize("quantizer", ["nearest", "gumbel"])
def test_every_weight_is_trained(quantizer: Any) -> None:
    torch.manual_seed(1)
    vae = DiscreteVAE(replace(CONFIG, quantizer=quantizer))
    out = vae(torch.rand(2, 3, 8, 8) * 2 - 1, tau=1.0)
    out.output.square().sum().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        # All keys moved alike change no attention.
        assert parameter.grad.abs().sum() > 0 or name.endswith(".k.bias"), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multiples": (1, 2, 4)}, r"multiples must be 2 numbers \(groups\), each at least 1, got"),
        ({"multiples": (1, 0)}, "multiples must be 2 numbers"),
        ({"channels": 48}, r"channels must be divisible by 32 \(group norms\), got 48"),
        ({"squeezed_input": True}, "squeezed_input belongs to family dalle"),
        ({"patch_px": 2}, "patch_px belongs to family dalle"),
        ({"family": "dalle", "multiples": (1, 3)}, "multiples are read by family vqgan only"),
    ],
)
def test_shapes_that_no_model_has_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


def test_two_ways_to_say_one_shape_are_equal() -> None:
    assert replace(CONFIG, multiples=(1, 2)) == CONFIG


def test_groups_are_as_wide_as_asked_for() -> None:
    wide = DiscreteVAE(replace(CONFIG, multiples=(1, 3)))
    assert wide.encoder.layers[-3].num_channels == 96
