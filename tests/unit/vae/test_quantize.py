"""Both quantisers behind one interface; noise, codebook and gradients against other methods."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from vae.quantize import (
    GumbelQuantizer,
    NearestQuantizer,
    build_quantizer,
    codebook_health,
    gumbel_like,
)

KINDS: tuple[Literal["gumbel", "nearest"], ...] = ("gumbel", "nearest")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(1))


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


# ----------------------------------------------------------------------------- the shared interface


@pytest.mark.parametrize("kind", KINDS)
def test_codes_tokens_and_tables_have_the_same_shapes_in_both(
    kind: Literal["gumbel", "nearest"],
) -> None:
    quantizer = build_quantizer(kind, channels=6, codebook_size=10, codebook_dim=4)
    quantized = quantizer(features(2, 6, 3, 5), tau=1.0, generator=seeded())
    assert quantized.codes.shape == (2, 4, 3, 5)
    assert quantized.tokens.shape == (2, 3, 5)
    assert quantized.tokens.dtype == torch.int64
    assert quantized.kl.shape == quantized.commitment.shape == ()
    assert torch.equal(quantized.tokens, quantizer.tokens(features(2, 6, 3, 5)))
    embedded = quantizer.embed(quantized.tokens)
    assert embedded.shape == (2, 4, 3, 5)
    assert torch.equal(embedded[1, :, 2, 4], quantizer.codebook[quantized.tokens[1, 2, 4]])


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_take_no_noise_from_anywhere(kind: Literal["gumbel", "nearest"]) -> None:
    quantizer = build_quantizer(kind, channels=6, codebook_size=10, codebook_dim=4)
    before = torch.random.get_rng_state()
    first = quantizer.tokens(features(2, 6, 4, 4))
    assert torch.equal(first, quantizer.tokens(features(2, 6, 4, 4)))
    assert torch.equal(torch.random.get_rng_state(), before)


# --------------------------------------------------------------------------------- Gumbel-softmax


def test_gumbel_noise_has_the_distribution_of_its_name() -> None:
    """Mean Euler's constant, variance pi^2 / 6, P(noise <= 0) = 1/e, P(noise <= 2) = e^-e^-2."""
    noise = gumbel_like(torch.empty(400_000), seeded()).double()
    # Four standard errors of 400,000 draws: 0.0081 for the mean, 0.022 for the variance
    # (the fourth central moment is 14.6), 0.0031 for a share.
    assert float(noise.mean()) == pytest.approx(0.57722, abs=0.0081)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.022)
    assert float((noise <= 0).double().mean()) == pytest.approx(math.exp(-1), abs=0.0031)
    assert float((noise <= 2).double().mean()) == pytest.approx(math.exp(-math.exp(-2)), abs=0.0031)
    assert noise.isfinite().all()


def test_argmax_of_noisy_logits_follows_the_softmax() -> None:
    """The Gumbel-max theorem, which makes the relaxation one of the right distribution."""
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    draws = 200_000
    noisy = logits + gumbel_like(torch.empty(draws, 4), seeded())
    shares = torch.bincount(noisy.argmax(dim=1), minlength=4) / draws
    for share, wanted in zip(shares.tolist(), torch.softmax(logits, 0).tolist(), strict=True):
        assert share == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / draws))


def test_noise_comes_from_the_generator_alone() -> None:
    assert torch.equal(
        gumbel_like(torch.empty(50), seeded(3)), gumbel_like(torch.empty(50), seeded(3))
    )
    assert not torch.equal(
        gumbel_like(torch.empty(50), seeded(3)), gumbel_like(torch.empty(50), seeded(4))
    )


@pytest.mark.parametrize("tau", [2.0, 0.5])
def test_relaxed_codes_are_the_softmax_mixture_of_the_codebook(tau: float) -> None:
    quantizer = GumbelQuantizer(6, 5, 3)
    x = features(2, 6, 2, 2)
    codes = quantizer(x, tau=tau, generator=seeded()).codes
    logits = quantizer.head(x)
    noisy = logits + gumbel_like(logits, seeded())
    for b, h, w in ((0, 0, 0), (1, 1, 0), (1, 0, 1)):
        weights = torch.softmax(noisy[b, :, h, w] / tau, dim=0)
        expected = sum(weights[k] * quantizer.codebook[k] for k in range(5))
        torch.testing.assert_close(codes[b, :, h, w], expected)


