"""Reconstruction quality, gathered in batches, against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vae import DiscreteVAE, VaeConfig
from vae.fidelity import Fidelity, rebuild


def flat(*levels: int) -> np.ndarray:
    """Pictures of one grey level each, shape (b, 4, 4, 3)."""
    return np.stack([np.full((4, 4, 3), level, dtype=np.uint8) for level in levels])


def test_each_picture_has_its_own_ratio() -> None:
    """The mean of all pictures' errors was once turned into one ratio, which the worst decides."""
    fidelity = Fidelity(8)
    fidelity.add(flat(100, 100), flat(100, 151), torch.tensor([[[0, 1]], [[1, 1]]]))
    fidelity.add(flat(0), flat(255), torch.tensor([[[5, 1]]]))
    # A perfect copy counts as 100 dB; off by a fifth of the range, 20 log10(5); by all of it, 0.
    assert fidelity.psnr_db == pytest.approx((100 + 20 * math.log10(5) + 0) / 3)
    assert fidelity.pictures == 3
    assert fidelity.codebook.usage == 3 / 8
    shares = np.array([1, 4, 1]) / 6
    assert fidelity.codebook.perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_nothing_has_no_fidelity() -> None:
    assert Fidelity(8).pictures == 0
    with pytest.raises(ValueError, match="at least one token"):
        _ = Fidelity(8).codebook


def test_rebuilding_is_encoding_and_decoding() -> None:
    torch.manual_seed(0)
    vae = DiscreteVAE(VaeConfig(channels=8, groups=2, blocks_per_group=1, codebook_size=8))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    rebuilt, tokens = rebuild(vae, images)
    assert rebuilt.shape == images.shape
    assert rebuilt.dtype == np.uint8
    assert tokens.shape == (2, 4, 4)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.equal(tokens, vae.encode(pixels))
    with torch.no_grad():
        decoded = (vae.decode(tokens).permute(0, 2, 3, 1).numpy() + 1) * 127.5
    assert np.abs(rebuilt - decoded).max() <= 0.5 + 1e-3
