"""Rates and curves from hits, each with the interval that its sample size leaves open.

A hit is a candidate that shows what its caption says. Candidates of one caption resemble each
other, so the caption is the unit that intervals count: whatever is estimated is first brought to
one value per caption.

Axes: s captions of the set, n candidates of each, r draws of a bootstrap. Curves run over
k = 1 .. n along their last axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share, or a mean of one value per case, with its 95 % interval; ready for JSON."""

    rate: float
    low: float
    high: float
    n: int
    """Cases it rests on."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Mean values for k = 1 .. n, each with its 95 % interval."""

    rates: np.ndarray
    """Shape (n), float64."""
    low: np.ndarray
    """Shape (n), float64."""
    high: np.ndarray
    """Shape (n), float64."""


def share(hits: Sequence[bool] | np.ndarray) -> Rate:
    """The share of true values, with its Wilson interval.

    Args:
        hits: One truth value per case.

    Raises:
        ValueError: There is nothing to take a share of.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    n = len(hits)
    if n == 0:
        raise ValueError("a share needs at least one case, got none")
    rate = int(np.count_nonzero(hits)) / n
    low, high = _wilson(rate, n)
    return Rate(rate=rate, low=low, high=high, n=n)


def _wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share of `n` cases; it holds the rate and lies in [0, 1]."""
    z = 1.959964
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # Whatever rounding says.
    return max(0.0, min(rate, float(centre - half))), min(1.0, max(rate, float(centre + half)))


def rate_interval(values: np.ndarray, *, seed: int, draws: int = 2000) -> Rate:
    """The mean of one share per caption, with its interval; see `curve_interval`.

    Args:
        values: One per caption, 0 to 1, shape (s).
        seed: Of the resampling; equal seeds give equal intervals.
        draws: Resampled sets.

    Raises:
        ValueError: There are no values, one lies outside 0 to 1, or `draws` is below 1.
    """
    _check_values(values)
    return _as_rate(curve_interval(values[:, None], seed=seed, draws=draws), len(values))


def mean_interval(values: np.ndarray, *, seed: int, draws: int = 2000) -> Rate:
    """The mean of one value per caption, with its percentile-bootstrap interval.

    Where all values are equal, so are all resampled means, and the interval has no width.

    Args:
        values: One per caption, shape (s).
        seed: Of the resampling; equal seeds give equal intervals.
        draws: Resampled sets.

    Raises:
        ValueError: There are no values, one is not finite, or `draws` is below 1.

    Source: Efron 1979, doi:10.1214/aos/1176344552.
    """
    _check_values(values)
    return _as_rate(_bootstrap(values[:, None], seed=seed, draws=draws), len(values))


def curve_interval(curves: np.ndarray, *, seed: int, draws: int = 2000) -> Curve:
    """The mean of one curve of shares per caption, with intervals at every point.

    Where each caption is either right or wrong, the interval is Wilson's, as in `share`. Elsewhere
    it is a percentile bootstrap's over captions and two more, one all wrong and one all right: near
    0 and 1 a set rarely holds the few captions that differ, and resampled by itself it would leave
    too little open (33 captions of which one in 20 fails: 77 % of such intervals held the truth,
    and 97 % with the two). The intervals hold for each point by itself, not for the curve as a
    whole.

    Args:
        curves: One per caption, 0 to 1, shape (s, n).
        seed: Of the resampling; equal seeds give equal intervals.
        draws: Resampled sets.

    Raises:
        ValueError: There are no curves, a value lies outside 0 to 1, or `draws` is below 1.
    """
    _check_curves(curves)
    if (curves < 0).any() or (curves > 1).any():
        raise ValueError(f"shares must be from 0 to 1, got {curves.min():g} to {curves.max():g}")
    rates = curves.mean(axis=0, dtype=np.float64)
    extremes = np.zeros((1, curves.shape[1])), np.ones((1, curves.shape[1]))
    wider = _bootstrap(np.concatenate([curves, *extremes]), seed=seed, draws=draws)
    low, high = np.minimum(wider.low, rates), np.maximum(wider.high, rates)
    for point in np.flatnonzero(((curves == 0) | (curves == 1)).all(axis=0)):
        low[point], high[point] = _wilson(float(rates[point]), len(curves))
    return Curve(rates=rates, low=low, high=high)


def _check_values(values: np.ndarray) -> None:
    if values.ndim != 1:
        raise ValueError(f"values must have shape (captions), got {values.shape}")


def _as_rate(curve: Curve, n: int) -> Rate:
    """The first point of a curve."""
    low, high = float(curve.low[0]), float(curve.high[0])
    return Rate(rate=float(curve.rates[0]), low=low, high=high, n=n)


