"""Work shared out among processes: in order, with their errors, and none of them for one task."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dalle.errors import DalleError, DataError
from dalle.processes import TAKEN_AHEAD, Processes, map_in_processes, processors


def whose(offset: int, task: int) -> tuple[int, int]:
    """What came of a task, and the process that did it."""
    if task == 13:
        raise DataError("thirteen is unlucky")
    return offset + task, os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_tasks(workers: int) -> None:
    found = list(map_in_processes(partial(whose, 100), range(9), workers=workers))
    assert [number for number, _ in found] == list(range(100, 109))
    assert (os.getpid() in {process for _, process in found}) == (workers == 1)


def test_no_process_is_started_for_one_task_or_none() -> None:
    assert list(map_in_processes(partial(whose, 0), [5], workers=4)) == [(5, os.getpid())]
    assert list(map_in_processes(partial(whose, 0), [], workers=4)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_task_reaches_the_caller(workers: int) -> None:
    results: Iterator[tuple[int, int]] = map_in_processes(
        partial(whose, 0), [12, 13], workers=workers
    )
    assert next(results)[0] == 12
    with pytest.raises(DataError, match="thirteen is unlucky"):
        next(results)


def die(task: int) -> int:
    """As the system ends a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_the_death_of_a_process_ends_in_words() -> None:
    with pytest.raises(DalleError, match=r"2 processes .* was killed.*fewer with --workers"):
        list(map_in_processes(die, range(3), workers=2))


def test_processes_stay_for_the_next_work_and_take_few_tasks_ahead() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for task in range(100, 200):
            taken.append(task)
            yield task

    with Processes(2) as processes:
        results = processes.map(partial(whose, 0), tasks())
        first = [next(results) for _ in range(3)]
        assert [number for number, _ in first] == [100, 101, 102]
        assert len(taken) <= 3 + 2 * TAKEN_AHEAD
        both = {process for _, process in (*first, *results)}
        again = {process for _, process in processes.map(partial(whose, 0), range(12))}
        assert again <= both
        assert len(both) <= 2


def test_processors_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1


@pytest.mark.parametrize(
    ("quota", "count"),
    [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 6), ("900000 100000", 6), ("", 6)],
)
def test_a_containers_share_of_time_counts_as_processors(
    quota: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: under `docker --cpus 2` there was a process for every processor of the machine."""
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("dalle.processes.CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert processors() == count
