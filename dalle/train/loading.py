"""The training samples of a run, step after step, and what happens when a loading process dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
    return iter(
        DataLoader(
            dataset,
            batch_sampler=order,
            collate_fn=task.collate,
            num_workers=loop.workers,
            worker_init_fn=ignore_interrupts,
            # A generator of its own keeps the loader from drawing on the global stream.
            generator=generator(loop.seed, "loader"),
        )
    )


@contextmanager
def worker_deaths_explained(loop: LoopConfig) -> Iterator[None]:
    """One line instead of torch's traces when a process that loads data was killed.

    torch notices it anywhere: it raises from a signal handler, or where the next batch is awaited;
    or the batch was announced already, and whoever fetches it finds nobody at the other end.

    Raises:
        TrainingError: That happened.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as err:
        is_torchs = str(err).startswith("DataLoader worker (pid")
        if not (is_torchs or (loop.workers and not isinstance(err, RuntimeError))):
            raise
        if not is_torchs:
            # torch's own word of it is still to come, and must not meet what is done next.
            with suppress(RuntimeError):
                time.sleep(1)
        found = str(err).strip().rstrip(".") or "it hung up"
        raise TrainingError(
            f"a process that loads data died: {found}; if memory ran out, "
            f"lower loop.workers (now {loop.workers}) or loop.batch, and resume from the newest "
            "checkpoint"
        ) from err