def test_a_small_tau_leaves_one_code_and_a_large_one_their_mean() -> None:
    quantizer = GumbelQuantizer(6, 5, 3)
    x = features(1, 6, 4, 4)
    noisy = quantizer.head(x) + gumbel_like(quantizer.head(x), seeded())
    hard = quantizer(x, tau=1e-4, generator=seeded()).codes
    torch.testing.assert_close(hard, quantizer.embed(noisy.argmax(dim=1)), atol=1e-4, rtol=0)
    soft = quantizer(x, tau=1e6, generator=seeded()).codes
    mean = quantizer.codebook.mean(dim=0)[:, None, None].expand(1, 3, 4, 4)
    torch.testing.assert_close(soft, mean, atol=1e-4, rtol=0)


def test_gradients_train_head_and_codebook_of_gumbel() -> None:
    quantizer = GumbelQuantizer(6, 5, 3)
    quantizer(features(1, 6, 2, 2), tau=1.0, generator=seeded()).codes.square().sum().backward()
    assert all(parameter.grad is not None for parameter in quantizer.parameters())


# ------------------------------------------------------------------------------------ nearest code


def identity_nearest(codebook: list[list[float]], counts: list[float]) -> NearestQuantizer:
    """A quantiser whose features are their own projection, with a codebook of known history."""
    table = torch.tensor(codebook)
    size, width = table.shape
    quantizer = NearestQuantizer(width, size, width)
    with torch.no_grad():
        quantizer.head.weight.copy_(torch.eye(width)[:, :, None, None])
        assert quantizer.head.bias is not None
        quantizer.head.bias.zero_()
        quantizer.codebook.copy_(table)
        quantizer.counts.copy_(torch.tensor(counts))
        quantizer.sums.copy_(table * quantizer.counts[:, None])
    return quantizer


def cells(*values: float) -> Tensor:
    """Features of one column wide, one channel, shape (1, 1, n, 1)."""
    return torch.tensor(values).reshape(1, 1, -1, 1)


def follow(quantizer: NearestQuantizer, x: Tensor, generator: torch.Generator) -> None:
    """A step of training with features `x`."""
    quantized = quantizer(x, tau=1.0)
    assert quantized.projected is not None
    assert not quantized.projected.requires_grad
    quantizer.after_step(quantized.projected, quantized.tokens, generator)


def test_the_nearest_code_is_nearest_by_euclidean_distance() -> None:
    quantizer = NearestQuantizer(6, 50, 4)
    x = features(2, 6, 3, 3)
    projected = quantizer.head(x)
    tokens = quantizer.tokens(x)
    for b, h, w in ((0, 0, 0), (0, 2, 1), (1, 1, 2), (1, 2, 2)):
        distances = [(projected[b, :, h, w] - code).norm().item() for code in quantizer.codebook]
        assert int(tokens[b, h, w]) == min(range(50), key=distances.__getitem__)


def test_gradients_pass_straight_through_to_the_features() -> None:
    quantizer = identity_nearest([[0.0], [10.0]], [10, 10])
    x = cells(1.0, 2.0, 8.0).requires_grad_()
    quantized = quantizer(x, tau=1.0)
    assert quantized.codes.flatten().tolist() == [0, 0, 10]
    (quantized.codes * cells(5.0, 7.0, 11.0)).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [5, 7, 11]


def test_commitment_pulls_features_to_their_codes() -> None:
    quantizer = identity_nearest([[0.0], [10.0]], [10, 10])
    x = cells(1.0, 2.0, 8.0).requires_grad_()
    commitment = quantizer(x, tau=1.0).commitment
    assert commitment.item() == pytest.approx((1 + 4 + 4) / 3)
    commitment.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([2 / 3, 4 / 3, -4 / 3]))


