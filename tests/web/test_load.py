"""Many people at once: a bounded queue, fair shares, honest refusals, flat memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dalle.page.limits import Limits
from tests.random_models import save_random_model
from tests.web.serving import RunningPage, call, running_page

CLIENTS = 30
INSIDE = Limits().running + Limits().waiting
MOST = {"caption": "a fox", "candidates": 64, "keep": 1}
"""Takes the model of these tests several times as long as everybody needs to arrive."""
MANY = {"caption": "a fox", "candidates": 32, "keep": 1}
ONE = {"caption": "two apples", "candidates": 1, "keep": 1}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory, needs_gradio: None) -> Iterator[RunningPage]:
    folder = tmp_path_factory.mktemp("busy")
    model = save_random_model(folder / "model", grid=16, width=192, layers=4)
    with running_page(folder, "--model", str(model)) as page:
        page.wait_for_model()
        yield page


def rush(page: RunningPage, subnet: int) -> list[tuple[str, float]]:
    """What everybody is told who comes at once, the first with a long job, and after how long."""

    def ask(number: int) -> tuple[str, float]:
        started = time.monotonic()
        body = ONE if number else MOST
        answer = call(page, "generate", body, client=f"10.0.{subnet}.{number}", seconds=120)
        return answer, time.monotonic() - started

    with ThreadPoolExecutor(CLIENTS) as people:
        return list(people.map(ask, range(CLIENTS)))


def resident_mib(page: RunningPage) -> float:
    """Memory that the server takes up."""
    status = Path(f"/proc/{page.process.pid}/status")
    if not status.exists():
        pytest.skip("this system does not tell how much memory a process takes up")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) / 1024


def test_thirty_at_once_are_served_or_refused_and_memory_stays_flat(busy: RunningPage) -> None:
    for subnet in (0, 1):  # after which everything is loaded that ever will be
        rush(busy, subnet)
    before = resident_mib(busy)
    answers = rush(busy, 2)
    served = [seconds for answer, seconds in answers if "event: complete" in answer]
    refused = [(answer, seconds) for answer, seconds in answers if "event: error" in answer]
    assert len(served) + len(refused) == CLIENTS
    # Whoever comes after the first has left finds a place that was not there before.
    assert INSIDE <= len(served) < CLIENTS
    for answer, seconds in refused:
        assert re.search(
            r"too many people are drawing: \d+ jobs already waiting; try again in about \d+ s",
            answer,
        )
        assert seconds < max(served), "a refusal does not wait for its turn"
    # Sessions are remembered, and the allocator now and then takes more for a thread: a leak would
    # show in every rush.
    once = resident_mib(busy)
    rush(busy, 3)
    assert min(once - before, resident_mib(busy) - once) < 80


def test_a_flood_of_one_takes_no_place_from_another(busy: RunningPage) -> None:
    with ThreadPoolExecutor(9) as people:
        flood = [
            people.submit(call, busy, "generate", MANY, client="10.1.0.1", seconds=120)
            for _ in range(8)
        ]
        other = people.submit(call, busy, "generate", ONE, client="10.1.0.2", seconds=120)
        answers = [job.result() for job in flood]
        assert "event: complete" in other.result()
    refused = [answer for answer in answers if "event: error" in answer]
    assert len(refused) >= len(flood) - 2 * Limits().per_client
    for answer in refused:
        assert re.search(r"\d jobs? of yours (is|are) still under way; try again in", answer)
