"""The queue: with a clock of our own where time matters, with real threads where they do."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dalle.page.admission import Admission, Ticket
from dalle.page.faults import PageFault
from dalle.page.limits import Limits


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admission(clock: Clock | None = None, **limits: int) -> Admission:
    return Admission(Limits(**limits), clock=clock or Clock())


def begin(ticket: Ticket) -> Ticket:
    """Take a turn that has come."""
    assert list(ticket.turns()) == []
    return ticket


def ahead(ticket: Ticket) -> int:
    turns = ticket.turns(every_s=0.001)
    found = next(turns, 0)
    turns.close()
    return found


# ----------------------------------------------------------------------------------- who may enter


def test_jobs_stand_in_line_and_move_up_when_one_leaves() -> None:
    line = admission(running=1, per_client=9)
    first, second, third = (line.enter(name) for name in "abc")
    assert [ahead(ticket) for ticket in (first, second, third)] == [0, 1, 2]
    with first:
        pass
    assert [ahead(ticket) for ticket in (second, third)] == [0, 1]
    with third:  # who gives up in the middle leaves the others their places
        pass
    assert ahead(second) == 0


def test_several_may_draw_at_the_same_time() -> None:
    line = admission(running=2, per_client=9)
    tickets = [line.enter("a") for _ in range(4)]
    assert [ahead(ticket) for ticket in tickets] == [0, 0, 1, 2]


def test_one_client_has_few_jobs_and_others_still_get_in() -> None:
    line = admission(per_client=2, waiting=16)
    mine = [line.enter("me"), line.enter("me")]
    with pytest.raises(PageFault, match="2 jobs of yours are still under way; try again in about"):
        line.enter("me")
    assert ahead(line.enter("you")) == 2
    with mine[0]:
        pass
    line.enter("me")


def test_too_many_that_wait_are_refused_at_once() -> None:
    line = admission(running=1, waiting=3, per_client=1)
    for number in range(4):
        line.enter(f"client {number}")
    with pytest.raises(PageFault, match="too many people are drawing: 3 jobs already waiting; try"):
        line.enter("one more")


def test_a_client_that_begins_too_many_jobs_waits_for_its_bucket() -> None:
    clock = Clock()
    line = admission(clock, jobs_per_minute=3)
    for _ in range(3):
        with line.enter("me"):
            pass
    with pytest.raises(PageFault, match=r"you began 3 jobs within a minute.*again in about 20 s"):
        line.enter("me")
    with line.enter("you"):
        pass
    clock.now += 19
    with pytest.raises(PageFault, match="again in about 1 s"):
        line.enter("me")
    clock.now += 1
    with line.enter("me"):
        pass
    clock.now += 3600
    for _ in range(3):  # a full bucket, and no fuller
        with line.enter("me"):
            pass
    with pytest.raises(PageFault, match="within a minute"):
        line.enter("me")


def test_a_refused_job_costs_nothing() -> None:
    line = admission(jobs_per_minute=2, per_client=1)
    with line.enter("me"):
        for _ in range(50):
            with pytest.raises(PageFault, match="1 job of yours is still under way"):
                line.enter("me")
    with line.enter("me"):
        pass


def test_the_hint_follows_how_long_jobs_take() -> None:
    clock = Clock()
    line = admission(clock, running=1, waiting=1, per_client=1, jobs_per_minute=1000)
    for _ in range(60):
        with begin(line.enter("a")):
            clock.now += 40
    line.enter("a")
    line.enter("b")
    with pytest.raises(PageFault, match="try again in about 40 s"):
        line.enter("c")
    with pytest.raises(PageFault, match="1 job of yours is still under way; try again in about 80"):
        line.enter("b")  # after the one before it, and its own


def test_jobs_that_never_drew_do_not_count_as_quick_ones() -> None:
    line = admission(waiting=1, per_client=1, jobs_per_minute=1000)
    for _ in range(60):
        with line.enter("a"):
            pass
    line.enter("a")
    line.enter("b")
    with pytest.raises(PageFault, match="try again in about 10 s"):
        line.enter("c")


def test_idle_clients_are_forgotten() -> None:
    clock = Clock()
    line = admission(clock, clients=100)
    for number in range(1000):
        with line.enter(f"client {number}"):
            pass
        assert len(line._buckets) <= 100, "however many there are"
    clock.now += 60
    with line.enter("late"):
        pass
    assert list(line._buckets) == ["late"], "a bucket that is full again is the same as none"


def test_a_job_is_stopped_after_its_time() -> None:
    clock = Clock()
    line = Admission(Limits(job_seconds=30), clock=clock)
    with line.enter("me") as ticket, line.enter("you") as waiting:
        begin(ticket)
        clock.now += 30
        ticket.check_time()
        clock.now += 1
        with pytest.raises(PageFault, match="stopped after 30 s, the longest that one may take"):
            ticket.check_time()
        waiting.check_time()  # time in the queue is not time of drawing


# ---------------------------------------------------------------------------------- real threads


def test_of_thirty_clients_at_once_nine_draw_one_after_the_other() -> None:
    line = Admission(Limits(running=1, waiting=8, per_client=1))
    together, start, all_have_come = threading.Lock(), threading.Barrier(30), threading.Event()
    came: list[int] = []

    def draw(number: int) -> str:
        start.wait()
        try:
            ticket = line.enter(f"client {number}")
        except PageFault as fault:
            return str(fault)
        finally:
            came.append(number)
            if len(came) == 30:
                all_have_come.set()
        with ticket:
            assert all_have_come.wait(60), "nobody leaves before the last has come"
            for _ in ticket.turns(every_s=0.05):
                pass
            assert together.acquire(blocking=False), "two draw at the same time"
            time.sleep(0.02)
            together.release()
        return "drawn"

    with ThreadPoolExecutor(30) as pool:
        results = list(pool.map(draw, range(30)))
    refused = [result for result in results if result != "drawn"]
    assert len(refused) == 30 - 9
    assert all("too many people are drawing" in result for result in refused)
    assert line.wait_until_idle(0)


def test_whoever_came_first_is_served_first() -> None:
    line = Admission(Limits(running=1, waiting=16, per_client=1))
    order: list[int] = []

    def draw(number: int, ticket: Ticket) -> None:
        with ticket:
            for _ in ticket.turns():
                pass
            order.append(number)

    first = line.enter("first")
    threads = [
        threading.Thread(target=draw, args=(number, line.enter(str(number)))) for number in range(8)
    ]
    for thread in reversed(threads):
        thread.start()
    with first:
        time.sleep(0.05)
    for thread in threads:
        thread.join(60)
    assert order == list(range(8))


def test_waiting_ends_at_once_when_the_turn_comes() -> None:
    line = Admission(Limits())
    first, second = line.enter("a"), line.enter("b")
    threading.Timer(0.1, first.__exit__, (None, None, None)).start()
    started = time.monotonic()
    assert list(second.turns(every_s=60)) == [1]
    assert time.monotonic() - started < 10


def test_who_waits_hears_of_it_now_and_then() -> None:
    line = Admission(Limits())
    line.enter("a")
    turns = line.enter("b").turns(every_s=0.01)
    assert [next(turns) for _ in range(5)] == [1] * 5


def test_a_closing_page_lets_nobody_in_and_the_drawing_finish() -> None:
    line = Admission(Limits())
    drawing, waiting = line.enter("a"), line.enter("b")
    begin(drawing)
    turns = waiting.turns(every_s=60)
    assert next(turns) == 1
    threading.Timer(0.1, line.close).start()
    with pytest.raises(PageFault, match="the page is closing; try again in a few minutes"):
        next(turns)
    with pytest.raises(PageFault, match="the page is closing"):
        line.enter("c")
    with waiting:
        pass
    assert not line.wait_until_idle(0.01)
    drawing.check_time()
    threading.Timer(0.1, drawing.__exit__, (None, None, None)).start()
    assert line.wait_until_idle(10)


def test_an_error_gives_the_place_back_once() -> None:
    line = admission(per_client=1)
    with pytest.raises(RuntimeError, match="out of memory"), line.enter("me") as ticket:
        raise RuntimeError("out of memory")
    ticket.__exit__(None, None, None)
    with line.enter("me"):
        pass


def test_who_still_prepares_keeps_nobody_waiting_and_then_stands_last() -> None:
    line = Admission(Limits(running=1, waiting=1))
    slow, quick = line.enter("slow"), line.enter("quick")
    with slow.aside():
        assert ahead(quick) == 0
        with pytest.raises(PageFault, match="too many people are drawing"):
            line.enter("one more")  # whoever prepares has a place as well
    assert ahead(slow) == 1
    with quick:
        pass
    assert ahead(slow) == 0
