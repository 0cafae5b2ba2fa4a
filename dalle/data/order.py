"""Which sample comes when: a pure function of (seed, position), so resuming costs nothing.

Sample number g of a run is item `permutation(seed, epoch)[g mod size]` of epoch `g // size`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch

from dalle.seeds import generator

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One sample to load: which item, and the epoch that its augmentation is seeded with."""

    index: int
    epoch: int


class StepBatches:
    """The micro-batches of steps `start` to `stop`, as a batch sampler for torch's DataLoader."""

    def __init__(
        self,
        *,
        size: int,
        microbatch: int,
        accumulate: int,
        seed: int,
        start: int,
        stop: int,
        share: range | None = None,
    ) -> None:
        """Plan the draws.

        Args:
            size: Samples in the set.
            microbatch: Samples drawn at a time.
            accumulate: Micro-batches per step.
            seed: Seed of every epoch's permutation.
            start: First step.
            stop: Step after the last one.
            share: Which of a step's micro-batches to draw; None draws all of them.

        Raises:
            ValueError: The set is empty.
        """
        if size < 1:
            raise ValueError(f"cannot draw batches from {size} samples")
        self.size = size
        self.microbatch = microbatch
        self.seed = seed
        self.steps = range(start, stop)
        self.accumulate = accumulate
        self.share = range(accumulate) if share is None else share

    def __len__(self) -> int:
        return len(self.steps) * len(self.share)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = -1, torch.empty(0)
        numbers = (step * self.accumulate + micro for step in self.steps for micro in self.share)
        for number in numbers:
            draws = []
            for position in range(number * self.microbatch, (number + 1) * self.microbatch):
                if position // self.size != epoch:
                    epoch = position // self.size
                    order = torch.randperm(
                        self.size, generator=generator(self.seed, "order", epoch)
                    )
                draws.append(Draw(index=int(order[position % self.size]), epoch=epoch))
            yield draws


def in_groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`, the last one shorter if they do not come out even."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def until_they_fail(items: Iterable[Item], failed: list[Exception]) -> Iterator[Item]:
    """`items`, of which an error is not raised but put into `failed`, to be raised later."""
    try:
        yield from items
    except Exception as err:  # noqa: BLE001 - whatever it is
        failed.append(err)
