"""An evaluation of transforms as a Markdown page, with a plot and a sheet of examples beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dalle.evaluate.estimators import Rate
from dalle.evaluate.plots import draw_rates
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
from dalle.evaluate.transforms import (
    ATTRIBUTES,
    MEASURES,
    ORACLE,
    OTHER_SUBJECT,
    RANDOM,
    RECONSTRUCTION,
    SEEN,
    TRUTH,
    ZERO_SHOT,
    GroupRates,
    TransformEvaluation,
)
from dalle.picture import save_png
from dalle.sheets import labelled_grid

REPORT_FILE = "report.md"
RATES_FILE = "looks.png"
SHEET_FILE = "unselected.png"
CHOOSERS = {
    RANDOM: "random",
    "likelihood": "likelihood",
    "clip whole": "CLIP, whole picture",
    "clip": "CLIP, bottom half",
    ORACLE: "oracle",
}
"""Who chooses among the candidates, by the name that tables give them."""
WHAT_IS_MEASURED = (
    "The model is given a subject as the upper half of a picture and a caption such as *the exact "
    "same fox on the top as a sketch on the bottom*, and draws the lower half. Training never "
    "showed the subject in that look, neither alone nor in panels. A lower half is right when, of "
    "the renderings of every subject in every look, the nearest is the one asked for."
)
YARDSTICKS = {RECONSTRUCTION: "the truth through the dVAE", OTHER_SUBJECT: "another subject"}
TITLES = {
    SEEN: "Transforms that training showed",
    ZERO_SHOT: "The transform that training never showed",
}


@dataclass(frozen=True, kw_only=True)
class Example:
    """A case to look at."""

    subject: str
    look: str
    truth: Image.Image
    first: Image.Image
    """Candidate 0, chosen by nobody."""
    best: Image.Image
    """The ranker's first."""
    first_hits: bool
    best_hits: bool


def write_sheet(examples: Sequence[Example], folder: Path, *, candidates: int) -> Path:
    """Write a sheet of `examples`, two to a row; returns its file.

    Raises:
        OSError: The file cannot be written.
    """
    columns = ("truth", "candidate 0", f"best of {candidates}")
    pairs = [examples[start : start + 2] for start in range(0, len(examples), 2)]
    pictures, rows = [], []
    for pair in pairs:
        rows.append("\n".join(_told(pair)))
        blank = Image.new("RGB", pair[0].truth.size, "white")
        shown = [one for example in pair for one in (example.truth, example.first, example.best)]
        pictures += [*shown, *[blank] * (6 - len(shown))]
    sheet = labelled_grid(pictures, columns=columns * 2, rows=rows)
    path = folder / SHEET_FILE
    save_png(sheet, path)
    return path


def _told(pair: Sequence[Example]) -> Iterator[str]:
    """Lines beside two cases: each look once, and of each case its subject and the verdicts."""
    marks = {True: "right", False: "wrong"}
    look = ""
    for example in pair:
        if example.look != look:
            look = example.look
            yield look.upper()
        yield f"{example.subject}: {marks[example.first_hits]}, {marks[example.best_hits]}"


def write_transforms_report(evaluation: TransformEvaluation, folder: Path) -> Path:
    """Write the page and its plot to `folder`, over those of an earlier report.

    Returns:
        The page; it links the sheet that `write_sheet` leaves beside it.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: The files cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw_rates(_plotted(evaluation), folder / RATES_FILE)
    page = folder / REPORT_FILE
    page.write_text(markdown(evaluation), encoding="utf-8")
    return page


def markdown(evaluation: TransformEvaluation) -> str:
    """The page; it links a plot and a sheet in its own folder."""
    sections = (
        _header(evaluation),
        *(_group(evaluation, name) for name in TITLES if name in evaluation.groups),
        _looks(evaluation),
        _closeness(evaluation),
        _trust(evaluation),
        _examples(evaluation),
    )
    return joined(sections)


def _subjects(evaluation: TransformEvaluation) -> str:
    """How many there were; a look has fewer than were asked for where fewer were held out."""
    cases = [look.cases for look in evaluation.looks.values()]
    least, most = min(cases), max(cases)
    return f"{most} subjects" if least == most else f"{least} to {most} subjects"


def _header(evaluation: TransformEvaluation) -> list[str]:
    facts = {
        "model": plain(evaluation.model),
        "fingerprint": plain(evaluation.fingerprint),
        "cases": f"{sum(group.cases for group in evaluation.groups.values()):,} "
        f"({_subjects(evaluation)} for each look)",
        "candidates per case": f"{evaluation.candidates:,}",
        "seed": str(evaluation.seed),
        "temperature": f"{evaluation.temperature:g}",
        "time taken": duration(evaluation.seconds),
    }
    return [
        f"# Transforms of {plain(evaluation.model)}",
        "",
        _headline(evaluation),
        "",
        WHAT_IS_MEASURED,
        "",
        *table(("", ""), facts.items()),
        "Intervals are 95 %.",
        "",
    ]


def _headline(evaluation: TransformEvaluation) -> str:
    """The figures that people look for first, of both groups."""
    chosen = CHOOSERS.get(evaluation.ranker, evaluation.ranker)
    told = []
    for name, group in evaluation.groups.items():
        first, any_ = (group.right["both"][who].rate for who in (evaluation.ranker, ORACLE))
        which = "transforms that training showed" if name == SEEN else "the one it never showed"
        told.append(f"{which}: **{percent(first)}** of cases, {percent(any_)} in any candidate")
    return (
        f"Subject and look right in the best of {evaluation.candidates} by {chosen}, "
        f"{'; '.join(told)}."
    )


def _group(evaluation: TransformEvaluation, name: str) -> list[str]:
    group = evaluation.groups[name]
    looks = ", ".join(
        look
        for look in evaluation.looks
        if (look in evaluation.zero_shot_looks) == (name == ZERO_SHOT)
    )
    sentence = {
        SEEN: f"{group.cases:,} cases: {looks}. Other subjects were shown in these looks, below "
        "themselves.",
        ZERO_SHOT: f"{group.cases:,} cases: {looks}. Training showed this look in single pictures "
        "only, never below a picture of the same subject, so this is zero-shot.",
    }[name]
    rows = [
        (
            CHOOSERS.get(chooser, plain(chooser)),
            *(_cell(group, kind, chooser) for kind in ATTRIBUTES),
        )
        for chooser in group.right[ATTRIBUTES[0]]
    ]
    return section(
        TITLES[name],
        sentence,
        *table(("chosen by", *ATTRIBUTES), rows),
    )


def _named(evaluation: TransformEvaluation, look: str, *, zero_shot: str) -> str:
    """A look's name, with a remark behind those that training never showed."""
    return f"{look} ({zero_shot})" if look in evaluation.zero_shot_looks else look


