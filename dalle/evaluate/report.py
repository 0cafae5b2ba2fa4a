"""An evaluation as a Markdown page with its plots beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dalle.evaluate.estimators import Rate
from dalle.evaluate.plots import draw_rankers, draw_rates, draw_temperatures, require_matplotlib
from dalle.evaluate.results import EnvelopePoint, Evaluation, HitAtK, Nearness
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
RANKERS_FILE = "hit-at-k.png"
TEMPERATURES_FILE = "temperatures.png"
RANKED_TEMPERATURES_FILE = "ranked-temperatures.png"
RATES_FILE = "attributes.png"
TABLE_KS = (1, 2, 4, 8, 16, 32)
"""Numbers of candidates that tables show; the plots show all."""
RANKER_NAMES = {"random": "random", "likelihood": "likelihood", "clip": "CLIP", "oracle": "oracle"}
CURVE_NAMES = {
    "random": "any of k",
    "likelihood": "best of k by likelihood",
    "clip": "best of k by CLIP",
}

NEEDS_TRUTH = "captions with ground truth (emoji scenes)"


class _Missing(NamedTuple):
    """A section that has nothing to say."""

    title: str
    needs: str


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write the page and its plots to `folder`, over those of an earlier report.

    Args:
        evaluation: What was measured.
        folder: Where to write; made if it does not exist.

    Returns:
        The page.

    Raises:
        DalleError: matplotlib is not installed.
        OSError: The files cannot be written.
    """
    require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    if _has_curves(evaluation.hit_at_k):
        draw_rankers(evaluation.hit_at_k, folder / RANKERS_FILE)
    if _has_curves(evaluation.temperatures):
        draw_temperatures(evaluation.temperatures, evaluation.envelope, folder / TEMPERATURES_FILE)
    if evaluation.ranked_by is not None and _has_curves(evaluation.ranked_temperatures):
        draw_temperatures(
            evaluation.ranked_temperatures,
            evaluation.ranked_envelope,
            folder / RANKED_TEMPERATURES_FILE,
            ranker=evaluation.ranked_by,
        )
    if groups := _rate_groups(evaluation):
        draw_rates(groups, folder / RATES_FILE)
    page = folder / REPORT_FILE
    page.write_text(markdown(evaluation), encoding="utf-8")
    return page


def markdown(evaluation: Evaluation) -> str:
    """The page; it links plots of `write_report`'s names in its own folder.

    What was measured comes first, and what was not is listed at the end.
    """
    sections = (
        _header(evaluation),
        _hit_at_1(evaluation),
        _hit_at_k(evaluation),
        _temperatures(evaluation),
        _attributes(evaluation),
        _judge(evaluation),
        _retrieval(evaluation),
        _agreement(evaluation),
        _likeness(evaluation),
        _bits(evaluation),
        _reconstruction(evaluation),
        _memorisation(evaluation),
    )
    measured = [part for part in sections if not isinstance(part, _Missing)]
    missing = [part for part in sections if isinstance(part, _Missing)]
    if missing:
        needs = (f"- {part.title}: it needs {part.needs}." for part in missing)
        measured.append(section("Not measured", "What is missing here:", *needs))
    return joined(measured)


def _header(evaluation: Evaluation) -> list[str]:
    facts = {
        "model": plain(evaluation.model),
        "fingerprint": plain(evaluation.fingerprint),
        "captions": f"{evaluation.captions:,} of {plain(evaluation.set)}",
        "candidates per caption": f"{evaluation.candidates:,}",
        "seed": str(evaluation.seed),
        "temperature": f"{evaluation.temperature:g}",
        "time taken": duration(evaluation.seconds),
    }
    return [
        f"# Evaluation of {plain(evaluation.model)}",
        "",
        *table(("", ""), facts.items()),
        "Intervals are 95 %.",
        "",
    ]


def _hit_at_1(evaluation: Evaluation) -> list[str] | _Missing:
    found = evaluation.hit_at_1
    if found is None:
        return _Missing("Hit at 1", NEEDS_TRUTH)
    rows = []
    for name, rate in (
        ("random", found.random),
        ("likelihood", found.likelihood),
        ("clip", found.clip),
        ("oracle", found.oracle),
    ):
        cells = ("not measured", "", "") if rate is None else rate_cells(rate)
        rows.append((RANKER_NAMES[name], *cells, _gap(evaluation, name)))
    return section(
        "Hit at 1",
        "The share of captions drawn right when one candidate is shown. Gap closed: how much of "
        "the way from a random choice to the oracle, which knows the truth, a ranker goes.",
        *table(("chosen by", "hit@1", "interval", "captions", "gap closed"), rows),
    )


