"""Stopping politely: the first Ctrl-C or SIGTERM lets the step finish and the state be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from dalle.train.ranks import Ranks


class StopRequest:
    """While entered, SIGINT and SIGTERM only leave a note; the loop decides when to stop.

    Further signals change nothing, so a second Ctrl-C cannot cut a checkpoint in half. Outside the
    main thread, where handlers cannot be set, it never requests anything.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.stopped_by = 0
        self.previous: dict[int, Any] = {}

    def agreed(self, ranks: Ranks) -> bool:
        """Whether a signal came to any process of a run, so that all stop after the same step."""
        self.stopped_by = max(ranks.gather(self.signal or 0))
        return self.stopped_by > 0

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal that was agreed on, as shells report it; 0 if none was.

        That is 130 for Ctrl-C and 143 for SIGTERM.
        """
        return 128 + self.stopped_by if self.stopped_by else 0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = self.signal or number


def ignore_signals(_worker: int) -> None:
    """For data-loading processes, which end when the training does.

    Ctrl-C, `timeout` and job schedulers signal the whole group, and the step that is to be finished
    and saved may still wait for a batch.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
