"""What the candidates of many captions are worth: hits and scores as arrays, rates of them.

Axes: s captions, n candidates of each.
"""

from __future__ import annotations

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
    gap_closed,
    hit_at_1,
    hit_curves,
    mean_interval,
    oracle_hit_at_1,
    random_hit_at_1,
)
from dalle.evaluate.results import HitAt1, HitAtK, curve_points


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Every candidate of every caption, judged and scored."""

    verdicts: Sequence[Sequence[Verdict]]
    """s captions of n verdicts."""
    likelihood: np.ndarray
    """Mean log-probability of the image tokens, nats, shape (s, n)."""
    clip: np.ndarray | None
    """Cosine with the caption, shape (s, n); None without a CLIP."""

    @property
    def hits(self) -> np.ndarray:
        """Whether everything the caption says is right, shape (s, n), bool."""
        return np.array([[verdict.hit for verdict in row] for row in self.verdicts])

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """Scores by ranker, each of shape (s, n)."""
        found = {"likelihood": self.likelihood}
        return found if self.clip is None else {**found, "clip": self.clip}


def rates_at_1(judged: Judged, *, seed: int) -> tuple[HitAt1, dict[str, float | None]]:
    """hit@1 of every way to choose, and how much of random-to-oracle each ranker closes."""
    hits = judged.hits
    random, oracle = random_hit_at_1(hits, seed=seed), oracle_hit_at_1(hits)
    ranked = {name: hit_at_1(hits, scores) for name, scores in judged.scores.items()}
    gaps = {name: gap_closed(random.rate, rate.rate, oracle.rate) for name, rate in ranked.items()}
    return HitAt1(random=random, oracle=oracle, **ranked), gaps


def curves(judged: Judged, *, seed: int) -> dict[str, tuple[HitAtK, ...]]:
    """hit@k by ranker; `random` is the chance that any of k candidates hits."""
    hits = judged.hits
    by_ranker = {"random": hit_curves(hits)}
    by_ranker |= {name: best_of_k_curves(hits, scores) for name, scores in judged.scores.items()}
    return {
        name: curve_points(curve_interval(curve, seed=seed)) for name, curve in by_ranker.items()
    }


def attribute_rates(judged: Judged, *, seed: int) -> dict[str, Rate]:
    """By attribute, how often a candidate has it right: means over captions that speak of it."""
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for row in judged.verdicts:
        shares["all"].append(float(np.mean([verdict.hit for verdict in row])))
        for name in row[0].attributes:
            shares[name].append(float(np.mean([verdict.attributes[name] for verdict in row])))
    return {name: mean_interval(np.array(found), seed=seed) for name, found in shares.items()}


def kind_rates(
    judged: Judged, truths: Sequence[Mapping[str, Any]], *, seed: int
) -> dict[str, Rate]:
    """By kind of scene, how often a candidate has everything right."""
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for row, truth in zip(judged.hits, truths, strict=True):
        shares[truth["scene"]].append(float(row.mean()))
    return {name: mean_interval(np.array(found), seed=seed) for name, found in shares.items()}


def ranked_kind_rates(
    judged: Judged, truths: Sequence[Mapping[str, Any]], *, by: str
) -> dict[str, Rate]:
    """By kind of scene, how often the candidate that ranker `by` puts first has all right."""
    kinds = np.array([truth["scene"] for truth in truths])
    hits, scores = judged.hits, judged.scores[by]
    return {
        kind: hit_at_1(hits[kinds == kind], scores[kinds == kind])
        for kind in dict.fromkeys(kinds.tolist())
    }
