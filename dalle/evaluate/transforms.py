"""What redrawing pictures in other looks gave: arrays of every candidate, and rates of them.

Axes: s cases, n candidates of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dalle.evaluate.estimators import (
    Rate,
    hit_at_1,
    mean_interval,
    oracle_hit_at_1,
    random_hit_at_1,
    share,
)

ATTRIBUTES = ("subject", "look", "both")
"""What is judged of a bottom panel."""
MEASURES = ("pixel distance", "edge distance", "token agreement")
"""How near it is to the truth; see `dalle.evaluate.closeness`."""
RANDOM, ORACLE = "random", "oracle"
SEEN, ZERO_SHOT = "seen", "zero-shot"
TRUTH, RECONSTRUCTION, OTHER_SUBJECT = "truth", "reconstruction", "other subject"


@dataclass(frozen=True, kw_only=True)
class Redrawn:
    """Every candidate of every case."""

    looks: Sequence[str]
    """The s looks that were asked for."""
    zero_shot: np.ndarray
    """Whether training never showed the look in panels, shape (s), bool."""
    hits: Mapping[str, np.ndarray]
    """By attribute: which candidates have it right, shape (s, n), bool."""
    closeness: Mapping[str, np.ndarray]
    """By measure: of each candidate, shape (s, n)."""
    yardsticks: Mapping[str, Mapping[str, np.ndarray]]
    """By measure, of `RECONSTRUCTION` (the truth through the dVAE) and `OTHER_SUBJECT` (the truth
    of another case in the same look), shape (s) each; NaN where there is no such case."""
    scores: Mapping[str, np.ndarray]
    """By ranker: what candidates are ranked by, shape (s, n), higher is better."""
    truths: Mapping[str, np.ndarray]
    """Which of `TRUTH` and of `RECONSTRUCTION` the judge accepts, shape (s) each, bool."""


@dataclass(frozen=True, kw_only=True)
class GroupRates:
    """What was found of a group of cases."""

    cases: int
    right: dict[str, dict[str, Rate]]
    """By attribute, by who chooses among the candidates: `random`, the rankers, `oracle`."""
    closeness: dict[str, dict[str, Rate]]
    """By measure, of a random candidate, of the first of `ranker`, and of the yardsticks."""


@dataclass(frozen=True, kw_only=True)
class TransformEvaluation:
    """Everything that was measured of one model's transforms."""

    model: str
    """Name or folder, as it was asked for."""
    fingerprint: str
    """Hash of the model folder."""
    subjects: int
    """Subjects of each look that were asked for; fewer where fewer are held out."""
    candidates: int
    """Pictures drawn for each case."""
    seed: int
    temperature: float
    ranker: str
    """The ranker that tables of one chooser show: a key of `GroupRates.right`."""
    seconds: float
    """What the evaluation took."""
    groups: dict[str, GroupRates]
    """`seen`: looks that training showed in panels; `zero-shot`: the one that it never did."""
    looks: dict[str, GroupRates]
    """The same of every look."""
    zero_shot_looks: tuple[str, ...]
    """Looks that training never showed in panels."""
    judged_right: dict[str, Rate]
    """How often the judge accepts true pictures (`truth`) and their `reconstruction`."""


def summarise(redrawn: Redrawn, *, ranker: str, seed: int) -> dict[str, dict[str, GroupRates]]:
    """Rates by group and by look, as `TransformEvaluation` holds them.

    Args:
        redrawn: Every candidate.
        ranker: Whose first candidate's closeness is measured.
        seed: Of the intervals' resampling.
    """
    zero_shot = np.asarray(redrawn.zero_shot)
    names = np.array(redrawn.looks)
    groups = {SEEN: ~zero_shot, ZERO_SHOT: zero_shot}
    looks = {name: names == name for name in dict.fromkeys(redrawn.looks)}
    return {
        kind: {
            name: _group(redrawn, cases, ranker=ranker, seed=seed)
            for name, cases in found.items()
            if cases.any()
        }
        for kind, found in (("groups", groups), ("looks", looks))
    }


def judged_right(redrawn: Redrawn) -> dict[str, Rate]:
    """How often the judge accepts what is true."""
    return {name: share(found) for name, found in redrawn.truths.items()}


def _group(redrawn: Redrawn, cases: np.ndarray, *, ranker: str, seed: int) -> GroupRates:
    """Rates of the cases that `cases`, shape (s), bool, says."""
    scores = {name: found[cases] for name, found in redrawn.scores.items()}
    right = {
        attribute: {
            RANDOM: random_hit_at_1(hits[cases], seed=seed),
            **{name: hit_at_1(hits[cases], found) for name, found in scores.items()},
            ORACLE: oracle_hit_at_1(hits[cases]),
        }
        for attribute, hits in redrawn.hits.items()
    }
    closeness = {
        measure: {
            RANDOM: mean_interval(found[cases].mean(axis=1), seed=seed),
            ranker: mean_interval(_first(found[cases], scores[ranker]), seed=seed),
            **{
                name: mean_interval(values[cases & ~np.isnan(values)], seed=seed)
                for name, values in redrawn.yardsticks[measure].items()
                if (cases & ~np.isnan(values)).any()
            },
        }
        for measure, found in redrawn.closeness.items()
    }
    return GroupRates(cases=int(cases.sum()), right=right, closeness=closeness)


def _first(values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The value of each case's candidate with the highest score, shape (s)."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :1]  # s 1, as dalle.rerank.rank
    return np.take_along_axis(values, best, axis=1)[:, 0]
