"""Numbers of a run: JSON lines always, TensorBoard events on request.

Logging never stops a training: a line that cannot be written is lost with one warning.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalle.errors import DalleError
from dalle.whole_file import write_whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
SKIPPED_FILE = "skipped.jsonl"
EVENTS_FOLDER = "tensorboard"


class MetricsLog:
    """Appends one JSON object per call to `metrics.jsonl` in a run folder.

    Args:
        folder: The run folder.
        tensorboard: Whether to write TensorBoard events too.
        after: Step that the run goes on from; lines past it, left by a run that was cut off, are
            dropped here and from `skipped.jsonl`, since they will be written again.

    Raises:
        DalleError: `tensorboard` is asked for and not installed.
    """

    def __init__(self, folder: Path, *, tensorboard: bool, after: int) -> None:
        self.path = folder / METRICS_FILE
        self.warned = False
        self.events = _event_writer(folder, after) if tensorboard else None
        _forget_from(self.path, after + 1)
        # A skipped step is named by the updates before it, so step `after` is still to come.
        _forget_from(folder / SKIPPED_FILE, after)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` as they were after `step` updates; what is not finite becomes null."""
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **finite}) + "\n")
            if self.events is not None:
                for name, value in values.items():
                    self.events.add_scalar(name, value, step)
        except OSError as err:
            if not self.warned:
                log.warning("metrics are being lost, %s cannot be written: %s", self.path, err)
            self.warned = True

    def close(self) -> None:
        """Put events that are still in memory on disk."""
        if self.events is not None:
            self.events.close()

    def holds_evaluation(self, step: int) -> bool:
        """Whether there is a line of an evaluation after `step` updates."""
        lines = read_metrics(self.path) if self.path.exists() else iter(())
        names = {name for line in lines if line["step"] == step for name in line}
        return any(name.startswith("heldout_") for name in names)


def note_skipped(folder: Path, step: int, reason: str, samples: Sequence[str]) -> None:
    """Append to `skipped.jsonl` in a run folder which samples a step without update had."""
    line = json.dumps({"step": step, "reason": reason, "samples": list(samples)})
    try:
        with (folder / SKIPPED_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as err:
        log.warning("a skipped step could not be noted in %s: %s", folder / SKIPPED_FILE, err)


def _forget_from(path: Path, step: int) -> None:
    """Drop lines of `step` and later ones, and what is no line."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if (found := _parsed(line)) and found["step"] < step]
        write_whole(path, "".join(kept).encode())


class Window:
    """Numbers gathered over the steps since the last log line."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.updates = 0
        self.skipped = 0
        self.steps = 0
        """Steps made in this process; the others count for the means but not for the speed."""
        self.seconds = 0.0
        """What those steps took; evaluations, sheets and checkpoints are no part of the speed."""

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Counts the time of a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def add(self, values: Mapping[str, float]) -> None:
        """Count an update and its numbers."""
        self.steps += 1
        self.updates += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def skip(self) -> None:
        """Count a step without update."""
        self.steps += 1
        self.skipped += 1

    def means(self) -> dict[str, float]:
        """Means over the updates; empty if there were none."""
        return {name: total / self.updates for name, total in self.sums.items()}

    def steps_per_s(self) -> float:
        """Speed of the steps themselves."""
        return self.steps / max(self.seconds, 1e-9)

    def state(self) -> dict[str, Any]:
        """Everything but the speed, as plain JSON values."""
        return {"sums": self.sums, "updates": self.updates, "skipped": self.skipped}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on gathering from what `state` returned in an earlier process."""
        self.sums, self.updates = dict(state["sums"]), state["updates"]
        self.skipped = state["skipped"]


def read_metrics(path: Path) -> Iterator[dict[str, float]]:
    """The lines of a metrics file, without values that were not finite.

    A line that was cut off when the run was killed is left out.

    Raises:
        OSError: The file cannot be read.
    """
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := _parsed(line):
            yield {name: value for name, value in found.items() if value is not None}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "step" in found else None


def _event_writer(folder: Path, after: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as err:
        raise DalleError(
            "loop.tensorboard is on, but TensorBoard is not installed; install the extra `log`"
        ) from err
    return SummaryWriter(str(folder / EVENTS_FOLDER), purge_step=after + 1)
