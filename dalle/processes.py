"""The same work for many tasks, shared out among processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Self, TypeVar

from dalle.errors import DalleError

Task = TypeVar("Task")
Result = TypeVar("Result")

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container's Linux says how many microseconds of each so many it may run."""
TAKEN_AHEAD = 4
"""Tasks per process that are begun before the first of them must be done, so that none is idle."""


class Processes:
    """Processes that wait for work between a `with` and its end, and keep what they cached."""

    def __init__(self, workers: int) -> None:
        """Promise `workers` processes; 0 is one per processor, and one is this process."""
        self.workers = workers or processors()
        # A fresh interpreter per worker: a forked one would inherit whatever threads the caller
        # has. None is started before the first task.
        self._pool = (
            ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"))
            if self.workers > 1
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The result of each task, in order, as soon as it and those before it are there.

        Args:
            work: A function of a module, or a `partial` of one; each process imports it anew.
            tasks: Sent to the processes, so plain data; one should take much longer than to be
                sent. They are taken as they are worked on, a few ahead.

        Raises:
            DalleError: A process was killed.
        """
        if self._pool is None:
            yield from map(work, tasks)
            return
        begun: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                begun.append(self._pool.submit(work, task))
                while begun and (len(begun) >= TAKEN_AHEAD * self.workers or begun[0].done()):
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        except BrokenProcessPool as err:
            raise DalleError(
                f"one of the {self.workers} processes that share out the work was killed, as "
                "happens where memory runs out; ask for fewer with --workers"
            ) from err


def map_in_processes(
    work: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Iterator[Result]:
    """As `Processes.map`, with no more processes than tasks, which end with the last of them."""
    with Processes(min(workers or processors(), len(tasks)) or 1) as processes:
        yield from processes.map(work, tasks)


def processors() -> int:
    """Processors that this process may use, which `taskset` or a container may have made fewer."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    return min(count, _quota() or count)


def _quota() -> int | None:
    """Processors' worth of time that a container is given, at least one; None if not limited."""
    try:
        most, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return max(1, round(int(most) / int(period)))
    except (OSError, ValueError):  # none of Linux's, or "max"
        return None
