"""What temperature, top-k, nucleus and guidance make of logits, by hand and by their promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dalle.sampling import apply_temperature, guide, keep_nucleus, keep_top_k

# Half, a quarter, an eighth and an eighth, out of order.
QUARTERS = torch.tensor([0.125, 0.5, 0.125, 0.25]).log()

scores = st.lists(
    st.floats(-20, 20, width=32), min_size=2, max_size=12
).map(torch.tensor)  # fmt: skip


def test_temperature_by_hand() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert apply_temperature(logits, 0.5).tolist() == [-4.0, 0.0, -2.0]
    assert apply_temperature(logits, 2.0).tolist() == [-1.0, 0.0, -0.5]


def test_the_smallest_temperature_is_greedy_and_finite_at_the_best() -> None:
    warm = apply_temperature(torch.tensor([88.0, 90.0, 89.0]), 1e-45)
    assert warm.tolist() == [-math.inf, 0.0, -math.inf]


@given(scores, st.floats(0.05, 20))
def test_temperature_scales_log_odds(logits: Tensor, temperature: float) -> None:
    cooled = apply_temperature(logits, temperature)
    expected = (logits / temperature).softmax(-1)
    torch.testing.assert_close(cooled.softmax(-1), expected, rtol=1e-4, atol=1e-6)


def test_top_k_by_hand() -> None:
    kept = keep_top_k(torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 4.5]]), 2)
    inf = math.inf
    assert kept.tolist() == [[-inf, 3.0, 2.0], [5.0, -inf, 4.5]]


@given(scores, st.integers(1, 30))
def test_top_k_keeps_exactly_that_many_of_the_best(logits: Tensor, top_k: int) -> None:
    kept = keep_top_k(logits, top_k)
    survivors = kept.isfinite()
    assert survivors.sum() == min(top_k, len(logits)), "a count beyond the vocabulary keeps all"
    assert torch.equal(kept[survivors], logits[survivors])
    if not survivors.all():
        assert logits[survivors].min() >= logits[~survivors].max()


@pytest.mark.parametrize(
    ("top_p", "survivors"),
    [
        (1e-9, [1]),
        (0.5, [1]),
        (0.51, [1, 3]),
        (0.74, [1, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_nucleus_by_hand(top_p: float, survivors: list[int]) -> None:
    assert keep_nucleus(QUARTERS, top_p).isfinite().nonzero().flatten().tolist() == survivors


@given(scores, st.floats(0.01, 0.99))
def test_nucleus_is_the_smallest_set_that_holds_the_mass(logits: Tensor, top_p: float) -> None:
    kept = keep_nucleus(logits, top_p)
    survivors = kept.isfinite()
    assert torch.equal(kept[survivors], logits[survivors])
    probabilities = logits.double().softmax(-1)
    mass = probabilities[survivors].sum()
    rounding = 1e-5  # sums of float32 probabilities
    assert mass >= top_p - rounding
    assert mass - probabilities[survivors].min() < top_p + rounding
    if not survivors.all():
        assert logits[survivors].min() >= logits[~survivors].max()


def test_nucleus_ignores_what_top_k_dropped() -> None:
    """After top-k 2 the odds are 2 to 1, so the best alone holds 0.66."""
    assert keep_nucleus(keep_top_k(QUARTERS, 2), 0.66).isfinite().sum() == 1
    assert keep_nucleus(keep_top_k(QUARTERS, 2), 0.67).isfinite().sum() == 2


def test_guidance_by_hand() -> None:
    conditional, null = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    assert guide(conditional, null, 3.0).tolist() == [4.0, -2.0]
    assert guide(conditional, null, 0.0).tolist() == null.tolist()
    assert guide(conditional, null, 1.0).tolist() == conditional.tolist()


def test_filters_leave_their_argument_alone() -> None:
    logits = QUARTERS.clone()
    for new in (
        apply_temperature(logits, 0.5),
        keep_top_k(logits, 4),
        keep_top_k(logits, 2),
        keep_nucleus(logits, 1.0),
        keep_nucleus(logits, 0.4),
    ):
        new.fill_(0)
    assert torch.equal(logits, QUARTERS)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_divide(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        apply_temperature(QUARTERS, temperature)


def test_filters_refuse_values_outside_their_range() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        keep_top_k(QUARTERS, 0)
    for top_p in (0.0, 1.2, math.nan):
        with pytest.raises(ValueError, match=r"top_p must be in \(0, 1\], got"):
            keep_nucleus(QUARTERS, top_p)
