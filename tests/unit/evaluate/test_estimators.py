"""Rates, curves and intervals, against enumeration, exact fractions and numbers by hand."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dalle.evaluate.estimators import (
    Rate,
    best_of_k_curves,
    curve_interval,
    gap_closed,
    gap_closed_interval,
    hit_at_1,
    hit_curves,
    mean_interval,
    oracle_hit_at_1,
    random_hit_at_1,
    rate_interval,
    share,
    upper_envelope,
)
from dalle.rerank import rank

SCORES = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 2.0, math.inf, math.nan])
"""Few values, so that ties are common."""


@st.composite
def ranked(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Hits and scores of a few captions with up to seven candidates."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7))
    hits = draw(arrays.arrays(np.bool_, shape))
    return hits, draw(arrays.arrays(np.float64, shape, elements=SCORES))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # By hand, z = 1.96, z^2 = 3.8416: centre (p + z^2 / 2n) / (1 + z^2 / n), half as in Wilson.
        (5, 10, 0.2366, 0.7634),  # centre 0.5, half 1.96/1.38416 * sqrt(0.025 + 0.009604) = 0.2634
        (0, 10, 0.0, 0.2775),  # 3.8416 / 13.8416
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),  # 1 / 4.8416
        (95, 100, 0.8882, 0.9785),
    ],
)
def test_the_interval_is_wilsons(hits: int, n: int, low: float, high: float) -> None:
    found = share([True] * hits + [False] * (n - hits))
    assert (found.rate, found.low, found.high) == pytest.approx((hits / n, low, high), abs=1e-4)
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.n == n
    assert share(np.array([True] * hits + [False] * (n - hits))) == found


def test_nothing_has_no_share() -> None:
    with pytest.raises(ValueError, match="at least one case, got none"):
        share([])


def test_rates_are_ready_for_json() -> None:
    for rate in (
        share(np.array([True])),
        mean_interval(np.array([1.0, 2.0], dtype=np.float32), seed=0),
        hit_at_1(np.array([[True]]), np.array([[0.0]])),
    ):
        assert json.loads(json.dumps(asdict(rate))).keys() == {"rate", "low", "high", "n"}


@given(ranked())
def test_any_of_k_is_the_share_of_all_choices_with_a_hit(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    hits, _ = case
    n = hits.shape[1]
    for k in range(1, n + 1):
        wanted = [np.mean([any(chosen) for chosen in combinations(row, k)]) for row in hits]
        assert hit_curves(hits)[:, k - 1] == pytest.approx(wanted, abs=1e-12)


@given(ranked())
def test_best_of_k_is_the_share_of_all_choices_whose_best_hits(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    """The best of a choice is found by the ranker that the pipeline itself uses."""
    hits, scores = case
    n = hits.shape[1]
    for k in range(1, n + 1):
        wanted = []
        for row, marks in zip(hits, scores.tolist(), strict=True):
            choices = [list(chosen) for chosen in combinations(range(n), k)]
            best = [chosen[rank([marks[i] for i in chosen])[0]] for chosen in choices]
            wanted.append(np.mean(row[best]))
        assert best_of_k_curves(hits, scores)[:, k - 1] == pytest.approx(wanted, abs=1e-12)
    assert hit_at_1(hits, scores).rate == pytest.approx(
        best_of_k_curves(hits, scores)[:, -1].mean()
    )
    assert random_hit_at_1(hits, seed=0).rate == pytest.approx(hit_curves(hits)[:, 0].mean())
    assert oracle_hit_at_1(hits).rate == pytest.approx(hit_curves(hits)[:, -1].mean())


def test_thousands_of_candidates_do_not_overflow() -> None:
    """C(2048, 1024) has 615 digits; exact fractions know it, floats do not."""
    n, counts = 2048, (0, 1, 3, 700, 2047, 2048)
    hits = np.arange(n) < np.array(counts)[:, None]
    # Hits hold the lowest scores, so the best of k is one only if all of the k are.
    scores = np.broadcast_to(np.arange(n, dtype=float), hits.shape)
    any_of_k, all_of_k = hit_curves(hits), best_of_k_curves(hits, scores)
    for row, count in enumerate(counts):
        for k in (1, 2, 64, 1024, 2000, n):
            missed = Fraction(math.comb(n - count, k), math.comb(n, k))
            assert any_of_k[row, k - 1] == pytest.approx(float(1 - missed), rel=1e-9)
            all_hit = Fraction(math.comb(count, k), math.comb(n, k))
            assert all_of_k[row, k - 1] == pytest.approx(float(all_hit), rel=1e-9, abs=1e-300)
    for curves in (any_of_k, all_of_k):
        assert ((curves >= 0) & (curves <= 1)).all()
    assert (np.diff(any_of_k, axis=1) >= 0).all()


def test_the_first_is_the_highest_score_and_never_nan() -> None:
    hits = np.array([[False, True], [True, False], [True, False], [True, False]])
    scores = np.array(
        [
            [np.nan, -9.0],  # a number wins over NaN: hit
            [1.0, 1.0],  # the lower index wins a tie: hit
            [1.0, 2.0],  # miss
            [np.nan, np.nan],  # no opinion, so the order stays: hit
        ]
    )
    assert hit_at_1(hits, scores) == share([True, True, False, True])
    assert oracle_hit_at_1(hits) == share([True] * 4)


def test_a_mean_has_about_the_interval_of_the_normal_law() -> None:
    values = np.arange(400) % 10 < 3  # mean 0.3, standard error sqrt(0.21 / 400) = 0.0229
    found = mean_interval(values.astype(float), seed=1)
    assert found.rate == pytest.approx(0.3)
    assert found.n == 400
    assert found.low == pytest.approx(0.3 - 1.96 * 0.0229, abs=0.004)
    assert found.high == pytest.approx(0.3 + 1.96 * 0.0229, abs=0.004)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Of 300 intervals, 95 % of normal values' are 285; three standard errors are 11."""
    source = np.random.default_rng(3)
    covered = 0
    for number in range(300):
        found = mean_interval(source.normal(2.0, 1.0, 100), seed=number, draws=300)
        covered += found.low <= 2.0 <= found.high
    assert 271 <= covered <= 296


