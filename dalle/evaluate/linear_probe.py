"""Linear classifiers on frozen features, and how often they are right.

Axes: b pictures (of training or test), d feature values, r draws of a bootstrap.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from dalle.errors import DalleError
from dalle.evaluate.estimators import Rate
from dalle.seeds import derive_seed

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse weights of the penalty that are tried, as scikit-learn's `C`."""
FOLDS = 5
"""Parts of the training units, each of which is set aside once while a strength is chosen."""
MAX_ITERATIONS = 400
DRAWS = 2000


def require_sklearn() -> None:
    """Nothing, if classifiers can be fitted; to be asked before work that they are fitted on.

    Raises:
        DalleError: scikit-learn is not installed.
    """
    try:
        import sklearn.linear_model  # noqa: F401 - asks only whether it is there
    except ImportError as err:
        raise DalleError("a probe needs scikit-learn; pip install 'dalle-studio[eval]'") from err


class Standardised:
    """Features brought to mean 0 and deviation 1, in no more dimensions than there are pictures.

    A penalised linear classifier lies in the span of its training pictures, so that turning them
    into that span changes no prediction; raw pixels become a quarter as long.

    Args:
        train: Training features, shape (b, d).
    """

    def __init__(self, train: np.ndarray) -> None:
        self._mean = train.mean(axis=0)
        deviation = train.std(axis=0)
        self._scale = np.where(deviation > 0, deviation, 1.0)
        scaled = (train - self._mean) / self._scale  # b d
        self._basis: np.ndarray | None = None
        if scaled.shape[1] > scaled.shape[0]:
            squares, vectors = np.linalg.eigh((scaled @ scaled.T).astype(np.float64))
            kept = squares > squares[-1] * 1e-7  # what is smaller is rounding
            lengths = np.sqrt(squares[kept])
            self._basis = scaled.T @ (vectors[:, kept] / lengths).astype(scaled.dtype)  # d b
        self.train = self._turned(scaled)
        """The training features, shape (b, at most b)."""

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Other features, in the same dimensions."""
        return self._turned((features - self._mean) / self._scale)

    def _turned(self, scaled: np.ndarray) -> np.ndarray:
        return scaled if self._basis is None else scaled @ self._basis


def fitted(features: np.ndarray, labels: np.ndarray, *, strength: float) -> Any:
    """A logistic regression of scikit-learn's on standardised features, shape (b, d)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # A few more iterations change no figure of the report.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(features, labels)


def are_right(
    train: np.ndarray,
    labels: np.ndarray,
    *,
    test: np.ndarray,
    test_labels: np.ndarray,
    strength: float,
) -> np.ndarray:
    """Which test pictures a probe of the training pictures classifies right, shape (b), bool."""
    standard = Standardised(train)
    found = fitted(standard.train, labels, strength=strength).predict(standard(test))
    return np.asarray(found == test_labels)


def choose_strength(
    features: np.ndarray, labels: np.ndarray, *, units: np.ndarray, seed: int
) -> tuple[float, float]:
    """The strength that does best on training units set aside in turn, and its accuracy there.

    Args:
        features: Shape (b, d).
        labels: Shape (b).
        units: What each picture is a view of, shape (b); none is on both sides.
        seed: Of the order in which units are set aside.
    """
    folds = _folds(labels, units, seed=seed)  # b
    right = np.zeros((len(STRENGTHS), len(labels)), dtype=bool)
    for fold in np.unique(folds):
        aside = folds == fold  # b
        standard = Standardised(features[~aside])
        held = standard(features[aside])
        for number, strength in enumerate(STRENGTHS):
            model = fitted(standard.train, labels[~aside], strength=strength)
            right[number, aside] = model.predict(held) == labels[aside]
    accuracies = [_balanced(each, labels, units) for each in right]
    best = int(np.argmax(accuracies))
    return STRENGTHS[best], accuracies[best]


def _folds(labels: np.ndarray, units: np.ndarray, *, seed: int) -> np.ndarray:
    """With which fold each training picture is set aside; a class's units are dealt out in turn."""
    rng = np.random.default_rng(derive_seed(seed, "probe", "validation"))
    folds = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        for position, unit in enumerate(rng.permutation(np.unique(units[labels == label]))):
            folds[units == unit] = position % FOLDS
    return folds


def few_labels(labels: np.ndarray, count: int, *, seed: int, draw: int) -> np.ndarray:
    """Indices of `count` training pictures of each class, chosen at random.

    Args:
        labels: Shape (b).
        count: Pictures of each class, at most as many as there are.
        seed: Of the choice.
        draw: Which choice, from 0.
    """
    rng = np.random.default_rng(derive_seed(seed, "probe", "labels", count, draw))
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:count] for label in np.unique(labels)
    ]
    return np.concatenate(chosen)


def balanced_rate(values: np.ndarray, labels: np.ndarray, units: np.ndarray, *, seed: int) -> Rate:
    """The mean over classes of means over their units, with a bootstrap interval over units.

    Pictures of one unit are alike, so units are resampled, within each class.

    Args:
        values: One per test picture, shape (b): right or wrong, a share, or a difference.
        labels: Classes, shape (b).
        units: Shape (b).
        seed: Of the resampling.
    """
    means = _unit_means(values, labels, units)
    rng = np.random.default_rng(derive_seed(seed, "probe", "interval"))
    drawn = np.mean(
        [found[rng.integers(len(found), size=(DRAWS, len(found)))].mean(axis=1) for found in means],
        axis=0,
    )  # r
    rate = float(np.mean([found.mean() for found in means]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Rate(
        rate=rate,
        low=min(rate, float(low)),
        high=max(rate, float(high)),
        n=sum(map(len, means)),
    )


def _balanced(values: np.ndarray, labels: np.ndarray, units: np.ndarray) -> float:
    return float(np.mean([found.mean() for found in _unit_means(values, labels, units)]))


def _unit_means(values: np.ndarray, labels: np.ndarray, units: np.ndarray) -> Sequence[np.ndarray]:
    """For each class, the mean value of each of its units."""
    return [
        np.array([values[units == unit].mean() for unit in np.unique(units[labels == label])])
        for label in np.unique(labels)
    ]