def _hit_at_k(evaluation: Evaluation) -> list[str] | _Missing:
    if not evaluation.hit_at_k:
        return _Missing("Hit at k", NEEDS_TRUTH)
    names = sorted(evaluation.hit_at_k, key=[*CURVE_NAMES, *evaluation.hit_at_k].index)
    titles = [CURVE_NAMES.get(name, plain(name)) for name in names]
    return section(
        "Hit at k",
        "Any of k: at least one of k random candidates is right, the most that any ranker can "
        "reach. Best of k: the one that the ranker puts first among them is right.",
        *table(("k", *titles), _points({name: evaluation.hit_at_k[name] for name in names})),
        *_plot("Hit at k by ranker", RANKERS_FILE, show=_has_curves(evaluation.hit_at_k)),
    )


def _temperatures(evaluation: Evaluation) -> list[str] | _Missing:
    curves = evaluation.temperatures
    if not curves:
        return _Missing("Temperature", f"several temperatures and {NEEDS_TRUTH}")
    lines = _temperature_table(curves, evaluation.envelope)
    lines += _plot("Any of k by temperature", TEMPERATURES_FILE, show=_has_curves(curves))
    if evaluation.ranked_by is not None:
        curves = evaluation.ranked_temperatures
        lines += [f"The same, {CURVE_NAMES[evaluation.ranked_by]}:", ""]
        lines += _temperature_table(curves, evaluation.ranked_envelope)
        lines += _plot(
            "Best of k by temperature", RANKED_TEMPERATURES_FILE, show=_has_curves(curves)
        )
    return section(
        "Temperature",
        "At least one of k random candidates is right, by sampling temperature. The best of "
        "several estimates is biased upwards: part of what makes it the best is luck.",
        *lines,
    )


def _temperature_table(
    curves: Mapping[str, Sequence[HitAtK]], envelope: Sequence[EnvelopePoint]
) -> list[str]:
    best = {point.k: f"{percent(point.rate)} at {point.temperature:g}" for point in envelope}
    return table(
        ("k", *map(plain, curves), "best"),
        ((k, *cells, best.get(int(k), "")) for k, *cells in _points(curves)),
    )


def _attributes(evaluation: Evaluation) -> list[str] | _Missing:
    groups = _rate_groups(evaluation)
    if not groups:
        return _Missing("Attributes", NEEDS_TRUTH)
    tables = [
        line
        for title, rates in groups.items()
        for line in table(
            (title, "right", "interval", "cases"),
            ((plain(name), *rate_cells(rate)) for name, rate in rates.items()),
        )
    ]
    return section(
        "Attributes",
        "What pictures show of what their captions ask for.",
        *tables,
        *_plot("Attributes drawn right", RATES_FILE, show=True),
    )


def _judge(evaluation: Evaluation) -> list[str] | _Missing:
    found = evaluation.judge
    if found is None:
        return _Missing("How far the judge can be trusted", NEEDS_TRUTH)
    accepted = [
        ("ground truth", *rate_cells(found.images)),
        ("ground truth through the dVAE", *rate_cells(found.rebuilt)),
    ]
    expected = "Both should be right."
    if found.others is not None:
        accepted.append(("ground truth beside another scene's caption", *rate_cells(found.others)))
        expected = "The first two should be right, the third wrong."
    caught = (
        (plain(name), *rate_cells(rate)[:2], *rate_cells(found.caught_rebuilt[name]))
        for name, rate in found.caught.items()
    )
    return section(
        "How far the judge can be trusted",
        f"Pictures whose truth is known, judged as drawn ones are. {expected}",
        *table(("pictures", "judged right", "interval", "cases"), accepted),
        "Found wrong, where the caption is wrong in one thing alone: another background, another "
        "subject of the same group, and so on (of panels: top and bottom exchanged).",
        "",
        *table(
            ("wrong", "ground truth", "interval", "through the dVAE", "interval", "cases"), caught
        ),
    )


def _retrieval(evaluation: Evaluation) -> list[str] | _Missing:
    found = evaluation.retrieval
    if found is None:
        return _Missing("Retrieval", "a CLIP model and more than one caption")
    rows = [("R@1", *rate_cells(found.r_at_1))]
    if found.captions > 5:  # among fewer, anything would be found
        rows.append(("R@5", *rate_cells(found.r_at_5)))
    return section(
        "Retrieval",
        f"Whether CLIP finds the caption of a drawn picture among {found.captions:,} captions, "
        "first or among the first five.",
        *table(("", "found", "interval", "pictures"), rows),
    )


def _agreement(evaluation: Evaluation) -> list[str] | _Missing:
    found = evaluation.agreement
    if found is None:
        return _Missing("Agreement with the caption", "a CLIP model")
    rows = (
        ("drawn, chosen by nobody", found.drawn),
        (f"drawn, best of {evaluation.candidates:,}", found.best),
        ("true pictures", found.true),
        ("drawn, beside another's caption", found.others),
    )
    return section(
        "Agreement with the caption",
        "Cosine of picture and caption for CLIP, 1 at most. What CLIP itself has chosen is high by "
        "that alone.",
        *table(
            ("pictures", "mean", "interval", "captions"),
            ((name, *_decimals(rate)) for name, rate in rows if rate is not None),
        ),
    )