def _bootstrap(curves: np.ndarray, *, seed: int, draws: int) -> Curve:
    """Means over captions with percentile-bootstrap intervals, point by point.

    Source: Efron 1979, doi:10.1214/aos/1176344552.
    """
    _check_curves(curves)
    resampled = _resampled_means(curves, seed=seed, draws=draws)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    rates = curves.mean(axis=0, dtype=np.float64)
    # With few draws, or by rounding, the mean itself could fall outside.
    return Curve(rates=rates, low=np.minimum(low, rates), high=np.maximum(high, rates))


def _check_curves(curves: np.ndarray) -> None:
    if curves.ndim != 2 or 0 in curves.shape:
        raise ValueError(f"curves must have shape (captions, n), none of them 0: {curves.shape}")
    if not np.isfinite(curves).all():
        raise ValueError("curves must be finite, got NaN or infinity; leave such captions out")


def bootstrap_counts(n: int, *, seed: int, draws: int) -> np.ndarray:
    """How often each of `n` captions is in each resampled set of as many, shape (r, n), int64.

    Raises:
        ValueError: `draws` is below 1.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)


def _resampled_means(values: np.ndarray, *, seed: int, draws: int) -> np.ndarray:
    """Means of `values`, shape (s, n), over captions drawn with replacement, shape (r, n)."""
    times = bootstrap_counts(len(values), seed=seed, draws=draws)  # r s
    return np.asarray(times @ values / len(values))


def hit_curves(hits: np.ndarray) -> np.ndarray:
    """For each caption, the chance that at least one of k random candidates hits.

    Unbiased: with c hits among n candidates it is 1 - C(n - c, k) / C(n, k), the share of all
    choices of k that hold a hit. Computed as a product of k factors in [0, 1].

    Args:
        hits: Which candidates hit, shape (s, n), bool.

    Returns:
        Shape (s, n), float64; the value for k stands at k - 1.

    Raises:
        ValueError: `hits` is of another shape or type, or empty.

    Source: Chen et al., arXiv:2107.03374, eq. 1.
    """
    _check_hits(hits)
    n = hits.shape[1]
    drawn = np.arange(n)  # n, candidates drawn before the next one
    misses = np.count_nonzero(~hits, axis=1)[:, None]  # s 1
    # The next one misses too, given that all before it did.
    return 1.0 - np.cumprod(np.maximum(misses - drawn, 0) / (n - drawn), axis=1)  # s n


def best_of_k_curves(hits: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """For each caption, the chance that the best by score among k random candidates hits.

    Exact, not sampled: the candidate in place j of n (from 0) is the best of a random choice of k
    with probability C(n - 1 - j, k - 1) / C(n, k). Takes O(n^2) memory.

    Args:
        hits: Which candidates hit, shape (s, n), bool.
        scores: What they are ranked by, shape (s, n), higher is better; NaN comes last, equal
            scores keep their order, as in `dalle.rerank.rank`.

    Returns:
        Shape (s, n), float64; the value for k stands at k - 1.

    Raises:
        ValueError: `hits` is of another shape or type, or empty, or `scores` of another shape.
    """
    ranked = _by_rank(hits, scores)  # s n, best first
    n = ranked.shape[1]
    place = np.arange(n - 1)[:, None]  # places but the last
    k = np.arange(1, n + 1)
    # From place to place the chance shrinks by (n - k - j) / (n - 1 - j): products of factors in
    # [0, 1] again, where binomials of thousands would overflow.
    shrink = np.maximum(n - k - place, 0) / (n - 1 - place)  # n-1 n
    chance = np.cumprod(np.vstack([k / n, shrink]), axis=0)  # n n, place x k
    # The chances of one k add up to 1 but for rounding, which must not carry a rate above 1.
    curves: np.ndarray = np.minimum(ranked @ chance, 1.0)  # s n
    return curves


def hit_at_1(hits: np.ndarray, scores: np.ndarray) -> Rate:
    """The share of captions whose candidate of the highest score hits.

    Args:
        hits: Which candidates hit, shape (s, n), bool.
        scores: What they are ranked by, shape (s, n), higher is better; NaN never wins over a
            number, equal scores keep their order, as in `dalle.rerank.rank`.

    Raises:
        ValueError: `hits` is of another shape or type, or empty, or `scores` of another shape.
    """
    return share(_by_rank(hits, scores)[:, 0])


def random_hit_at_1(hits: np.ndarray, *, seed: int) -> Rate:
    """The share of captions whose candidate hits, had it been picked at random.

    Args:
        hits: Which candidates hit, shape (s, n), bool.
        seed: Of the bootstrap that gives the interval.

    Raises:
        ValueError: `hits` is of another shape or type, or empty.
    """
    _check_hits(hits)
    return rate_interval(hits.mean(axis=1), seed=seed)


def oracle_hit_at_1(hits: np.ndarray) -> Rate:
    """The share of captions with any hit: what a ranker that knows the truth would reach.

    Args:
        hits: Which candidates hit, shape (s, n), bool.

    Raises:
        ValueError: `hits` is of another shape or type, or empty.
    """
    _check_hits(hits)
    return share(np.any(hits, axis=1))


def gap_closed(random: float, ranked: float, oracle: float) -> float | None:
    """How much of the way from random choice to the oracle a ranker goes.

    Args:
        random: Hit rate of a random choice.
        ranked: Hit rate of the ranker's first.
        oracle: Hit rate of a choice that knows the truth, at least `random`.

    Returns:
        1 for the oracle's rate, 0 for random choice, below 0 for worse; None where random choice
        is as good as the oracle, so that no ranker could show anything.

    Raises:
        ValueError: The oracle is below random choice.
    """
    if oracle < random:
        raise ValueError(f"oracle ({oracle}) must be at least random ({random})")
    return None if oracle == random else (ranked - random) / (oracle - random)


def gap_closed_interval(
    hits: np.ndarray, scores: np.ndarray, *, seed: int, draws: int = 2000
) -> Rate | None:
    """How much of the way from random choice to the oracle a ranker goes, with its interval.

    Captions are resampled, and the share is taken anew of each resampled set; sets without a gap
    have no such share and are left out.

    Args:
        hits: Which candidates hit, shape (s, n), bool.
        scores: What they are ranked by, shape (s, n), higher is better.
        seed: Of the resampling; equal seeds give equal intervals.
        draws: Resampled sets.

    Returns:
        `gap_closed` of the rates, and on how many captions it rests: those with hits and misses,
        since the others are no matter of choice. None where there are none.

    Raises:
        ValueError: `hits` is of another shape or type, or empty, `scores` of another shape, or
            `draws` below 1.
    """
    ranked = _by_rank(hits, scores)[:, 0]
    by_caption = np.stack([hits.mean(axis=1), ranked, hits.any(axis=1)], axis=1)  # s 3
    undecided = int(np.count_nonzero(by_caption[:, 0] < by_caption[:, 2]))
    random, chosen, oracle = by_caption.mean(axis=0).tolist()
    rate = gap_closed(random, chosen, oracle) if undecided else None
    if rate is None:
        return None
    means = _resampled_means(by_caption, seed=seed, draws=draws)  # r 3
    gaps = means[:, 2] - means[:, 0]
    # A set of captions without a gap differs from 0 by rounding alone.
    some = gaps > 0.5 / hits.size
    found = (means[some, 1] - means[some, 0]) / gaps[some]
    low, high = np.percentile(found, [2.5, 97.5]) if some.any() else (rate, rate)
    return Rate(rate=rate, low=min(float(low), rate), high=max(float(high), rate), n=undecided)


def upper_envelope(curves: Mapping[float, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The best rate at every k, and the temperature that reaches it.

    The best of several estimates is biased upwards: part of what makes one the highest is luck.

    Args:
        curves: Rates by temperature, each of shape (n).

    Returns:
        Rates, shape (n), and temperatures, shape (n); of equally good ones the lowest.

    Raises:
        ValueError: There are no curves, or their lengths differ.
    """
    if not curves:
        raise ValueError("an envelope needs at least one curve, got none")
    if len({curve.shape for curve in curves.values()}) > 1:
        lengths = {temperature: curve.shape for temperature, curve in curves.items()}
        raise ValueError(f"curves must have one length, got {lengths}; draw equally many each time")
    temperatures = sorted(curves)
    rates = np.stack([curves[temperature] for temperature in temperatures])
    return rates.max(axis=0), np.asarray(temperatures)[rates.argmax(axis=0)]


def _by_rank(hits: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Each caption's hits in the order of its scores, best first, shape (s, n)."""
    _check_hits(hits)
    if scores.shape != hits.shape:
        raise ValueError(f"scores must have the shape of hits, {hits.shape}, got {scores.shape}")
    # As dalle.rerank.rank, for whole arrays: NumPy, too, sorts NaN to the end, whatever its sign.
    order = np.argsort(-scores, axis=1, kind="stable")  # s n
    return np.take_along_axis(hits, order, axis=1)


def _check_hits(hits: np.ndarray) -> None:
    if hits.dtype != np.bool_ or hits.ndim != 2 or 0 in hits.shape:
        raise ValueError(
            "hits must be bool of shape (captions, candidates), none of them 0, "
            f"got {hits.dtype} of shape {hits.shape}"
        )
