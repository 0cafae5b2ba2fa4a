"""Random choices that are the same on every machine and Python version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Choices made from `random.Random.random` alone, whose stream Python promises never to change.

    Args:
        seed: Text that decides every choice.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, each as likely as the others."""
        return options[int(self._random() * len(options))]

    def weigh(self, options: Sequence[tuple[float, T]]) -> T:
        """One of `options`, each a weight and a value; weights need not add up to 1."""
        left = self._random() * sum(weight for weight, _ in options)
        for weight, value in options:
            left -= weight
            if left < 0:
                return value
        return options[-1][1]
