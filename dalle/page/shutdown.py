"""The end of the server: nobody is let in any more, those who draw keep what is finished."""

from __future__ import annotations

import threading
from types import FrameType

import uvicorn

from dalle.page.service import Service

DRAIN_SECONDS = 7
"""Time that running jobs have to end with their row."""


class DrainingServer(uvicorn.Server):
    """Uvicorn's server, which waits for running jobs before it goes.

    Args:
        config: What to serve.
        service: Whose jobs to wait for.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._draining = False
        self.failure: BaseException | None = None
        """Why the server ended, if not by a signal."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order at the first signal, at once at the second."""
        self._captured_signals.append(sig)
        if self._draining:
            self.force_exit = self.should_exit = True
            return
        self._draining = True
        threading.Thread(target=self._drain, daemon=True).start()

    def fail(self, failure: BaseException) -> None:
        """End because the model cannot be had; whoever serves raises `failure`."""
        self.failure = failure
        self.should_exit = True

    def _drain(self) -> None:
        self._service.stop_all()
        self._service.admission.wait_until_idle(DRAIN_SECONDS)
        self.should_exit = True
