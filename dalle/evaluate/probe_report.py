"""A probe's findings as a Markdown page with its plots beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dalle.evaluate.features import PIXELS
from dalle.evaluate.probe_plots import draw_depth, draw_low_data
from dalle.evaluate.probing import BEST_LAYER, ProbeFindings
from dalle.evaluate.tables import (
    duration,
    interval_text,
    joined,
    percent,
    plain,
    rate_cells,
    section,
    table,
)

REPORT_FILE = "report.md"
DEPTH_FILE = "depth.png"
LOW_DATA_FILE = "labels.png"
WHAT_IS_MEASURED = (
    "A logistic regression is fitted to the states of one layer: to their means and deviations "
    "over the picture. The model itself, which read the pictures without captions, stays as it is. "
    "Accuracies count every class alike; their intervals, over test subjects (or pictures), are "
    "95 %."
)


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """A probe of one model."""

    model: str
    """Name or folder, as it was asked for."""
    fingerprint: str
    """Hash of the model folder."""
    data: str
    """What was classified."""
    seed: int
    repeats: int
    """Choices of labels that accuracies with few of them are means of."""
    seconds: float
    """What the probe took."""
    findings: ProbeFindings


def write_probe_report(report: ProbeReport, folder: Path) -> Path:
    """Write the page and its plots to `folder`, over those of an earlier report.

    Returns:
        The page.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: The files cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw_depth(report.findings, folder / DEPTH_FILE)
    if _has_curves(report.findings):
        draw_low_data(report.findings, folder / LOW_DATA_FILE)
    page = folder / REPORT_FILE
    page.write_text(markdown(report), encoding="utf-8")
    return page


def markdown(report: ProbeReport) -> str:
    """The page; it links plots of `write_probe_report`'s names in its own folder."""
    sections = (_header(report), _depths(report), _few(report), _classes(report))
    return joined(sections)


def _header(report: ProbeReport) -> list[str]:
    found = report.findings
    distinct = sorted(set(found.best_layers))
    headline = (
        f"**{percent(found.best.rate)}** from layer {' or '.join(map(str, distinct))}, "
        f"{percent(found.baselines[PIXELS].rate)} from raw pixels: "
        f"{_points(found.gain.rate)} points more ({_points(found.gain.low)} to "
        f"{_points(found.gain.high)})."
    )
    facts = {
        "model": plain(report.model),
        "fingerprint": plain(report.fingerprint),
        "data": plain(report.data),
        "classes": f"{len(found.classes)}, chance is {percent(1 / len(found.classes))}",
        "to learn from": f"{found.labels:,} pictures of each class",
        "to test on": f"{found.test_pictures:,} pictures of {found.best.n:,} things, each by "
        "classifiers that never saw it",
        "folds": str(found.folds),
        "seed": str(report.seed),
        "time taken": duration(report.seconds),
    }
    return [
        f"# Linear probe of {plain(report.model)}",
        "",
        headline,
        "",
        WHAT_IS_MEASURED,
        "",
        *table(("", ""), facts.items()),
    ]


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _depths(report: ProbeReport) -> list[str]:
    found = report.findings
    last = len(found.layers) - 1
    names = {0: "0, the embedding", last: f"{last}, the final states"}
    rows = [
        (
            f"layer {names.get(depth, depth)}",
            *rate_cells(rate)[:2],
            percent(found.validation[depth]),
            str(found.best_layers.count(depth) or ""),
        )
        for depth, rate in enumerate(found.layers)
    ]
    rows.append((f"**{BEST_LAYER}**", *rate_cells(found.best)[:2], "", ""))
    rows += [(name, *rate_cells(rate)[:2], "", "") for name, rate in found.baselines.items()]
    return section(
        "By depth",
        "The best layer of a fold is the one with the highest accuracy on training pictures while "
        "they are set aside, a fifth of each class's things at a time; test pictures have no say.",
        *table(("features", "accuracy", "interval", "set aside", "best in folds"), rows),
        f"![Accuracy by depth]({DEPTH_FILE})",
        "",
    )


def _few(report: ProbeReport) -> list[str]:
    found = report.findings.low_data
    counts = list(next(iter(found.values())))
    rows = [
        (name, *(f"{percent(rate.rate)} ({interval_text(rate.low, rate.high)})" for rate in rates))
        for name, rates in ((name, by_count.values()) for name, by_count in found.items())
    ]
    plot = [f"![Accuracy by number of labels]({LOW_DATA_FILE})", ""]
    return section(
        "With few labels",
        f"Training pictures of each class; fewer than {counts[-1]} are the mean of "
        f"{report.repeats} choices.",
        *table(("features", *map(str, counts)), rows),
        *(plot if _has_curves(report.findings) else []),
    )


def _classes(report: ProbeReport) -> list[str]:
    rows = [(plain(name), *rate_cells(rate)) for name, rate in report.findings.by_class.items()]
    return section(
        "By class",
        "Accuracy of the best layer; at the right, how many different things it was tested on.",
        *table(("class", "accuracy", "interval", "things"), rows),
    )


def _has_curves(findings: ProbeFindings) -> bool:
    """Whether there is anything to plot: one number of labels makes a point, not a curve."""
    return len(findings.low_data[BEST_LAYER]) > 1
