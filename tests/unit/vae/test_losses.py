"""Likelihoods against numerical integration and hand-worked numbers; KL against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vae.losses import (
    MIN_SCALE,
    kl_to_uniform,
    logit_laplace_nll,
    mean_pixels,
    output_channels,
    reconstruction_nll,
)


def laplace_cdf(x: float, mu: float, scale: float) -> float:
    """Probability that a Laplace variable is at most `x`: the textbook's closed form."""
    half = 0.5 * math.exp(-abs(x - mu) / scale)
    return half if x < mu else 1 - half


def probability(low: float, high: float, mu: float, scale: float) -> float:
    """The density of `logit_laplace_nll` integrated over low...high by the trapezoid rule."""
    x = torch.linspace(low, high, 400_001, dtype=torch.float64)
    location, log_scale = torch.full_like(x, mu), torch.full_like(x, math.log(scale))
    density = torch.exp(-logit_laplace_nll(location, log_scale, x))
    return float(torch.trapezoid(density, x))


@pytest.mark.parametrize(("mu", "scale"), [(0.0, 0.5), (0.0, 0.1), (1.5, 0.3), (-2.0, 0.4)])
def test_logit_laplace_density_integrates_to_one(mu: float, scale: float) -> None:
    # With scales under 1 the density vanishes at 0 and 1, so cutting 1e-9 off changes nothing.
    assert probability(1e-9, 1 - 1e-9, mu, scale) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (0.3, 0.31), (0.5, 0.95)])
@pytest.mark.parametrize(("mu", "scale"), [(0.0, 1.0), (0.7, 0.2), (-1.3, 2.5)])
def test_logit_laplace_is_a_laplace_of_the_logit(
    low: float, high: float, mu: float, scale: float
) -> None:
    def logit(x: float) -> float:
        return math.log(x / (1 - x))

    expected = laplace_cdf(logit(high), mu, scale) - laplace_cdf(logit(low), mu, scale)
    assert probability(low, high, mu, scale) == pytest.approx(expected, abs=1e-6)


def test_logit_laplace_at_one_point() -> None:
    """At x = 1/2, mu = 0, b = 1 the density is 1 / (2 * 1/4) = 2."""
    zero = torch.zeros(())
    nll = logit_laplace_nll(zero, zero, torch.tensor(0.5))
    assert float(nll) == pytest.approx(-math.log(2))


def output_of(mu: float, raw_log_scale: float) -> Tensor:
    """Decoder output (1, 6, 1, 1) with one location and one log scale for all colours."""
    return torch.tensor([mu] * 3 + [raw_log_scale] * 3).reshape(1, 6, 1, 1)


def test_logit_laplace_scale_is_what_the_decoder_says_plus_a_floor() -> None:
    mid_grey = torch.zeros(1, 3, 1, 1)
    for raw, scale in ((-100.0, MIN_SCALE), (0.0, 1 + MIN_SCALE), (math.log(3), 3 + MIN_SCALE)):
        nll = reconstruction_nll(output_of(0.0, raw), mid_grey, "logit-laplace")
        # At the mode the density is 1 / (2 b x (1 - x)) = 2 / b.
        assert float(nll) == pytest.approx(math.log(scale / 2), abs=1e-5)


def test_logit_laplace_counts_each_colour_against_its_own_maps() -> None:
    output = torch.tensor([0.0, 1.0, -1.0, 0.0, 0.5, -0.5]).reshape(1, 6, 1, 1)
    pixels = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    expected = 0.0
    for mu, raw, x in ((0.0, 0.0, 0.1), (1.0, 0.5, 0.5), (-1.0, -0.5, 0.9)):
        b = math.exp(raw) + MIN_SCALE
        distance = abs(math.log(x / (1 - x)) - mu)
        expected -= math.log(math.exp(-distance / b) / (2 * b * x * (1 - x))) / 3
    nll = reconstruction_nll(output, pixels, "logit-laplace")
    assert float(nll) == pytest.approx(expected, abs=1e-6)


def test_l1_and_l2_are_plain_means() -> None:
    output = torch.tensor([0.5, 0.0, 0.0]).reshape(1, 3, 1, 1)
    pixels = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    assert float(reconstruction_nll(output, pixels, "l1")) == pytest.approx(1.5 / 3)
    assert float(reconstruction_nll(output, pixels, "l2")) == pytest.approx(1.25 / 3)


def test_output_maps_per_likelihood() -> None:
    assert output_channels("logit-laplace") == 6
    assert output_channels("l1") == output_channels("l2") == 3


def test_a_picture_is_the_location_whatever_the_scale() -> None:
    mu = torch.logit(torch.tensor([0.1, 0.5, 0.9])).reshape(1, 3, 1, 1)
    for log_scale in (-3.0, 3.0):
        output = torch.cat([mu, torch.full_like(mu, log_scale)], dim=1)
        picture = mean_pixels(output, "logit-laplace")
        torch.testing.assert_close(picture.flatten(), torch.tensor([-1.0, 0.0, 1.0]))
    assert mean_pixels(output_of(50.0, 0.0), "logit-laplace").max() == 1
    plain = mean_pixels(torch.tensor([-2.0, 0.25, 2.0]).reshape(1, 3, 1, 1), "l1")
    assert plain.flatten().tolist() == [-1, 0.25, 1]


def test_kl_is_zero_for_the_prior_and_ln_k_for_certainty() -> None:
    assert float(kl_to_uniform(torch.full((2, 8, 3, 3), 4.0))) == pytest.approx(0, abs=1e-6)
    certain = torch.zeros(2, 8, 3, 3)
    certain[:, 5] = 1000
    assert float(kl_to_uniform(certain)) == pytest.approx(math.log(8))


def test_kl_of_two_codes_by_hand_and_mean_over_cells() -> None:
    cells = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log().T.reshape(1, 2, 1, 2)  # b k h w
    first = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(kl_to_uniform(cells)) == pytest.approx(first / 2)


def test_kl_equals_its_definition_for_any_logits() -> None:
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    posterior = torch.softmax(logits, dim=1)
    prior = torch.full_like(posterior, 1 / 5)
    expected = (posterior * (posterior / prior).log()).sum(dim=1).mean()
    torch.testing.assert_close(kl_to_uniform(logits).double(), expected, rtol=1e-5, atol=1e-6)
