"""The same work for many tasks, shared out among processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_in_processes(
    work: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Iterator[Result]:
    """The result of each task, in order, as soon as it and those before it are there.

    Args:
        work: A function of a module, or a `partial` of one; each process imports it anew.
        tasks: Sent to the processes, so plain data; one should take much longer than to be sent.
        workers: Processes, never more than tasks; 0 is one per processor, and one is this process.
    """
    workers = min(workers or processors(), len(tasks))
    if workers <= 1:
        yield from map(work, tasks)
        return
    # A fresh interpreter per worker: a forked one would inherit whatever threads the caller has.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(work, tasks)
        finally:
            pool.shutdown(cancel_futures=True)


def processors() -> int:
    """Processors that this process may use, which a container or `taskset` may have made fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
