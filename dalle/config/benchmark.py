"""Root of the verb that measures speed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dalle.config.ranges import require_positive
from dalle.config.sampling import WeightType
from dalle.config.training import Device

BenchPart = Literal["prefill", "decode", "vae", "clip", "train", "start", "growth"]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """`dalle bench`: how long everything takes, and how long it would have to on this machine."""

    workload: str = "small"
    """What is measured: small, tiny or xl (random weights), a bundled model, or a model folder."""
    parts: tuple[BenchPart, ...] = ("prefill", "decode", "vae", "clip", "train", "start")
    """What is measured of it; `growth` too, with more tokens, masks and candidates, takes long."""
    batches: tuple[int, ...] = (1, 8, 32)
    """Pictures drawn at once, each of a caption of its own."""
    dtypes: tuple[WeightType, ...] = ("fp32", "bf16", "int8")
    """Types of the weights that are drawn with."""
    runs: int = 3
    """Runs of each measurement, after one that does not count; their median is shown."""
    compile: bool = False
    """Compile the decode step if nobody has; where it is at hand, it is measured beside torch. On a
    GPU, measure it also as torch compiles it."""
    recompute: bool = False
    """Train as `dalle train transformer --recompute true` does, with less memory."""
    device: Device = "auto"
    """What is measured."""
    out: Path | None = None
    """JSON file to write; None writes none."""
    compare: Path | None = None
    """JSON file that an earlier run wrote: show how many times as fast this one is."""
    plots: Path | None = None
    """Folder for plots of the growth; None draws none."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        require_positive(self, "runs")
        if not (self.parts and self.batches and self.dtypes):
            raise ValueError(
                "parts, batches and dtypes must each name something to measure; parts are "
                f"{', '.join(get_args(BenchPart))}"
            )
        if min(self.batches) < 1:
            raise ValueError(f"batches must be at least 1, got {min(self.batches)}")
        if set(self.parts) == {"train"} and set(self.dtypes) == {"int8"}:
            raise ValueError("training has no int8; add fp32 or bf16 to --dtypes")
        if self.json and self.compare is not None:
            raise ValueError(
                f"compare {self.compare} adds a column to the table, and --json writes none; leave "
                "one of them out"
            )
        if self.plots is not None and "growth" not in self.parts:
            raise ValueError(f"plots {self.plots} show the growth; add growth to --parts")
