"""Pictures of a probe's findings, in the style of `dalle.evaluate.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dalle.evaluate.estimators import Rate
from dalle.evaluate.features import CODE_COUNTS, CODES, PIXELS
from dalle.evaluate.plots import (
    BLUE,
    GREEN,
    GREY,
    LINE_PT,
    ON_TOP,
    ORANGE,
    TITLE_STYLE,
    VERMILLION,
    End,
    label_ends,
    percent_axes,
)
from dalle.evaluate.probing import BEST_LAYER, ProbeFindings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {BEST_LAYER: VERMILLION, PIXELS: BLUE, CODES: GREEN, CODE_COUNTS: ORANGE}
"""A colour for each kind of features."""


def draw_depth(findings: ProbeFindings, path: Path) -> None:
    """Write accuracy by depth, with the baselines as level lines.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    figure, axes = percent_axes("depth: 0 is the embedding, the last the final states")
    depths = list(range(len(findings.layers)))
    _band(axes, depths, findings.layers, VERMILLION)
    chosen = sorted(set(findings.best_layers))
    axes.plot(
        chosen,
        [findings.layers[depth].rate for depth in chosen],
        marker="o", linestyle="none", color=VERMILLION, markersize=7, **ON_TOP,
    )  # fmt: skip
    ends: list[End] = [(findings.layers[-1].rate, "transformer", VERMILLION, "solid")]
    for name, rate in findings.baselines.items():
        axes.plot(
            [0, depths[-1]], [rate.rate] * 2,
            color=COLOURS[name], linestyle="dashed", linewidth=LINE_PT, **ON_TOP,
        )  # fmt: skip
        ends.append((rate.rate, name, COLOURS[name], "dashed"))
    ends.append(_chance(axes, findings))
    axes.set_xlim(0, depths[-1])
    axes.set_xticks(depths)
    label_ends(axes, ends)
    axes.set_title("Accuracy of a linear probe by depth (dots: the layers chosen)", **TITLE_STYLE)
    figure.savefig(path, format="png")


def draw_low_data(findings: ProbeFindings, path: Path) -> None:
    """Write accuracy by number of labels, a curve for each kind of features.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    figure, axes = percent_axes("labelled pictures of each class")
    ends: list[End] = []
    for name, rates in findings.low_data.items():
        _band(axes, list(rates), list(rates.values()), COLOURS[name])
        ends.append((list(rates.values())[-1].rate, name, COLOURS[name], "solid"))
    ends.append(_chance(axes, findings))
    counts = list(findings.low_data[BEST_LAYER])
    axes.set_xscale("log")
    axes.set_xlim(counts[0], counts[-1])
    axes.set_xticks(counts, labels=map(str, counts))
    axes.set_xticks([], minor=True)
    label_ends(axes, ends)
    axes.set_title("Accuracy of a linear probe by number of labels", **TITLE_STYLE)
    figure.savefig(path, format="png")


def _chance(axes: Axes, findings: ProbeFindings) -> End:
    """A level line at what guessing gives."""
    rate = 1 / len(findings.classes)
    axes.axhline(rate, color=GREY, linestyle="dotted", linewidth=LINE_PT)
    return (rate, "chance", GREY, "dotted")


def _band(axes: Axes, across: Sequence[int], rates: Sequence[Rate], colour: str) -> None:
    """A curve of rates with its intervals."""
    low, high = [rate.low for rate in rates], [rate.high for rate in rates]
    axes.fill_between(across, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(across, [rate.rate for rate in rates], color=colour, linewidth=LINE_PT, **ON_TOP)
