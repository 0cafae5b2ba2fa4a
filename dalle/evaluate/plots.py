"""Pictures of an evaluation, as PNG files that read well at 700 pixels' width.

Drawn with figure objects only: nothing here touches matplotlib's global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dalle.errors import DalleError
from dalle.evaluate.estimators import Rate
from dalle.evaluate.results import EnvelopePoint, HitAtK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 7.0
CURVE_HEIGHT_IN = 4.2
DPI = 200
"""Two pixels of the file for one at 700 pixels' width: sharp on dense screens too."""
TEXT_PT = 9.5
LINE_PT = 1.8

BLACK, GREY = "#000000", "#595959"
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = (
    *("#0072B2", "#E69F00", "#009E73"),
    *("#D55E00", "#CC79A7", "#56B4E9"),
)
"""Okabe and Ito's colours, which people with any colour vision tell apart; without the yellow,
which is too light for a line on white."""
RANKERS = {
    "random": ("any of k", BLACK),
    "clip": ("best of k by CLIP", VERMILLION),
    "likelihood": ("best of k by likelihood", BLUE),
}
"""Label and colour of each ranker's curve."""
CYCLE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
DASHES = ("solid", "dashed", "dotted")
"""Once round the colours, the next dash."""
LABEL_GAP = 0.055
"""Least distance of two labels' middles, as part of the height."""
PERCENT = {f"{percent} %": percent / 100 for percent in range(0, 101, 20)}
"""Ticks of a rate, by their label."""

End = tuple[float, str, str, str]
"""How a curve ends: its last rate, and the label, colour and dash it is known by."""


def require_matplotlib() -> None:
    """Nothing, if figures can be drawn; to be asked before work whose result they show.

    Raises:
        DalleError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401 - asks only whether it is there
    except ImportError as err:
        raise DalleError("plots need matplotlib; pip install 'dalle-studio[eval]'") from err


def draw_rankers(curves: Mapping[str, Sequence[HitAtK]], path: Path) -> None:
    """Write hit@k by ranker, with interval bands.

    Args:
        curves: By ranker; equally long, with k = 1 .. n.
        path: The PNG file to write.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: The file cannot be written.
        ValueError: There are no curves, or one has fewer than two points.
    """
    figure, axes = _curve_axes(curves)
    ends: list[End] = []
    for name in sorted(curves, key=[*RANKERS, *curves].index):
        label, colour = RANKERS.get(name, (name, GREY))
        ks = [point.k for point in curves[name]]
        rates = [point.rate for point in curves[name]]
        low = [point.low for point in curves[name]]
        high = [point.high for point in curves[name]]
        axes.fill_between(ks, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(ks, rates, color=colour, linewidth=LINE_PT, **ON_TOP)
        ends.append((rates[-1], label, colour, "solid"))
    label_ends(axes, ends)
    axes.set_title("Captions drawn right, by how the picture is chosen", **TITLE_STYLE)
    figure.savefig(path, format="png")


def draw_temperatures(
    curves: Mapping[str, Sequence[HitAtK]],
    envelope: Sequence[EnvelopePoint],
    path: Path,
    *,
    ranker: str = "random",
) -> None:
    """Write hit@k by sampling temperature, with the best of them at every k.

    Args:
        curves: By temperature; equally long, with k = 1 .. n.
        envelope: The best at each k; may be empty.
        path: The PNG file to write.
        ranker: Whose curves they are, one of `RANKERS`; for the title.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: The file cannot be written.
        ValueError: There are no curves, or one has fewer than two points.
    """
    figure, axes = _curve_axes(curves)
    if envelope:
        # Below the curves and wider, so that the one that attains it stays in sight.
        ks, rates = [point.k for point in envelope], [point.rate for point in envelope]
        axes.plot(ks, rates, color=BLACK, alpha=0.22, linewidth=7, solid_capstyle="butt")
    ends: list[End] = []
    for index, (name, points) in enumerate(curves.items()):
        colour, dash = CYCLE[index % len(CYCLE)], DASHES[index // len(CYCLE) % len(DASHES)]
        ks, rates = [point.k for point in points], [point.rate for point in points]
        axes.plot(ks, rates, color=colour, linestyle=dash, linewidth=LINE_PT, **ON_TOP)
        ends.append((rates[-1], f"temperature {name}", colour, dash))
    label_ends(axes, ends)
    what = RANKERS[ranker][0]
    title = f"{what[:1].upper()}{what[1:]} drawn right, by temperature (wide grey: the best)"
    axes.set_title(title, **TITLE_STYLE)
    figure.savefig(path, format="png")


def draw_rates(groups: Mapping[str, Mapping[str, Rate]], path: Path) -> None:
    """Write rates as bars with interval whiskers, one panel below the other.

    Args:
        groups: Rates by name, by the title of their panel; bars stand in the order given.
        path: The PNG file to write.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: The file cannot be written.
        ValueError: There are no groups, or one is empty.
    """
    if not groups or not all(groups.values()):
        raise ValueError("bars need at least one rate in each group, got none")
    counts = [len(rates) for rates in groups.values()]
    figure = new_figure(height_in=0.27 * sum(counts) + 0.75 * len(counts))
    panels = figure.subplots(
        len(groups), 1, sharex=True, squeeze=False, height_ratios=[count + 1 for count in counts]
    )
    for axes, (title, rates) in zip(panels[:, 0], groups.items(), strict=True):
        _bars(axes, rates)
        axes.set_title(title, **TITLE_STYLE)
    figure.savefig(path, format="png")


TITLE_STYLE: Mapping[str, Any] = {"loc": "left", "fontsize": TEXT_PT + 1.5, "pad": 8}
"""How the title of a panel is set."""
ON_TOP: Mapping[str, Any] = {"clip_on": False, "zorder": 3}
"""A curve at 0 or 100 % would otherwise be cut in half and lie under the axis."""


def new_figure(*, height_in: float) -> Figure:
    """An empty figure in this folder's style, `WIDTH_IN` wide.

    Raises:
        DalleError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained", facecolor="white")


