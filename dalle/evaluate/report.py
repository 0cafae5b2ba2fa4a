"""An evaluation as a Markdown page with its plots beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dalle.evaluate.estimators import Rate
from dalle.evaluate.plots import draw_rankers, draw_rates, draw_temperatures, require_matplotlib
from dalle.evaluate.results import Evaluation, HitAtK, Nearness

REPORT_FILE = "report.md"
RANKERS_FILE = "hit-at-k.png"
TEMPERATURES_FILE = "temperatures.png"
RATES_FILE = "attributes.png"
TABLE_KS = (1, 2, 4, 8, 16, 32)
"""Numbers of candidates that tables show; the plots show all."""
RANKER_NAMES = {"random": "random", "likelihood": "likelihood", "clip": "CLIP", "oracle": "oracle"}
CURVE_NAMES = {
    "random": "any of k",
    "likelihood": "best of k by likelihood",
    "clip": "best of k by CLIP",
}

NO_TRUTH = "Not measured: it needs captions with ground truth (emoji scenes) and their candidates."
NO_TEMPERATURES = "Not measured: no other temperatures were asked for, or there is no ground truth."
NO_RETRIEVAL = "Not measured: it needs a CLIP model and more than one caption."
NO_BITS = "Not measured: it needs held-out pictures with captions."
NO_RECONSTRUCTION = "Not measured: it needs held-out pictures."
NO_MEMORISATION = "Not measured: it needs the training pictures and held-out ones."


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
    if groups := _rate_groups(evaluation):
        draw_rates(groups, folder / RATES_FILE)
    page = folder / REPORT_FILE
    page.write_text(markdown(evaluation), encoding="utf-8")
    return page


def markdown(evaluation: Evaluation) -> str:
    """The page; it links plots of `write_report`'s names in its own folder."""
    sections = (
        _header(evaluation),
        _hit_at_1(evaluation),
        _hit_at_k(evaluation),
        _temperatures(evaluation),
        _attributes(evaluation),
        _retrieval(evaluation),
        _bits(evaluation),
        _reconstruction(evaluation),
        _memorisation(evaluation),
    )
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


def _header(evaluation: Evaluation) -> list[str]:
    facts = {
        "model": _plain(evaluation.model),
        "fingerprint": _plain(evaluation.fingerprint),
        "captions": f"{evaluation.captions:,} of {_plain(evaluation.set)}",
        "candidates per caption": f"{evaluation.candidates:,}",
        "seed": str(evaluation.seed),
        "temperature": f"{evaluation.temperature:g}",
        "time taken": _duration(evaluation.seconds),
    }
    return [
        f"# Evaluation of {_plain(evaluation.model)}",
        "",
        *_table(("", ""), facts.items()),
        "Intervals are 95 %.",
        "",
    ]


def _hit_at_1(evaluation: Evaluation) -> list[str]:
    found = evaluation.hit_at_1
    if found is None:
        return _section("Hit at 1", NO_TRUTH)
    rows = []
    for name, rate in (
        ("random", found.random),
        ("likelihood", found.likelihood),
        ("clip", found.clip),
        ("oracle", found.oracle),
    ):
        cells = ("not measured", "", "") if rate is None else _rate(rate)
        rows.append((RANKER_NAMES[name], *cells, _gap(evaluation, name)))
    return _section(
        "Hit at 1",
        "The share of captions drawn right when one candidate is shown. Gap closed: how much of "
        "the way from a random choice to the oracle, which knows the truth, a ranker goes.",
        *_table(("chosen by", "hit@1", "interval", "captions", "gap closed"), rows),
    )


def _hit_at_k(evaluation: Evaluation) -> list[str]:
    if not evaluation.hit_at_k:
        return _section("Hit at k", NO_TRUTH)
    names = sorted(evaluation.hit_at_k, key=[*CURVE_NAMES, *evaluation.hit_at_k].index)
    titles = [CURVE_NAMES.get(name, _plain(name)) for name in names]
    return _section(
        "Hit at k",
        "Any of k: at least one of k random candidates is right, the most that any ranker can "
        "reach. Best of k: the one that the ranker puts first among them is right.",
        *_table(("k", *titles), _points({name: evaluation.hit_at_k[name] for name in names})),
        *_plot("Hit at k by ranker", RANKERS_FILE, show=_has_curves(evaluation.hit_at_k)),
    )