def test_the_caption_is_what_intervals_count() -> None:
    """A hundred equal candidates of a caption say no more than one."""
    hits = np.arange(20)[:, None] % 2 == 0  # 20 captions, half of them right
    one, many = (random_hit_at_1(np.repeat(hits, n, axis=1), seed=0) for n in (1, 100))
    assert one == many
    assert one.high - one.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 20), abs=0.07)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_shares_that_are_all_right_or_wrong_are_cases(value: float) -> None:
    """Ten captions without a hit were once reported as 0 %, from 0 to 0 %."""
    assert rate_interval(np.full(10, value), seed=0) == share([value == 1] * 10)
    assert rate_interval(np.array([value, 1 - value]), seed=0) == share([True, False])


def test_one_more_error_never_leaves_less_open() -> None:
    """One wrong candidate among 33 x 32 once gave 99.7 to 100 %, and none 89.6 to 100 %."""
    none, one = (rate_interval(np.array([last, *[1.0] * 32]), seed=0) for last in (1.0, 31 / 32))
    assert one.rate == pytest.approx(1 - 1 / 1056)
    assert one.low == pytest.approx(none.low, abs=0.03)
    assert one.high == 1.0
    assert rate_interval(np.full(10, 0.25), seed=0).high > 0.3, "equal shares prove little"


@pytest.mark.parametrize(("captions", "failing"), [(33, 0.05), (100, 0.02), (10, 0.2)])
def test_intervals_near_the_ends_cover_the_truth(captions: int, failing: float) -> None:
    """Of failing captions half of the candidates hit. Resampling alone covered 77 to 87 %."""
    source = np.random.default_rng(5)
    covered = 0
    for number in range(200):
        hits = np.where(
            source.random(captions) < failing, source.binomial(32, 0.5, captions) / 32, 1.0
        )
        found = rate_interval(hits, seed=number, draws=200)
        covered += found.low <= 1 - failing / 2 <= found.high
    assert covered >= 182, "95 % of 200 are 190, and two and a half standard errors 8"


def test_a_curve_widens_where_all_captions_agree() -> None:
    curves = np.array([[0.0, 0.5, 1.0], [0.0, 0.25, 1.0], [0.0, 0.75, 1.0]])
    found = curve_interval(curves, seed=0)
    none, all_of_them = share([False] * 3), share([True] * 3)
    assert (found.low[0], found.high[0]) == (none.low, none.high)
    assert (found.low[2], found.high[2]) == (all_of_them.low, all_of_them.high)
    middle = rate_interval(curves[:, 1], seed=0)
    assert (found.low[1], found.high[1]) == pytest.approx((middle.low, middle.high))


def test_only_shares_have_share_intervals() -> None:
    with pytest.raises(ValueError, match=r"shares must be from 0 to 1, got 0 to 1\.5"):
        rate_interval(np.array([0.0, 1.5]), seed=0)
    with pytest.raises(ValueError, match=r"values must have shape \(captions\), got \(2, 3\)"):
        rate_interval(np.zeros((2, 3)), seed=0)


def test_a_curve_is_estimated_point_by_point() -> None:
    curves = np.random.default_rng(0).random((30, 4))
    found = curve_interval(curves, seed=5, draws=500)
    for k in range(4):
        alone = rate_interval(curves[:, k], seed=5, draws=500)
        point = Rate(rate=found.rates[k], low=found.low[k], high=found.high[k], n=30)
        assert asdict(point) == pytest.approx(asdict(alone))
    again, other = (curve_interval(curves, seed=seed, draws=500) for seed in (5, 6))
    assert (again.low == found.low).all()
    assert (other.low != found.low).any()


