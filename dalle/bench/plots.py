"""Plots of the growth: time against tokens and against candidates, beside the floors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dalle.bench.results import Report, Row
from dalle.evaluate.plots import require_matplotlib

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
    require_matplotlib()
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for kind in ("dense", "masked"):
        rows = [row for row in report.rows if row.part.endswith(f"tokens, {kind}")]
        sizes = [int(row.part.split()[0]) for row in rows]
        _measured(axes, rows, sizes, label=f"{kind}, {rows[0].way}")
    _floor(axes, rows, sizes, label="floor of dense attention")
    _finish(axes, sizes, across="image tokens", up=f"seconds for {rows[0].batch} pictures")
    figure.savefig(folder / TOKENS_FILE, dpi=_DPI)

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in report.rows if row.part == "candidates"]
    sizes = [row.batch for row in rows]
    _measured(axes, rows, sizes, label=f"one caption, {rows[0].way}")
    _floor(axes, rows, sizes, label="floor")
    _finish(axes, sizes, across="candidates", up="seconds for all of them")
    figure.savefig(folder / CANDIDATES_FILE, dpi=_DPI)


def _measured(axes: Axes, rows: list[Row], sizes: list[int], *, label: str) -> None:
    """Medians, with their range as a band."""
    (line,) = axes.plot(sizes, [row.timing.median for row in rows], marker="o", label=label)
    axes.fill_between(
        sizes,
        [row.timing.shortest for row in rows],
        [row.timing.longest for row in rows],
        alpha=0.2,
        color=line.get_color(),
    )


def _floor(axes: Axes, rows: list[Row], sizes: list[int], *, label: str) -> None:
    """The least times, as a dotted line."""
    floors = [row.floor_s or 0.0 for row in rows]
    axes.plot(sizes, floors, linestyle="dotted", color="black", label=label)


def _finish(axes: Axes, sizes: list[int], *, across: str, up: str) -> None:
    """Logarithmic axes with plain numbers on them, and a legend."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes], minor=False)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, color="#E0E0E0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(frameon=False)
