"""Signal handlers that hold for as long as a block runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handling(handle: Callable[[int, object], object], *numbers: signal.Signals) -> Iterator[None]:
    """Let `handle` hear of signals; nothing outside the main thread, where Python lets nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
