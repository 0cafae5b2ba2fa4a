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
"""The depth that does best on training pictures, which may differ from fold to fold."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What classifiers that learnt from some things say of pictures of others.

    Attributes:
        labels: Classes of the test pictures, shape (b).
        units: What they are views of, shape (b).
        right: By kind of features, whether each test picture is classified right, shape (b).
        few: By kind of features and number of labels, the same as a share of repeats.
        validation: Accuracy by depth on training pictures, each while it was set aside.
        best_layer: The depth that is best there; test pictures have no say in it.
    """

    labels: np.ndarray
    units: np.ndarray
    right: dict[str, np.ndarray]
    few: dict[str, dict[int, np.ndarray]]
    validation: tuple[float, ...]
    best_layer: int


@dataclass(frozen=True, kw_only=True)
class ProbeFindings:
    """What linear classifiers on a model's features reach; rates are balanced over classes."""

    classes: tuple[str, ...]
    folds: int
    """How often other things were tested on, never the same twice; rates are over all of them."""
    labels: int
    """Training pictures of each class behind `layers` and `baselines`."""
    test_pictures: int
    layers: tuple[Rate, ...]
    """Accuracy by depth; depth 0 is the embedding, the last the final states."""
    validation: tuple[float, ...]
    """Accuracy by depth on training pictures, each while it was set aside; means over folds."""
    best_layers: tuple[int, ...]
    """The depth that is best there, fold by fold."""
    best: Rate
    """Accuracy of those."""
    baselines: dict[str, Rate]
    """Accuracy without the transformer."""
    gain: Rate
    """Accuracy of the best layers less that of raw pixels, on the same pictures."""
    by_class: dict[str, Rate]
    """Accuracy of the best layers on each class."""
    low_data: dict[str, dict[int, Rate]]
    """By kind of features, by training pictures of each class."""


def probe_fold(
    split: LabelledSplit,
    *,
    train: Features,
    test: Features,
    labels: Sequence[int],
    repeats: int,
    seed: int,
) -> Fold:
    """Fit and test classifiers on every kind of features.

    Args:
        split: The pictures' classes.
        train: Features of `split.train`.
        test: Features of `split.test`.
        labels: Training pictures of each class, rising; numbers that a class does not have are
            left out, with a warning.
        repeats: Choices of fewer labels whose accuracies are averaged.
        seed: Of all choices.
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
    best_layer = int(np.argmax(validation))
    best = f"layer {best_layer}"
    kinds = {BEST_LAYER: best, **{name: name for name in train.baselines}}
    return Fold(
        labels=split.test.labels,
        units=split.test.units,
        right={**right, BEST_LAYER: right[best]},
        few={
            title: {
                count: right[name]
                if count == counts[-1]
                else probing.right(name, count, repeats=repeats)
                for count in counts
            }
            for title, name in kinds.items()
        },
        validation=validation,
        best_layer=best_layer,
    )


def pooled(folds: Sequence[Fold], classes: tuple[str, ...], *, seed: int) -> ProbeFindings:
    """What the folds say together.

    Args:
        folds: Of the same classes, with different things to test on.
        classes: Their names.
        seed: Of the intervals' resampling.
    """
    labels = np.concatenate([fold.labels for fold in folds])  # b
    units = np.concatenate([fold.units for fold in folds])

    def rate(values: np.ndarray, chosen: np.ndarray | None = None) -> Rate:
        rows = slice(None) if chosen is None else chosen
        return balanced_rate(values[rows], labels[rows], units[rows], seed=seed)

    right = {name: np.concatenate([fold.right[name] for fold in folds]) for name in folds[0].right}
    depths = len(folds[0].validation)
    baselines = [name for name in folds[0].few if name != BEST_LAYER]
    counts = list(folds[0].few[BEST_LAYER])
    return ProbeFindings(
        classes=classes,
        folds=len(folds),
        labels=counts[-1],
        test_pictures=len(labels),
        layers=tuple(rate(right[f"layer {depth}"]) for depth in range(depths)),
        validation=tuple(np.mean([fold.validation for fold in folds], axis=0).tolist()),
        best_layers=tuple(fold.best_layer for fold in folds),
        best=rate(right[BEST_LAYER]),
        baselines={name: rate(right[name]) for name in baselines},
        gain=rate(right[BEST_LAYER] - right[PIXELS]),
        by_class={
            name: rate(right[BEST_LAYER], labels == label) for label, name in enumerate(classes)
        },
        low_data={
            name: {
                count: rate(np.concatenate([fold.few[name][count] for fold in folds]))
                for count in counts
            }
            for name in (BEST_LAYER, *baselines)
        },
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