def _likeness(evaluation: Evaluation) -> list[str] | _Missing:
    found = evaluation.likeness
    if found is None:
        return _Missing(
            "Distance from true pictures", "a CLIP model and at least ten held-out pictures"
        )
    rows = (
        ("drawn, chosen by nobody", found.drawn),
        (f"drawn, best of {evaluation.candidates:,}", found.best),
        ("true, through the dVAE", found.rebuilt),
    )
    return section(
        "Distance from true pictures",
        "Squared kernel distance of two sets of pictures for CLIP, in thousandths: 0 on average "
        "where they are alike as sets, whichever picture belongs to which caption; intervals are "
        "wide there. To be compared where CLIP and captions are the same.",
        *table(
            ("pictures", "distance", "interval", "captions"),
            ((name, *_decimals(rate, times=1000)) for name, rate in rows),
        ),
    )


def _bits(evaluation: Evaluation) -> list[str] | _Missing:
    found = evaluation.bits_per_token
    if found is None:
        return _Missing("Likelihood of true pairs", "held-out pictures with captions")
    rows = (
        (name, *_decimals(rate))
        for name, rate in (("image token", found.image), ("caption token", found.caption))
    )
    return section(
        "Likelihood of true pairs",
        "What the model needs to write true captions and pictures down; fewer bits are better.",
        *table(("bits per", "mean", "interval", "pairs"), rows),
    )


def _reconstruction(evaluation: Evaluation) -> list[str] | _Missing:
    found = evaluation.reconstruction
    if found is None:
        return _Missing("Reconstruction by the dVAE", "held-out pictures")
    facts = {
        "PSNR": f"{found.psnr_db:.2f} dB",
        "SSIM": f"{found.ssim:.4f}",
        "codebook usage": percent(found.codebook_usage),
        "codebook perplexity": f"{found.codebook_perplexity:,.0f}",
        "pictures": f"{found.pictures:,}",
    }
    return section(
        "Reconstruction by the dVAE",
        "True pictures, turned into tokens and back: no drawn picture can be better.",
        *table(("", ""), facts.items()),
    )


def _memorisation(evaluation: Evaluation) -> list[str] | _Missing:
    found = evaluation.memorisation
    if found is None:
        return _Missing("Memorisation", "the training pictures and held-out ones")
    seen = found.trained_on
    return section(
        "Memorisation",
        f"Distance to the nearest of {found.training_pictures:,} training pictures. A model that "
        "copies draws far nearer to them than true pictures are that it never saw."
        + (
            f" **{seen:,} of the true pictures are training pictures.**"
            if seen
            else " None of the true pictures is among them, pixel for pixel."
        ),
        *table(
            ("pictures", "median", "nearest 5 %", "nearest", "compared"),
            (("drawn", *_near(found.generated)), ("true", *_near(found.heldout))),
        ),
    )


def _rate_groups(evaluation: Evaluation) -> dict[str, Mapping[str, Rate]]:
    groups = {
        "By attribute, a candidate at random": evaluation.attributes,
        "By kind of scene, a candidate at random": evaluation.kinds,
        "By kind of scene, after ranking": evaluation.ranked_kinds,
    }
    return {title: rates for title, rates in groups.items() if rates}


def _has_curves(curves: Mapping[str, Sequence[HitAtK]]) -> bool:
    """Whether there is anything to plot: one candidate makes a point, not a curve."""
    return bool(curves) and all(len(points) > 1 for points in curves.values())


def _points(curves: Mapping[str, Sequence[HitAtK]]) -> list[tuple[str, ...]]:
    """A row for each tabulated k: k, and the rate with its interval in every curve."""
    by_k = [{point.k: point for point in points} for points in curves.values()]
    return [
        (str(k), *(_point(points[k]) for points in by_k))
        for k in TABLE_KS
        if all(k in points for points in by_k)
    ]


def _point(point: HitAtK) -> str:
    return f"{percent(point.rate)} ({interval_text(point.low, point.high)})"


def _decimals(rate: Rate, *, times: float = 1) -> tuple[str, ...]:
    mean, low, high = (times * value for value in (rate.rate, rate.low, rate.high))
    return f"{mean:.3f}", f"{low:.3f} to {high:.3f}", f"{rate.n:,}"


def _near(near: Nearness) -> tuple[str, ...]:
    return (*(f"{value:.4g}" for value in (near.median, near.p05, near.least)), f"{near.n:,}")


def _gap(evaluation: Evaluation, name: str) -> str:
    if name not in evaluation.gap_closed:
        return ""
    gap = evaluation.gap_closed[name]
    return "no gap" if gap is None else f"{percent(gap.rate)} ({interval_text(gap.low, gap.high)})"


def _plot(title: str, file: str, *, show: bool) -> list[str]:
    return [f"![{title}]({file})", ""] if show else []
