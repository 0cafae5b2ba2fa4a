"""The protocol of a linear probe: which layer knows most of pictures, and with how few labels.

Axes: b pictures, d feature values.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dalle.console import bar_disabled
from dalle.evaluate.estimators import Rate
from dalle.evaluate.features import PIXELS, Features
from dalle.evaluate.labelled import LabelledPictures, LabelledSplit
from dalle.evaluate.linear_probe import are_right, balanced_rate, choose_strength, few_labels

log = logging.getLogger(__name__)

BEST_LAYER = "best layer"


@dataclass(frozen=True, kw_only=True)
class ProbeFindings:
    """What linear classifiers on a model's features reach; rates are balanced over classes."""

    classes: tuple[str, ...]
    labels: int
    """Training pictures of each class behind `layers` and `baselines`."""
    test_pictures: int
    layers: tuple[Rate, ...]
    """Accuracy by depth; depth 0 is the embedding, the last the final states."""
    validation: tuple[float, ...]
    """Accuracy by depth on training pictures, each while it was set aside."""
    best_layer: int
    """The depth that is best there; test pictures have no say in it."""
    baselines: dict[str, Rate]
    """Accuracy without the transformer."""
    gain: Rate
    """Accuracy of the best layer less that of raw pixels, on the same pictures."""
    by_class: dict[str, Rate]
    """Accuracy of the best layer on each class."""
    low_data: dict[str, dict[int, Rate]]
    """By kind of features, by training pictures of each class."""
    strengths: dict[str, float]
    """What the penalty of each kind of features was chosen to be, as scikit-learn's `C`."""


def probe(
    split: LabelledSplit,
    *,
    train: Features,
    test: Features,
    labels: Sequence[int],
    repeats: int,
    seed: int,
) -> ProbeFindings:
    """Fit and test classifiers on every kind of features.

    Args:
        split: The pictures' classes.
        train: Features of `split.train`.
        test: Features of `split.test`.
        labels: Training pictures of each class, rising; numbers that a class does not have are
            left out, with a warning.
        repeats: Choices of fewer labels whose accuracies are averaged.
        seed: Of all choices and of the intervals' resampling.
    """
    depths = {f"layer {depth}": found for depth, found in enumerate(train.layers)}
    tested = {f"layer {depth}": found for depth, found in enumerate(test.layers)}
    probing = _Probing(split, {**depths, **train.baselines}, {**tested, **test.baselines}, seed)
    counts = _possible(labels, split.train)
    chosen = {
        name: choose_strength(found, split.train.labels, units=split.train.units, seed=seed)
        for name, found in probing.bar("choosing strengths")
    }
    probing.strengths = {name: strength for name, (strength, _) in chosen.items()}
    right = {
        name: probing.right(name, counts[-1], repeats=1)
        for name, _ in probing.bar(f"{counts[-1]} labels")
    }
    validation = tuple(chosen[name][1] for name in depths)
    best = int(np.argmax(validation))
    best_right = right[f"layer {best}"]
    kinds = {BEST_LAYER: f"layer {best}", **{name: name for name in train.baselines}}
    return ProbeFindings(
        classes=split.classes,
        labels=counts[-1],
        test_pictures=len(split.test.labels),
        layers=tuple(probing.rate(right[name]) for name in depths),
        validation=validation,
        best_layer=best,
        baselines={name: probing.rate(right[name]) for name in train.baselines},
        gain=probing.rate(best_right - right[PIXELS]),
        by_class={
            name: probing.rate(best_right, label=label) for label, name in enumerate(split.classes)
        },
        low_data={
            title: {
                count: probing.rate(
                    right[name]
                    if count == counts[-1]
                    else probing.right(name, count, repeats=repeats)
                )
                for count in counts
            }
            for title, name in kinds.items()
        },
        strengths=probing.strengths,
    )


def _possible(labels: Sequence[int], train: LabelledPictures) -> list[int]:
    """The numbers of labels that every class has; the least class's own where none has so many."""
    least = int(np.bincount(train.labels).min())
    possible = [count for count in labels if count <= least]
    if len(possible) < len(labels):
        log.warning(
            "the smallest class has %d pictures to learn from, so %s labels are left out",
            least, ", ".join(str(count) for count in labels if count > least),
        )  # fmt: skip
    return possible if possible and possible[-1] >= least // 2 else [*possible, least]


class _Probing:
    """Features, classes and strengths, by kind of features."""

    def __init__(
        self,
        split: LabelledSplit,
        train: Mapping[str, np.ndarray],
        test: Mapping[str, np.ndarray],
        seed: int,
    ) -> None:
        self._split, self._train, self._test, self._seed = split, train, test, seed
        self.strengths: dict[str, float] = {}

    def bar(self, title: str) -> tqdm[tuple[str, np.ndarray]]:
        """All kinds of training features, counted."""
        return tqdm(
            self._train.items(), unit="probe", desc=title, disable=bar_disabled(), leave=False
        )

    def right(self, name: str, count: int, *, repeats: int) -> np.ndarray:
        """In which share of repeats each test picture is classified right, shape (b), float64."""
        labels = self._split.train.labels
        found = []
        for draw in range(repeats):
            rows = few_labels(labels, count, seed=self._seed, draw=draw)
            found.append(
                are_right(
                    self._train[name][rows],
                    labels[rows],
                    test=self._test[name],
                    test_labels=self._split.test.labels,
                    strength=self.strengths[name],
                )
            )
        return np.asarray(np.mean(found, axis=0, dtype=np.float64))

    def rate(self, values: np.ndarray, *, label: int | None = None) -> Rate:
        """The balanced mean of one value per test picture, of all classes or of one."""
        test = self._split.test
        chosen = np.full(len(values), True) if label is None else test.labels == label
        return balanced_rate(
            values[chosen], test.labels[chosen], test.units[chosen], seed=self._seed
        )
