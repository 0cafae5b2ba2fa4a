"""Stopping politely: the first Ctrl-C or SIGTERM lets the step finish and the state be saved."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from dalle.signals import handling


class StopRequest:
    """While entered, SIGINT and SIGTERM only leave a note; the loop decides when to stop.

    Further signals change nothing, so a second Ctrl-C cannot cut a checkpoint in half. Outside the
    main thread, where handlers cannot be set, it never requests anything.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._handling = ExitStack()

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> StopRequest:
        self._handling.enter_context(handling(self._note, signal.SIGINT, signal.SIGTERM))
        return self

    def __exit__(self, *_: object) -> None:
        self._handling.close()

    def _note(self, number: int, _frame: object) -> None:
        self.signal = self.signal or number


def ignore_signals(_worker: int) -> None:
    """For data-loading processes, which end when the training does.

    Ctrl-C, `timeout` and job schedulers signal the whole group, and the step that is to be finished
    and saved may still wait for a batch.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
