"""Numbers of a run: JSON lines always, TensorBoard events on request.

Logging never stops a training: a line that cannot be written is lost with one warning.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dalle.errors import DalleError

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends one JSON object per call to `metrics.jsonl` in a run folder."""

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        self.path = folder / METRICS_FILE
        self.warned = False
        self.events: Any = _event_writer(folder) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` as they were after `step` updates."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            if self.events is not None:
                for name, value in values.items():
                    self.events.add_scalar(name, value, step)
        except OSError as err:
            if not self.warned:
                log.warning("metrics are being lost, %s cannot be written: %s", self.path, err)
            self.warned = True

    def forget_after(self, step: int) -> None:
        """Drop lines past `step`: a resumed run writes them again."""
        if self.path.exists():
            kept = [line for line in read_metrics(self.path) if line["step"] <= step]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            self.path.write_text(text, encoding="utf-8")


def read_metrics(path: Path) -> Iterator[dict[str, float]]:
    """The lines of a metrics file; a last line that was cut off is left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as err:
        raise DalleError(
            "loop.tensorboard is on, but TensorBoard is not installed; install the extra `log`"
        ) from err
    return SummaryWriter(str(folder / "tensorboard"))
