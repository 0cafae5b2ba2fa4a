"""Who may draw now: a bounded queue, a fair share for every client, and honest refusals."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from dalle.page.faults import PageFault
from dalle.page.limits import Limits

_FIRST_GUESS_S = 10.0
"""How long a job takes, as long as none has ended."""
_NEWS = 0.2
"""How much the latest job counts in the running mean of their seconds."""


@dataclass
class _Bucket:
    """How many jobs a client may begin at once; it fills up again with time."""

    jobs: float
    seen: float
    """When `jobs` was counted."""


class Admission:
    """Lets jobs in, first come, first served; thread-safe, one for all clients.

    Example:
        >>> with admission.enter(client) as ticket:   # refused at once, or let in
        ...     for ahead in ticket.turns():          # until it is this job's turn
        ...         yield f"{ahead} before you"
        ...     for frame in model.stream(caption):
        ...         ticket.check_time()
        ...         yield frame

    Args:
        limits: The page's limits.
        clock: Seconds that only ever grow.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition()
        self._tickets: list[Ticket] = []  # in the order of their coming; the first ones draw
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()  # the longest unseen first
        self._mean_s = _FIRST_GUESS_S
        self._is_closed = False

    def enter(self, client: str) -> Ticket:
        """A place in the queue for a job of `client`; leaving the `with` block gives it back.

        Args:
            client: Who asks, such as the address of the connection. Not an id that the client
                chooses itself.

        Raises:
            PageFault: The client has too many jobs, or began too many lately; too many jobs wait;
                or the page is closing. It says in about how many seconds to try again.
        """
        with self._changed:
            if self._is_closed:
                raise _closing()
            self._check_places(client)
            self._take_from_bucket(client)
            ticket = Ticket(self, client)
            self._tickets.append(ticket)
            return ticket

    def close(self) -> None:
        """Refuse every job from now on; those that wait are refused, those that draw go on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait for the jobs that are in; whether all have left within `timeout_s` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._tickets, timeout_s)

    # ----------------------------------------------------------------- inner workings, lock held

    def _check_places(self, client: str) -> None:
        limits, inside = self._limits, len(self._tickets)
        places = [place for place, one in enumerate(self._tickets) if one.client == client]
        if len(places) >= limits.per_client:
            raise PageFault(
                f"{_count(len(places), 'job')} of yours "
                f"{'is' if len(places) == 1 else 'are'} still under way; {self._hint(places[0])}"
            )
        if inside >= limits.running + limits.waiting:
            raise PageFault(
                f"too many people are drawing: {_count(inside - limits.running, 'job')} already "
                f"waiting; {self._hint(0)}"
            )

    def _hint(self, place: int) -> str:
        """When the job at `place` of the queue will have left, in words."""
        rounds = place // self._limits.running + 1
        return f"try again in about {math.ceil(rounds * self._mean_s)} s"

    def _take_from_bucket(self, client: str) -> None:
        now, full = self._clock(), float(self._limits.jobs_per_minute)
        self._forget(now)
        bucket = self._buckets.setdefault(client, _Bucket(full, now))
        # Rounded, or sums of parts of a second would fall short of a whole job.
        bucket.jobs = min(full, round(bucket.jobs + (now - bucket.seen) * full / 60, 6))
        bucket.seen = now
        self._buckets.move_to_end(client)
        if bucket.jobs < 1:
            wait_s = math.ceil(round((1 - bucket.jobs) * 60 / full, 3))
            raise PageFault(
                f"you began {self._limits.jobs_per_minute} jobs within a minute, the most that one "
                f"person may; try again in about {wait_s} s"
            )
        bucket.jobs -= 1

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full again, and the longest unseen ones of too many."""
        while self._buckets:
            client, oldest = next(iter(self._buckets.items()))
            # A minute fills every bucket; a full one is the same as none.
            if now - oldest.seen < 60 and len(self._buckets) < self._limits.clients:
                return
            del self._buckets[client]

    # -------------------------------------------------------------------- what tickets may call

    def _ahead(self, ticket: Ticket) -> int:
        """How many jobs leave before it is this one's turn; 0 is now."""
        line = [one for one in self._tickets if not one._is_aside]
        return max(0, line.index(ticket) - self._limits.running + 1)

    def _leave(self, ticket: Ticket, seconds: float | None) -> None:
        """Give back a place; `seconds` is how long the job drew, None if its turn never came."""
        with self._changed:
            if ticket not in self._tickets:
                return
            self._tickets.remove(ticket)
            if seconds is not None:
                self._mean_s += _NEWS * (seconds - self._mean_s)
            self._changed.notify_all()


class Ticket:
    """A job's place in the queue, from `Admission.enter`."""

    def __init__(self, admission: Admission, client: str) -> None:
        self.client = client
        """Whose job it is."""
        self._admission = admission
        self._began: float | None = None
        self._is_aside = False

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Out of the line while the block runs, and at its end from then on.

        For what a job does before it needs its turn, such as reading pictures: it counts among the
        jobs that are let in, and keeps nobody waiting.
        """
        admission = self._admission
        with admission._changed:
            self._is_aside = True
            admission._changed.notify_all()
        try:
            yield
        finally:
            with admission._changed:
                self._is_aside = False
                if self in admission._tickets:
                    admission._tickets.remove(self)
                    admission._tickets.append(self)

    def turns(self, *, every_s: float = 1.0) -> Generator[int, None, None]:
        """How many jobs are before this one, each time that changes and every `every_s` seconds.

        Ends when it is this job's turn; without waiting, and without an item, if that is now.

        Raises:
            PageFault: The page is closing.
        """
        admission = self._admission
        while True:
            with admission._changed:
                if admission._is_closed:
                    raise _closing()
                ahead = admission._ahead(self)
                if ahead == 0:
                    self._began = admission._clock()
                    return
            yield ahead
            with admission._changed:
                admission._changed.wait_for(partial(self._has_news, since=ahead), every_s)

    def _has_news(self, *, since: int) -> bool:
        return self._admission._is_closed or self._admission._ahead(self) != since

    def check_time(self) -> None:
        """Refuse to go on if the job has drawn for longer than a job may.

        Raises:
            PageFault: It has; say so to the person, and keep what is finished.
        """
        seconds, most = self._seconds(), self._admission._limits.job_seconds
        if seconds is not None and seconds > most:
            raise PageFault(
                f"The job was stopped after {most:g} s, the longest that one may take; draw fewer "
                "pictures at once."
            )

    def _seconds(self) -> float | None:
        """How long the job has been drawing; None if its turn has not come."""
        return None if self._began is None else self._admission._clock() - self._began

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission._leave(self, self._seconds())


def _closing() -> PageFault:
    return PageFault("the page is closing; try again in a few minutes")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
