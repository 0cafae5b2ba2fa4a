"""What runs have written."""

from __future__ import annotations

from pathlib import Path

from dalle.train.metrics import read_metrics


def comparable_metrics(out: Path) -> list[dict[str, float]]:
    """Every line, without the speed."""
    lines = read_metrics(out / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.endswith("_per_s")} for line in lines]
