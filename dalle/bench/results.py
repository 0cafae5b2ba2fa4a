"""Measurements as rows, as a table, and as JSON that a later run compares with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dalle.bench.machine import Rates, Timing

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was measured."""

    part: str
    """What: decode, train step, ..."""
    way: str
    """How: the type of weights and who computes."""
    batch: int
    timing: Timing
    units: int
    """Things that one run makes."""
    unit: str
    """What they are: tokens, images, starts."""
    floor_s: float | None = None
    """Least seconds for this work in this type of weights; None where none is computed."""
    bf16_floor_s: float | None = None
    """The same in bf16, to compare ways that differ in it."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Names the row in every run."""
        return self.part, self.way, self.batch


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a run of `dalle bench` found."""

    workload: str
    machine: Mapping[str, str | int]
    rates: Rates
    """Measured before the rows, whose floors are made of them."""
    rates_after: Rates
    """Measured after them: a machine that others use as well may not have stayed the same."""
    rows: Sequence[Row]
    peak_bytes: int

    def to_json(self) -> str:
        """The report as one JSON object; `read_earlier` reads it."""
        rows = [{**asdict(row), "seconds": row.timing.median} for row in self.rows]
        tree: dict[str, Any] = {"format_version": FORMAT_VERSION, **asdict(self), "rows": rows}
        return json.dumps(tree)

    def to_table(self, earlier: Earlier | None = None) -> str:
        """The report for people, as a Markdown table; `earlier` adds a column."""
        titles = ["what", "how", "batch", "seconds", "from - to", "per second"]
        titles += ["x floor", "x bf16 floor", "lost cores"]
        titles += [] if earlier is None else ["times as fast"]
        cells = [titles, ["---"] * len(titles)]
        for row in self.rows:
            timing = row.timing
            line = [row.part, row.way, str(row.batch), _seconds(timing.median)]
            line += [f"{_seconds(timing.shortest)} - {_seconds(timing.longest)}"]
            line += [f"{row.units / timing.median:,.4g} {row.unit}"]
            line += [_ratio(timing.median, row.floor_s), _ratio(timing.median, row.bf16_floor_s)]
            line += [f"{timing.lost_cores:.2f}"]
            if earlier is not None:
                before = earlier.medians.get(row.key)
                line.append("" if before is None else f"{before / timing.median:.2f}")
            cells.append(line)
        return "\n".join([*self._head(earlier), "", *_aligned(cells)]) + "\n"

    def _head(self, earlier: Earlier | None) -> list[str]:
        lines = [
            f"{self.workload} on {_where(self.machine)}",
            f"rates: {_rates(self.rates)}",
            f"afterwards: {_rates(self.rates_after)}",
            f"peak memory: {self.peak_bytes / 2**20:,.0f} MiB",
        ]
        if earlier is not None:
            lines.append(f"compared with: {self.workload} on {_where(earlier.machine)}")
        return lines


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What an earlier run found, to compare with."""

    machine: Mapping[str, str | int]
    medians: Mapping[tuple[str, str, int], float]
    """Seconds, by `Row.key`."""


def read_earlier(path: Path, *, workload: str) -> Earlier:
    """The report that an earlier run wrote.

    Args:
        path: The file.
        workload: What it must have measured: times of anything else say nothing.

    Raises:
        ValueError: The file is no such report, or one of another workload.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format_version"] != FORMAT_VERSION:
            raise ValueError(f"its format_version is {tree['format_version']!r}")
        if tree["workload"] != workload:
            raise ValueError(f"it measured {tree['workload']}, not {workload}")
        rows = {(r["part"], r["way"], r["batch"]): float(r["seconds"]) for r in tree["rows"]}
        machine = {name: tree["machine"][name] for name in ("device", "threads", "torch")}
        return Earlier(machine=machine, medians=rows)
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ValueError(
            f"{path} cannot be compared with ({err}); give a file that dalle bench {workload} "
            "--out wrote"
        ) from err


def _where(machine: Mapping[str, str | int]) -> str:
    return f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"


def _rates(rates: Rates) -> str:
    gflops = ", ".join(f"{kind} {rate / 1e9:,.0f}" for kind, rate in rates.flops.items())
    return f"{rates.bytes_per_s / 1e9:.1f} GB/s read; {gflops} G operations/s"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(seconds: float, floor_s: float | None) -> str:
    return "" if floor_s is None else f"{seconds / floor_s:.2f}"


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
