"""Rates of redrawn cases, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dalle.evaluate.estimators import share
from dalle.evaluate.transforms import (
    MEASURES,
    ORACLE,
    OTHER_SUBJECT,
    RANDOM,
    RECONSTRUCTION,
    SEEN,
    TRUTH,
    ZERO_SHOT,
    GroupRates,
    Redrawn,
    judged_right,
    summarise,
)

HITS = np.array([[True, False], [False, True], [False, False]])
SCORES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.4]])


@pytest.fixture
def redrawn() -> Redrawn:
    """Two sketches and one drawing in green, which was never shown in panels; two candidates."""
    distances = np.array([[0.1, 0.3], [0.5, 0.7], [0.2, 0.6]])
    yardsticks = {
        RECONSTRUCTION: np.array([0.05, 0.15, 0.2]),
        OTHER_SUBJECT: np.array([1, 3, np.nan]),
    }
    return Redrawn(
        looks=("sketch", "sketch", "colored green"),
        zero_shot=np.array([False, False, True]),
        hits={"subject": HITS, "look": np.ones_like(HITS), "both": HITS},
        closeness=dict.fromkeys(MEASURES, distances),
        yardsticks=dict.fromkeys(MEASURES, yardsticks),
        scores={"likelihood": SCORES, "clip": -SCORES},
        truths={TRUTH: np.full(3, True), RECONSTRUCTION: np.array([True, True, False])},
    )


@pytest.fixture
def groups(redrawn: Redrawn) -> dict[str, GroupRates]:
    return summarise(redrawn, ranker="clip", seed=0)["groups"]


def test_who_chooses_decides_what_is_right(groups: dict[str, GroupRates]) -> None:
    seen = groups[SEEN].right["both"]
    assert groups[SEEN].cases == 2
    assert seen[RANDOM].rate == 0.5
    assert seen["likelihood"] == share([True, False])
    assert seen["clip"] == share([False, True])
    assert seen[ORACLE] == share([True, True])
    assert groups[SEEN].right["look"][RANDOM].rate == 1


def test_the_unseen_transform_stands_apart(groups: dict[str, GroupRates]) -> None:
    assert groups[ZERO_SHOT].cases == 1
    assert groups[ZERO_SHOT].right["both"][ORACLE] == share([False])
    assert groups[ZERO_SHOT].right["look"]["clip"] == share([True])


def test_closeness_is_of_a_random_candidate_and_of_the_rankers_first(
    groups: dict[str, GroupRates],
) -> None:
    found = groups[SEEN].closeness["edge distance"]
    assert found[RANDOM].rate == pytest.approx((0.2 + 0.6) / 2)
    assert found["clip"].rate == pytest.approx((0.3 + 0.7) / 2)
    assert found[RECONSTRUCTION].rate == pytest.approx(0.1)
    assert found[OTHER_SUBJECT].rate == pytest.approx(2)
    # The only case of its look has no other subject to be compared with.
    assert OTHER_SUBJECT not in groups[ZERO_SHOT].closeness["edge distance"]


def test_every_look_has_its_own_rates(redrawn: Redrawn) -> None:
    looks = summarise(redrawn, ranker="clip", seed=0)["looks"]
    assert {name: group.cases for name, group in looks.items()} == {"sketch": 2, "colored green": 1}


def test_a_group_without_cases_is_left_out(redrawn: Redrawn) -> None:
    found = summarise(replace(redrawn, zero_shot=np.full(3, False)), ranker="clip", seed=0)
    assert list(found["groups"]) == [SEEN]


def test_the_judge_is_measured_on_what_is_true(redrawn: Redrawn) -> None:
    assert judged_right(redrawn) == {
        TRUTH: share([True] * 3),
        RECONSTRUCTION: share([True, True, False]),
    }