def _curve_axes(curves: Mapping[str, Sequence[HitAtK]]) -> tuple[Figure, Axes]:
    """Empty axes for curves over k: percent over powers of two."""
    if not curves or any(len(points) < 2 for points in curves.values()):
        lengths = {name: len(points) for name, points in curves.items()}
        raise ValueError(f"a plot needs curves of at least two points, got {lengths or 'none'}")
    figure, axes = percent_axes("k, candidates drawn")
    n = max(point.k for points in curves.values() for point in points)
    axes.set_xscale("log", base=2)
    axes.set_xticks(_ticks(n), labels=map(str, _ticks(n)))
    axes.set_xticks([], minor=True)
    axes.set_xlim(1, n)
    return figure, axes


def percent_axes(across: str) -> tuple[Figure, Axes]:
    """A figure with empty axes for curves of rates.

    Args:
        across: What the horizontal axis shows.

    Raises:
        DalleError: matplotlib is not installed.
    """
    figure = new_figure(height_in=CURVE_HEIGHT_IN)
    axes = figure.add_subplot()
    axes.set_xlabel(across, fontsize=TEXT_PT)
    axes.set_ylim(0, 1)
    axes.set_yticks(list(PERCENT.values()), labels=list(PERCENT))
    axes.tick_params(labelsize=TEXT_PT, length=3)
    axes.grid(visible=True, color="#E0E0E0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _ticks(n: int) -> list[int]:
    """1, 2, 4, ... and n itself; a power of two too near to n gives way to it."""
    powers = [1 << power for power in range(n.bit_length()) if (1 << power) * 1.4 < n]
    return [*powers, n]


def label_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Name each curve beside its end, where no data can be, with a piece of its line between."""
    for index, middle in _spread([end for end, *_ in ends]):
        end, label, colour, dash = ends[index]
        axes.plot(
            [1, 1.025, 1.055],
            [end, middle, middle],
            transform=axes.transAxes,
            color=colour,
            linestyle=dash,
            linewidth=LINE_PT,
            **ON_TOP,
        )
        # Black, for the lighter colours are too pale to read.
        axes.annotate(
            label, xy=(1.065, middle), xycoords="axes fraction", fontsize=TEXT_PT, va="center"
        )


def _spread(ends: Sequence[float]) -> list[tuple[int, float]]:
    """Each end's index with the middle of its label: near the end, none over another."""
    order = sorted(range(len(ends)), key=ends.__getitem__)
    middles: list[float] = []
    for index in order:
        lowest = middles[-1] + LABEL_GAP if middles else 0.0
        middles.append(max(ends[index], lowest))
    # Pushed up beyond the top, they are pushed down again from there.
    highest = 1.0
    for place in reversed(range(len(middles))):
        middles[place] = min(middles[place], highest)
        highest = middles[place] - LABEL_GAP
    return list(zip(order, middles, strict=True))


def _bars(axes: Axes, rates: Mapping[str, Rate]) -> None:
    """Horizontal bars from the top down, each with whisker, value and number of cases."""
    heights = np.arange(len(rates))
    found = list(rates.values())
    values = np.array([rate.rate for rate in found])
    below = values - [rate.low for rate in found]
    above = np.array([rate.high for rate in found]) - values
    axes.barh(heights, values, height=0.62, color=SKY)
    axes.errorbar(
        values, heights, xerr=[below, above], fmt="none", ecolor=BLACK, elinewidth=1.2, capsize=3
    )
    for height, rate in zip(heights, found, strict=True):
        axes.annotate(
            f"{100 * rate.rate:.0f} %  (n = {rate.n:,})",
            xy=(1.02, height),
            xycoords=("axes fraction", "data"),
            fontsize=TEXT_PT,
            va="center",
        )
    axes.set_yticks(heights, labels=list(rates))
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks(list(PERCENT.values()), labels=list(PERCENT))
    axes.tick_params(labelsize=TEXT_PT, length=0)
    axes.grid(visible=True, axis="x", color="#E0E0E0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
