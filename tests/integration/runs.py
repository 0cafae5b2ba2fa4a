"""Runs as other processes make them, and what they have written."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from dalle.train.metrics import read_metrics

PATIENCE_S = 240
"""How long a command may take to get somewhere; machines may be busy."""


def wait_until(process: subprocess.Popen[str], reached: Callable[[], bool], *, what: str) -> None:
    """Nothing, once a running command got there; `what` says where."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"the run does not reach its {what}"
        time.sleep(0.02)


def comparable_metrics(out: Path) -> list[dict[str, float]]:
    """Every line, without the speed."""
    lines = read_metrics(out / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.endswith("_per_s")} for line in lines]
