"""What the candidates of many captions are worth: hits and scores as arrays, rates of them.

Axes: s captions, n candidates of each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dalle.evaluate.attributes import Verdict
from dalle.evaluate.estimators import (
    Rate,
    best_of_k_curves,
    curve_interval,
    gap_closed_interval,
    hit_at_1,
    hit_curves,
    oracle_hit_at_1,
    random_hit_at_1,
    rate_interval,
)
from dalle.evaluate.results import HitAt1, HitAtK, curve_points, envelope_points


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Every candidate of every caption, judged and scored."""

    verdicts: Sequence[Sequence[Verdict]]
    """s captions of n verdicts."""
    likelihood: np.ndarray
    """Mean log-probability of the image tokens, nats, shape (s, n)."""
    clip: np.ndarray | None
    """Scores by the CLIP ranker, shape (s, n); None without a CLIP."""

    @property
    def hits(self) -> np.ndarray:
        """Whether everything the caption says is right, shape (s, n), bool."""
        return np.array([[verdict.hit for verdict in row] for row in self.verdicts])

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """Scores by ranker, each of shape (s, n)."""
        found = {"likelihood": self.likelihood}
        return found if self.clip is None else {**found, "clip": self.clip}

    @property
    def ranked_by(self) -> str:
        """The ranker that the model uses: CLIP where there is one."""
        return "likelihood" if self.clip is None else "clip"


def as_floats(scores: Sequence[float | None]) -> list[float]:
    """A ranker's scores for arrays: NaN, which comes last as well, where it has no opinion."""
    return [math.nan if score is None else score for score in scores]


def rates_at_1(judged: Judged, *, seed: int) -> HitAt1:
    """hit@1 of every way to choose."""
    hits = judged.hits
    ranked = {name: hit_at_1(hits, scores) for name, scores in judged.scores.items()}
    random, oracle = random_hit_at_1(hits, seed=seed), oracle_hit_at_1(hits)
    return HitAt1(random=random, oracle=oracle, **ranked)


def gaps_closed(judged: Judged, *, seed: int) -> dict[str, Rate | None]:
    """How much of the way from a random candidate to the best one each ranker goes."""
    hits = judged.hits
    return {
        name: gap_closed_interval(hits, scores, seed=seed) for name, scores in judged.scores.items()
    }


def curves(judged: Judged, *, seed: int) -> dict[str, tuple[HitAtK, ...]]:
    """hit@k by ranker; `random` is the chance that any of k candidates hits."""
    hits = judged.hits
    by_ranker = {"random": hit_curves(hits)}
    by_ranker |= {name: best_of_k_curves(hits, scores) for name, scores in judged.scores.items()}
    return {
        name: curve_points(curve_interval(curve, seed=seed)) for name, curve in by_ranker.items()
    }


def temperature_curves(by_temperature: Mapping[float, Judged], *, seed: int) -> dict[str, Any]:
    """Members of `Evaluation` that compare sampling temperatures: curves and their envelopes.

    Args:
        by_temperature: Equally many candidates of the same captions at each.
        seed: Of the intervals' resampling.
    """
    any_of_k = {t: hit_curves(judged.hits) for t, judged in by_temperature.items()}
    best_of_k = {
        t: best_of_k_curves(judged.hits, judged.scores[judged.ranked_by])
        for t, judged in by_temperature.items()
    }
    found: dict[str, Any] = {}
    for prefix, rates in (("", any_of_k), ("ranked_", best_of_k)):
        found[f"{prefix}temperatures"] = {
            f"{t:g}": curve_points(curve_interval(rate, seed=seed)) for t, rate in rates.items()
        }
        means = {t: rate.mean(axis=0) for t, rate in rates.items()}
        found[f"{prefix}envelope"] = envelope_points(means)
    return found


def attribute_rates(judged: Judged, *, seed: int) -> dict[str, Rate]:
    """By attribute, how often a candidate has it right: means over captions that speak of it."""
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for row in judged.verdicts:
        shares["all"].append(float(np.mean([verdict.hit for verdict in row])))
        for name in row[0].attributes:
            shares[name].append(float(np.mean([verdict.attributes[name] for verdict in row])))
    return {name: rate_interval(np.array(found), seed=seed) for name, found in shares.items()}


def kind_rates(
    judged: Judged, truths: Sequence[Mapping[str, Any]], *, seed: int
) -> dict[str, Rate]:
    """By kind of scene, how often a candidate has everything right."""
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for row, truth in zip(judged.hits, truths, strict=True):
        shares[truth["scene"]].append(float(row.mean()))
    return {name: rate_interval(np.array(found), seed=seed) for name, found in shares.items()}


def ranked_kind_rates(judged: Judged, truths: Sequence[Mapping[str, Any]]) -> dict[str, Rate]:
    """By kind of scene, how often the candidate that the ranker puts first has all right."""
    kinds = np.array([truth["scene"] for truth in truths])
    hits, scores = judged.hits, judged.scores[judged.ranked_by]
    return {
        kind: hit_at_1(hits[kinds == kind], scores[kinds == kind])
        for kind in dict.fromkeys(kinds.tolist())
    }