def _cell(group: GroupRates, attribute: str, chooser: str) -> str:
    rate = group.right[attribute][chooser]
    return f"{percent(rate.rate)} ({interval_text(rate.low, rate.high)})"


def _looks(evaluation: TransformEvaluation) -> list[str]:
    choosers = (RANDOM, evaluation.ranker, ORACLE)
    rows = [
        (
            plain(_named(evaluation, name, zero_shot="never shown in panels")),
            str(group.cases),
            *(_cell(group, "both", chooser) for chooser in choosers),
            percent(group.right["subject"][evaluation.ranker].rate),
            percent(group.right["look"][evaluation.ranker].rate),
        )
        for name, group in evaluation.looks.items()
    ]
    chosen = CHOOSERS.get(evaluation.ranker, evaluation.ranker)
    return section(
        "Look by look",
        f"Subject and look right, by who chooses among {evaluation.candidates} candidates; at the "
        f"right, each by itself, chosen by {chosen}.",
        *table(("look", "cases", *(CHOOSERS[name] for name in choosers), "subject", "look"), rows),
        f"![Looks drawn right]({RATES_FILE})",
        "",
    )


def _closeness(evaluation: TransformEvaluation) -> list[str]:
    rows = []
    for name, group in evaluation.groups.items():
        for who in (RANDOM, evaluation.ranker, *YARDSTICKS):
            if all(who in group.closeness[measure] for measure in MEASURES):
                told = YARDSTICKS.get(who) or f"chosen by {CHOOSERS.get(who, who)}"
                cells = (_value(group.closeness[measure][who]) for measure in MEASURES)
                rows.append((f"{name}: {told}", *cells))
    return section(
        "How near to the truth",
        "Root-mean-square difference of colours, and of how steeply brightness changes (0 is "
        "equal); and the share of tokens that are the true picture's, where that is not blank "
        "paper. The truth through the dVAE (whose tokens are the truth's) is the best that the "
        "model can draw; another subject in the same look is what drawing the wrong thing gives.",
        *table(("lower half", *MEASURES), rows),
    )


def _value(rate: Rate) -> str:
    return f"{rate.rate:.3f} ({rate.low:.3f} to {rate.high:.3f})"


def _trust(evaluation: TransformEvaluation) -> list[str]:
    names = {TRUTH: "true pictures", RECONSTRUCTION: "true pictures through the dVAE"}
    rows = [
        (told, *rate_cells(evaluation.judged_right[name]))
        for name, told in names.items()
        if name in evaluation.judged_right
    ]
    return section(
        "How far the judge can be trusted",
        "What it says of pictures that are right by construction.",
        *table(("judged", "right", "interval", "cases"), rows),
    )


def _examples(evaluation: TransformEvaluation) -> list[str]:
    return section(
        "Unselected examples",
        "The first two subjects of each look: the truth, candidate 0, and the first of "
        f"{evaluation.candidates} by {CHOOSERS.get(evaluation.ranker, evaluation.ranker)}; at the "
        "left what the judge says of the two drawn ones.",
        f"![Unselected examples]({SHEET_FILE})",
        "",
    )


def _plotted(evaluation: TransformEvaluation) -> dict[str, Mapping[str, Rate]]:
    titles = {
        evaluation.ranker: f"Subject and look right, best of {evaluation.candidates} by "
        f"{CHOOSERS.get(evaluation.ranker, evaluation.ranker)}",
        ORACLE: f"Any of {evaluation.candidates} candidates right",
    }
    return {
        title: {
            _named(evaluation, look, zero_shot="never shown"): group.right["both"][chooser]
            for look, group in evaluation.looks.items()
        }
        for chooser, title in titles.items()
    }
