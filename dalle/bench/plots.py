"""Plots of the growth: time against tokens and against candidates, beside the floors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dalle.bench.results import Report, Row
from dalle.errors import DalleError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOKENS_FILE = "growth-tokens.png"
CANDIDATES_FILE = "growth-candidates.png"
_DPI = 110


def draw_plots(report: Report, folder: Path) -> None:
    """Write the two plots of a report that has the rows of the growth into `folder`.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: They cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise DalleError(
            "plots need matplotlib, which is not installed; install the extra `eval`, or leave "
            "out --plots"
        ) from err
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for kind in ("dense", "masked"):
        rows = [row for row in report.rows if row.part.endswith(f"tokens, {kind}")]
        _draw(axes, rows, [int(row.part.split()[0]) for row in rows], label=kind)
    axes.set_xlabel("image tokens")
    axes.set_ylabel(f"seconds for {rows[0].batch} pictures")
    axes.legend()
    figure.savefig(folder / TOKENS_FILE, dpi=_DPI)

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in report.rows if row.part == "candidates"]
    _draw(axes, rows, [row.batch for row in rows], label="one caption")
    axes.set_xlabel("candidates")
    axes.set_ylabel("seconds")
    axes.legend()
    figure.savefig(folder / CANDIDATES_FILE, dpi=_DPI)


def _draw(axes: Axes, rows: list[Row], sizes: list[int], *, label: str) -> None:
    """Measured medians with their range, and the floor below, on logarithmic axes."""
    medians = [row.timing.median for row in rows]
    (line,) = axes.plot(sizes, medians, marker="o", label=f"{label}, {rows[0].way}")
    axes.fill_between(
        sizes,
        [row.timing.shortest for row in rows],
        [row.timing.longest for row in rows],
        alpha=0.2,
        color=line.get_color(),
    )
    floors = [row.floor_s or 0.0 for row in rows]
    axes.plot(sizes, floors, linestyle=":", color=line.get_color(), label=f"{label}, floor")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
