"""The training samples of a run, step after step, and what happens when a loading process dies."""

from __future__ import annotations

import logging
import math
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch.utils.data import DataLoader, Dataset

from dalle.config import LoopConfig
from dalle.data.order import Draw, StepBatches
from dalle.device import choose_device
from dalle.errors import DalleError, DataError, TrainingError
from dalle.seeds import generator
from dalle.train.ranks import LOADER_DEATH
from dalle.train.signals import ignore_signals
from dalle.train.task import Batch, Task

log = logging.getLogger(__name__)


def step_batches(task: Task, loop: LoopConfig, *, start: int, share: range) -> Iterator[Batch]:
    """Micro-batches of steps `start` to the last one, as a pure function of the seed.

    Args:
        task: Whose samples.
        loop: How many make a step.
        start: First step.
        share: Which of each step's micro-batches.
    """
    order = StepBatches(
        size=len(task.dataset()),  # type: ignore[arg-type]  # torch's Dataset declares no __len__
        microbatch=loop.batch // loop.accumulate,
        accumulate=loop.accumulate,
        seed=loop.seed,
        start=start,
        stop=loop.steps,
        share=share,
    )
    loader = DataLoader(
        MicroBatches(task),
        batch_size=None,
        sampler=order,
        num_workers=loop.workers,
        worker_init_fn=ignore_signals,
        pin_memory=choose_device(loop.device).type == "cuda",
        # A generator of its own keeps the loader from drawing on the global stream.
        generator=generator(loop.seed, "loader"),
    )
    return fetched(loader, loop)


class MicroBatches(Dataset[Batch | DalleError]):
    """A task's samples by the micro-batch, or the error that stood in its way.

    The error is handed over rather than raised, since what a loading process raises arrives as the
    text of its trace.
    """

    def __init__(self, task: Task) -> None:
        self.samples = task.dataset()
        self.collate = task.collate

    def __getitem__(self, draws: Sequence[Draw]) -> Batch | DalleError:
        try:
            return self.collate([self.samples[draw] for draw in draws])
        except DalleError as err:
            return err


def fetched(batches: Iterable[Batch | DalleError], loop: LoopConfig) -> Iterator[Batch]:
    """The batches of a loader.

    Raises:
        DalleError: A sample could not be loaded, and is no mere fault to count.
        TrainingError: A process died whose batch was announced already, but not yet handed over.
    """
    try:
        for batch in batches:
            if isinstance(batch, DalleError):
                raise batch
            yield batch
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
    others = set(multiprocessing.active_children())
    try:
        yield
    except BaseException as err:
        # Those that are left ignore the signals by which Python ends them, and would be waited for.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        if not (isinstance(err, RuntimeError) and str(err).startswith(LOADER_DEATH)):
            raise
        raise _died(loop, str(err)) from err


class SampleCount:
    """Samples read so far, and how many of them were unreadable.

    Args:
        max_bad_fraction: Part of all that may be.
    """

    def __init__(self, max_bad_fraction: float) -> None:
        self.max_bad_fraction = max_bad_fraction
        self.seen = 0
        self.bad = 0
        self._named: set[str] = set()

    def add(self, good: int, faults: Sequence[tuple[str, str]]) -> None:
        """Count a step's samples, and name those that could not be read, by key and reason, once.

        Every epoch meets them again.

        Raises:
            DataError: They are too many by now.
        """
        self.seen += good + len(faults)
        self.bad += len(faults)
        for key, reason in faults:
            if key not in self._named:
                log.warning("skipped %s: %s", key, reason)
                self._named.add(key)
        if faults and too_many_bad(self.bad, self.seen, self.max_bad_fraction):
            key, reason = faults[-1]
            raise DataError(
                f"{self.bad} of the {self.seen} samples read so far were unreadable, more than "
                f"max_bad_fraction ({self.max_bad_fraction}) allows; the last was {key}: {reason}. "
                "Mend the data, or raise max_bad_fraction"
            )


def too_many_bad(bad: int, seen: int, allowed: float) -> bool:
    """Whether `bad` of `seen` samples are more than chance explains where `allowed` of all are.

    The first batches of a set with few bad samples may happen to hold several of them. So that no
    run ends for that, four standard deviations and four samples are granted on top, which matter
    less and less as samples are read. Where none are allowed, the first one is too many.
    """
    expected = allowed * seen
    grace = 4 * math.sqrt(expected) + 4 if allowed > 0 else 0
    return bad > expected + grace


def _died(loop: LoopConfig, found: str) -> TrainingError:
    return TrainingError(
        f"a process that loads data died: {found.strip().rstrip('.')}; if memory ran out, lower "
        f"loop.workers (now {loop.workers}) and resume from the newest checkpoint"
    )
