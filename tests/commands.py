"""Commands in processes of their own, which need not import torch.

They are forked from a process that has imported torch and what Gradio stands on; to import that
takes most commands of a test longer than all else they do. Gradio itself is not among it, since it
reads the environment when it is imported.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

from dalle.cli import main
from tests.paths import ROOT

PATIENCE_S = 240
"""How long something may take to get somewhere; machines may be busy."""

# Elsewhere a process that has imported torch may not be forked, and each imports it.
_FORKING: SpawnContext | ForkServerContext = (
    multiprocessing.get_context("forkserver")
    if sys.platform == "linux"
    else multiprocessing.get_context("spawn")
)
_FORKING.set_forkserver_preload(
    ["dalle.train.runs", "dalle.page.serve", "fastapi", "gradio_client", "uvicorn"]
)


def wait_until(reached: Callable[[], object], *, what: str, seconds: float = PATIENCE_S) -> None:
    """Ask again and again; a test that waits in vain says for `what`."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.02)


class Command:
    """A running `dalle`, in a session and process group of its own, killed when the block ends.

    Args:
        words: Its arguments.
        log: What it writes goes to this file with the suffixes `.out` and `.err`.
        folder: Where it is started; the clone, unless said.
        environment: Variables that differ from those of the tests; None takes one away.
        program: Stands in for `dalle`: a function of a module, which gives a status.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        *,
        folder: Path = ROOT,
        environment: Mapping[str, str | None] | None = None,
        program: Callable[[Sequence[str]], int | None] = main,
    ) -> None:
        self._files = log.with_suffix(".out"), log.with_suffix(".err")
        self._process = _FORKING.Process(
            target=_run, args=(program, list(words), self._files, folder, dict(environment or {}))
        )
        self._process.start()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *error: object) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.join()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def stdout(self) -> str:
        return _text(self._files[0])

    @property
    def stderr(self) -> str:
        return _text(self._files[1])

    @property
    def status(self) -> int | None:
        """What it has ended with, minus the number of a signal that killed it; None: it runs."""
        return self._process.exitcode

    def ended(self, seconds: float = PATIENCE_S) -> int:
        """Its status, once it has ended."""
        self._process.join(seconds)
        assert self.status is not None, f"it runs longer than {seconds:g} s\n{self.stderr}"
        return self.status

    def wait_until(self, reached: Callable[[], object], *, what: str) -> None:
        """Nothing, once it got there; `what` says where."""

        def there() -> bool:
            if reached():
                return True
            assert self.status is None, f"it ended before its {what}\n{self.stderr}"
            return False

        wait_until(there, what=what)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _run(
    program: Callable[[Sequence[str]], int | None],
    words: list[str],
    files: tuple[Path, Path],
    folder: Path,
    environment: dict[str, str | None],
) -> None:
    os.setsid()
    for descriptor, file in enumerate(files, 1):
        with file.open("wb") as log:
            os.dup2(log.fileno(), descriptor)
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    tempfile.tempdir = None  # which TMPDIR says anew
    os.chdir(folder)
    sys.exit(program(words))
