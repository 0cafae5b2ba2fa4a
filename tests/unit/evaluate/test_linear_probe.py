"""Linear classifiers, checked against scikit-learn's own and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="classifiers, extra `eval`")
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dalle.evaluate.linear_probe import (
    FOLDS,
    STRENGTHS,
    Standardised,
    _folds,
    are_right,
    balanced_rate,
    choose_strength,
    few_labels,
    fitted,
)


def clouds(rng: np.random.Generator, *, each: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping classes."""
    labels = np.repeat(np.arange(3), each)
    centres = np.random.default_rng(9).normal(size=(3, width))
    return rng.normal(size=(3 * each, width)) * 2 + centres[labels], labels


def test_fewer_dimensions_change_no_prediction() -> None:
    """60 pictures span at most 60 of 200 dimensions."""
    rng = np.random.default_rng(0)
    train, labels = clouds(rng, each=20, width=200)
    train[:, 7] = 3.0  # a value that never changes, such as a corner's white
    test, _ = clouds(rng, each=100, width=200)
    standard = Standardised(train)
    assert standard.train.shape[1] <= 60
    ours = fitted(standard.train, labels, strength=0.01).predict_proba(standard(test))
    scaler = StandardScaler().fit(train)
    plain = LogisticRegression(C=0.01, max_iter=5000, tol=1e-8)
    theirs = plain.fit(scaler.transform(train), labels).predict_proba(scaler.transform(test))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_few_dimensions_stay_as_they_are() -> None:
    train, _ = clouds(np.random.default_rng(0), each=20, width=5)
    standard = Standardised(train)
    np.testing.assert_allclose(standard.train, StandardScaler().fit_transform(train))
    np.testing.assert_allclose(standard(train), standard.train)


def test_a_probe_finds_what_is_there_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 100)
    noise = rng.normal(size=(400, 20))
    told = noise.copy()
    told[np.arange(400), labels] += 5
    half = np.arange(400) % 2 == 0
    shares = [
        are_right(
            found[half], labels[half], test=found[~half], test_labels=labels[~half], strength=0.1
        ).mean()
        for found in (told, noise)
    ]
    assert shares[0] > 0.95
    assert shares[1] == pytest.approx(0.25, abs=0.1)


def test_every_unit_is_set_aside_once_and_whole() -> None:
    units = np.repeat(np.arange(30), 4)
    labels = units // 10
    folds = _folds(labels, units, seed=1)
    assert all(len(set(folds[units == unit])) == 1 for unit in range(30))
    for fold in range(FOLDS):
        aside = folds == fold
        assert [len(set(units[aside & (labels == label)])) for label in range(3)] == [2, 2, 2]
    assert (_folds(labels, units, seed=1) == folds).all()
    assert (_folds(labels, units, seed=2) != folds).any()


def test_the_strength_that_does_best_is_chosen() -> None:
    """Many noisy dimensions and few pictures want a strong penalty, a clear one a weak."""
    rng = np.random.default_rng(0)
    train, labels = clouds(rng, each=40, width=100)
    chosen, accuracy = choose_strength(train, labels, units=np.arange(120), seed=0)
    folds = _folds(labels, np.arange(120), seed=0)
    by_hand = {}
    for strength in STRENGTHS:
        right = np.concatenate(
            [
                are_right(
                    train[folds != fold],
                    labels[folds != fold],
                    test=train[folds == fold],
                    test_labels=labels[folds == fold],
                    strength=strength,
                )
                for fold in range(FOLDS)
            ]
        )
        by_hand[strength] = right.mean()  # as many of each class
    assert accuracy == pytest.approx(max(by_hand.values()))
    assert by_hand[chosen] == pytest.approx(accuracy)


def test_few_labels_are_equally_many_of_each_class() -> None:
    labels = np.array([0] * 7 + [1] * 5 + [2] * 9)
    rows = few_labels(labels, 4, seed=0, draw=0)
    assert len(set(rows.tolist())) == 12
    assert np.bincount(labels[rows]).tolist() == [4, 4, 4]
    assert rows.tolist() != few_labels(labels, 4, seed=0, draw=1).tolist()
    assert sorted(few_labels(labels[labels == 1], 5, seed=0, draw=0).tolist()) == list(range(5))


def test_rates_count_units_and_classes_alike() -> None:
    """Class 0: one unit all right, one all wrong. Class 1: one unit, half right."""
    values = np.array([1, 1, 1, 1, 0, 1, 0])
    units = np.array([0, 0, 0, 0, 1, 2, 2])
    labels = np.array([0, 0, 0, 0, 0, 1, 1])
    found = balanced_rate(values, labels, units, seed=0)
    assert found.rate == pytest.approx((0.5 + 0.5) / 2)
    assert found.n == 3
    # Class 1 has one unit and never moves; class 0 draws 0, 1/2 or 1.
    assert (found.low, found.high) == (0.25, 0.75)


def test_the_interval_of_a_rate_narrows_with_units_and_not_with_pictures() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.5
    labels = np.zeros(400, dtype=np.int64)
    wide = balanced_rate(np.repeat(right[:20], 20), labels, np.repeat(np.arange(20), 20), seed=0)
    narrow = balanced_rate(right, labels, np.arange(400), seed=0)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