def test_an_interval_holds_its_mean_even_with_one_draw() -> None:
    for seed in range(10):
        found = mean_interval(np.array([0.0, 1.0, 5.0]), seed=seed, draws=1)
        assert found.low <= found.rate == 2.0 <= found.high


def test_the_envelope_names_the_best_temperature() -> None:
    curves = {
        1.0: np.array([0.1, 0.4, 0.9]),
        0.5: np.array([0.3, 0.4, 0.5]),
        0.7: np.array([0.2, 0.3, 0.9]),
    }
    for order in (curves, dict(reversed(curves.items()))):
        rates, temperatures = upper_envelope(order)
        assert rates.tolist() == [0.3, 0.4, 0.9]
        assert temperatures.tolist() == [0.5, 0.5, 0.7], "of equally good ones, the lowest"


def test_the_gap_runs_from_random_to_oracle() -> None:
    assert gap_closed(0.2, 0.5, 0.8) == pytest.approx(0.5)
    assert gap_closed(0.2, 0.2, 0.8) == 0
    assert gap_closed(0.2, 0.8, 0.8) == 1
    assert gap_closed(0.2, 0.1, 0.7) == pytest.approx(-0.2)
    assert gap_closed(0.4, 0.4, 0.4) is None
    with pytest.raises(ValueError, match=r"oracle \(0.3\) must be at least random \(0.4\)"):
        gap_closed(0.4, 0.4, 0.3)


def test_the_gap_has_the_interval_of_resampled_captions() -> None:
    """All 27 sets of three captions are equally likely, so they can be worked out one by one."""
    hits = np.array([[True, False], [True, False], [False, False]])
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    # Random 1/2, 1/2, 0; ranked 1, 0, 0; oracle 1, 1, 0: gap 2/3 - 1/3, closed by 0.
    found = gap_closed_interval(hits, scores, seed=0, draws=4000)
    assert found is not None
    assert (found.rate, found.n) == (0.0, 2), "the third caption is no matter of choice"
    closed = []
    for chosen in product(range(3), repeat=3):
        best, worst = chosen.count(0), chosen.count(1)
        if best + worst:
            closed.append((best - worst) / (best + worst))
    assert (found.low, found.high) == tuple(np.percentile(closed, [2.5, 97.5])) == (-1.0, 1.0)
    many = gap_closed_interval(np.tile(hits, (100, 1)), np.tile(scores, (100, 1)), seed=0)
    assert many is not None
    # (best - worst) / (best + worst) of about 200 captions: standard error sqrt(1 / 200) = 0.071.
    assert many.low == pytest.approx(-1.96 * 0.071, abs=0.02)
    assert many.high == pytest.approx(1.96 * 0.071, abs=0.02)


@given(ranked())
def test_the_gap_is_that_of_the_rates(case: tuple[np.ndarray, np.ndarray]) -> None:
    hits, scores = case
    found = gap_closed_interval(hits, scores, seed=0, draws=20)
    random, oracle = random_hit_at_1(hits, seed=0).rate, oracle_hit_at_1(hits).rate
    if (hits.any(axis=1) == hits.all(axis=1)).all():
        assert found is None, "no caption leaves a choice"
    else:
        assert found is not None
        expected = gap_closed(random, hit_at_1(hits, scores).rate, oracle)
        assert found.rate == pytest.approx(expected)
        assert found.low <= found.rate <= found.high
        assert 1 <= found.n <= len(hits)


@pytest.mark.parametrize(
    "hits", [np.zeros((2, 3)), np.zeros(3, bool), np.zeros((0, 3), bool), np.zeros((3, 0), bool)]
)
def test_hits_are_boolean_and_two_dimensional(hits: np.ndarray) -> None:
    for estimate in (hit_curves, oracle_hit_at_1):
        with pytest.raises(
            ValueError, match=r"hits must be bool of shape \(captions, candidates\)"
        ):
            estimate(hits)
    with pytest.raises(ValueError, match="hits must be bool"):
        random_hit_at_1(hits, seed=0)
    with pytest.raises(ValueError, match="hits must be bool"):
        hit_at_1(hits, np.zeros(hits.shape))


def test_what_cannot_be_estimated_is_refused() -> None:
    hits = np.zeros((2, 3), bool)
    with pytest.raises(ValueError, match=r"shape of hits, \(2, 3\), got \(3, 2\)"):
        best_of_k_curves(hits, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"values must have shape \(captions\), got \(2, 3\)"):
        mean_interval(np.zeros((2, 3)), seed=0)
    with pytest.raises(ValueError, match=r"none of them 0: \(0, 1\)"):
        mean_interval(np.zeros(0), seed=0)
    with pytest.raises(ValueError, match="finite, got NaN or infinity"):
        mean_interval(np.array([1.0, math.nan]), seed=0)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        mean_interval(np.zeros(3), seed=0, draws=0)
    with pytest.raises(ValueError, match="at least one curve, got none"):
        upper_envelope({})
    with pytest.raises(ValueError, match="one length, got"):
        upper_envelope({0.5: np.zeros(3), 0.7: np.zeros(4)})