def test_the_codebook_follows_the_mean_of_its_features() -> None:
    """Counts 10 and 10, sums 0 and 100; three features (1, 1, 3) choose code 0 and one (9) code 1.

    counts: 0.99 * 10 + 0.01 * 3 = 9.93 and 0.99 * 10 + 0.01 = 9.91;
    sums: 0 + 0.01 * 5 = 0.05 and 0.99 * 100 + 0.01 * 9 = 99.09.
    """
    quantizer = identity_nearest([[0.0], [10.0]], [10, 10])
    follow(quantizer, cells(1.0, 1.0, 3.0, 9.0), seeded())
    torch.testing.assert_close(quantizer.counts, torch.tensor([9.93, 9.91]))
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[0.05 / 9.93], [99.09 / 9.91]]))


def test_a_codebook_that_always_sees_the_same_features_ends_at_their_means() -> None:
    quantizer = identity_nearest([[0.0], [10.0]], [10, 10])
    for _ in range(1500):
        follow(quantizer, cells(1.0, 1.0, 4.0, 9.0), seeded())
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[2.0], [9.0]]), atol=1e-3, rtol=0)


def test_a_code_that_nothing_is_near_to_is_moved_onto_a_feature() -> None:
    quantizer = identity_nearest([[0.0], [1000.0]], [10, 0.0302])
    follow(quantizer, cells(1.0, 2.0), seeded())  # count of the far code: 0.0299 < 0.03
    assert quantizer.codebook[1, 0] in (1, 2)
    assert quantizer.counts[1] == 1
    unused = identity_nearest([[0.0], [1000.0]], [10, 0.0305])
    follow(unused, cells(1.0, 2.0), seeded())  # 0.0302: still waiting
    assert float(unused.codebook[1, 0]) == pytest.approx(1000)


def test_the_first_step_puts_every_code_among_the_features() -> None:
    """Random codes may lie far from all features; then one code would take everything."""
    quantizer = NearestQuantizer(6, 8, 4)
    x = 100 + features(2, 6, 4, 4)
    follow(quantizer, x, seeded())
    projected = quantizer.head(x).flatten(2).transpose(1, 2).reshape(-1, 4)
    low, high = projected.min(dim=0).values, projected.max(dim=0).values
    assert ((quantizer.codebook >= low - 1e-3) & (quantizer.codebook <= high + 1e-3)).all()
    assert len(quantizer.tokens(x).unique()) >= 4


def test_revival_draws_from_its_generator_alone() -> None:
    tables: list[Tensor] = []
    for _ in range(2):
        torch.manual_seed(7)
        quantizer = NearestQuantizer(6, 8, 4)
        torch.rand(len(tables))  # the global stream differs from here on
        follow(quantizer, features(2, 6, 4, 4), seeded(5))
        tables.append(quantizer.codebook.clone())
    assert torch.equal(*tables)


# -------------------------------------------------------------------------------- codebook health


def test_health_of_known_counts() -> None:
    even = codebook_health(torch.tensor([2, 2, 0, 0]))
    assert even.usage == 0.5
    assert even.perplexity == pytest.approx(2)
    uneven = codebook_health(torch.tensor([3, 1]))
    assert uneven.usage == 1
    assert uneven.perplexity == pytest.approx(4 / 3**0.75)  # exp of 0.75 ln(4/3) + 0.25 ln 4
    assert codebook_health(torch.tensor([0, 9, 0, 0])).perplexity == pytest.approx(1)


def test_health_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token, got an empty window"):
        codebook_health(torch.zeros(4))


def test_the_nearest_code_is_found_in_full_precision_under_autocast() -> None:
    """Bug: distances were multiplied in bf16, which took a neighbour for many a feature."""
    quantizer = NearestQuantizer(6, 512, 4)
    with torch.no_grad():
        quantizer.codebook.add_(8)  # far from 0, as in bf16 what tells them apart is soon lost
    projected = features(2, 4, 16, 16) + 8
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer._nearest(projected)
    assert torch.equal(found, quantizer._nearest(projected))
