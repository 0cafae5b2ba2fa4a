"""The training samples of a run, step after step, and what happens when a loading process dies."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader

from dalle.config import LoopConfig
from dalle.data.order import StepBatches
from dalle.errors import TrainingError
from dalle.seeds import generator
from dalle.train.signals import ignore_interrupts
from dalle.train.task import Batch, Task


def step_batches(task: Task, loop: LoopConfig, *, start: int) -> Iterator[Batch]:
    """The micro-batches of steps `start` to the last one, as a pure function of the seed."""
    dataset = task.dataset()
    order = StepBatches(
        size=len(dataset),  # type: ignore[arg-type]  # torch's Dataset does not declare __len__
        microbatch=loop.batch // loop.accumulate,
        accumulate=loop.accumulate,
        seed=loop.seed,
        start=start,
        stop=loop.steps,
    )
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=task.collate,
        num_workers=loop.workers,
        worker_init_fn=ignore_interrupts,
        # A generator of its own keeps the loader from drawing on the global stream.
        generator=generator(loop.seed, "loader"),
    )
    return fetched(loader, loop)


def fetched(batches: Iterable[Batch], loop: LoopConfig) -> Iterator[Batch]:
    """The batches of a loader.

    Raises:
        TrainingError: A process died whose batch was announced already, but not yet handed over.
    """
    try:
        yield from batches
    except (ConnectionError, EOFError) as err:
        if not loop.workers:
            raise
        # torch's own word of the death says more, and must not meet what is done next: it is still
        # to come, from a signal handler.
        time.sleep(1)
        raise _died(loop, str(err) or "it hung up") from err


@contextmanager
def worker_deaths_explained(loop: LoopConfig) -> Iterator[None]:
    """One line instead of torch's trace when a process that loads data was killed.

    torch raises from a signal handler, and so anywhere, or where the next batch is awaited.

    Raises:
        TrainingError: That happened.
    """
    try:
        yield
    except RuntimeError as err:
        if not str(err).startswith("DataLoader worker (pid"):
            raise
        raise _died(loop, str(err)) from err


def _died(loop: LoopConfig, found: str) -> TrainingError:
    return TrainingError(
        f"a process that loads data died: {found.strip().rstrip('.')}; if memory ran out, lower "
        f"loop.workers (now {loop.workers}) or loop.batch, and resume from the newest checkpoint"
    )