def _temperatures(evaluation: Evaluation) -> list[str]:
    curves = evaluation.temperatures
    if not curves:
        return _section("Temperature", NO_TEMPERATURES)
    best = {
        point.k: f"{_percent(point.rate)} at {point.temperature:g}" for point in evaluation.envelope
    }
    return _section(
        "Temperature",
        "At least one of k random candidates is right, by sampling temperature. The best of "
        "several estimates is biased upwards: part of what makes it the best is luck.",
        *_table(
            ("k", *map(_plain, curves), "best"),
            ((k, *cells, best.get(int(k), "")) for k, *cells in _points(curves)),
        ),
        *_plot("Hit at k by temperature", TEMPERATURES_FILE, show=_has_curves(curves)),
    )


def _attributes(evaluation: Evaluation) -> list[str]:
    groups = _rate_groups(evaluation)
    if not groups:
        return _section("Attributes", NO_TRUTH)
    tables = [
        line
        for title, rates in groups.items()
        for line in _table(
            (title, "right", "interval", "cases"),
            ((_plain(name), *_rate(rate)) for name, rate in rates.items()),
        )
    ]
    return _section(
        "Attributes",
        "What pictures show of what their captions ask for.",
        *tables,
        *_plot("Attributes drawn right", RATES_FILE, show=True),
    )


def _retrieval(evaluation: Evaluation) -> list[str]:
    found = evaluation.retrieval
    if found is None:
        return _section("Retrieval", NO_RETRIEVAL)
    rows = (("R@1", *_rate(found.r_at_1)), ("R@5", *_rate(found.r_at_5)))
    return _section(
        "Retrieval",
        f"Whether CLIP finds the caption of a drawn picture among {found.captions:,} captions, "
        "first or among the first five.",
        *_table(("", "found", "interval", "pictures"), rows),
    )


def _bits(evaluation: Evaluation) -> list[str]:
    found = evaluation.bits_per_token
    if found is None:
        return _section("Likelihood of held-out pairs", NO_BITS)
    rows = (
        (name, f"{rate.rate:.3f}", f"{rate.low:.3f} to {rate.high:.3f}", f"{rate.n:,}")
        for name, rate in (("image token", found.image), ("caption token", found.caption))
    )
    return _section(
        "Likelihood of held-out pairs",
        "What the model needs to write true captions and pictures down; fewer bits are better.",
        *_table(("bits per", "mean", "interval", "pairs"), rows),
    )


def _reconstruction(evaluation: Evaluation) -> list[str]:
    found = evaluation.reconstruction
    if found is None:
        return _section("Reconstruction by the dVAE", NO_RECONSTRUCTION)
    facts = {
        "PSNR": f"{found.psnr_db:.2f} dB",
        "SSIM": f"{found.ssim:.4f}",
        "codebook usage": _percent(found.codebook_usage),
        "codebook perplexity": f"{found.codebook_perplexity:,.0f}",
        "pictures": f"{found.pictures:,}",
    }
    return _section(
        "Reconstruction by the dVAE",
        "Held-out pictures, turned into tokens and back: no drawn picture can be better.",
        *_table(("", ""), facts.items()),
    )


def _memorisation(evaluation: Evaluation) -> list[str]:
    found = evaluation.memorisation
    if found is None:
        return _section("Memorisation", NO_MEMORISATION)
    return _section(
        "Memorisation",
        f"Distance to the nearest of {found.training_pictures:,} training pictures. A model that "
        "copies draws far nearer to them than held-out pictures are.",
        *_table(
            ("pictures", "median", "nearest 5 %", "nearest", "compared"),
            (("drawn", *_near(found.generated)), ("held out", *_near(found.heldout))),
        ),
    )


def _section(title: str, sentence: str, *lines: str) -> list[str]:
    return [f"## {title}", "", sentence, "", *lines]


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
    return f"{_percent(point.rate)} ({_interval(point.low, point.high)})"


def _rate(rate: Rate) -> tuple[str, str, str]:
    """Cells of a rate: value, interval, cases."""
    return _percent(rate.rate), f"{_interval(rate.low, rate.high)} %", f"{rate.n:,}"


def _near(near: Nearness) -> tuple[str, ...]:
    return (*(f"{value:.4g}" for value in (near.median, near.p05, near.least)), f"{near.n:,}")


def _gap(evaluation: Evaluation, name: str) -> str:
    if name not in evaluation.gap_closed:
        return ""
    gap = evaluation.gap_closed[name]
    return "no gap" if gap is None else _percent(gap)


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _plot(title: str, file: str, *, show: bool) -> list[str]:
    return [f"![{title}]({file})", ""] if show else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, the first column to the left, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _plain(text: str) -> str:
    """`text` on one line, none of its characters read as Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", " ".join(text.split()))
