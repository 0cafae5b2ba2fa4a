"""Pieces that every report is made of: Markdown sections, tables, and figures for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dalle.evaluate.estimators import Rate


def section(title: str, sentence: str, *lines: str) -> list[str]:
    """Lines of a section: its title, what it is about, and the rest."""
    return [f"## {title}", "", sentence, "", *lines]


def joined(sections: Iterable[Iterable[str]]) -> str:
    """The lines of all sections as one text."""
    return "\n".join(line for lines in sections for line in lines).rstrip() + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, the first column to the left, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def plain(text: str) -> str:
    """`text` on one line, none of its characters read as Markdown, all of them valid Unicode."""
    text = text.encode(errors="backslashreplace").decode()  # a folder's name may be any bytes
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", " ".join(text.split()))


def rate_cells(rate: Rate) -> tuple[str, str, str]:
    """Cells of a rate: value, interval, cases."""
    return percent(rate.rate), f"{interval_text(rate.low, rate.high)} %", f"{rate.n:,}"


def percent(rate: float) -> str:
    """A share as a percentage: "12.5 %"."""
    return f"{100 * rate:.1f} %"


def interval_text(low: float, high: float) -> str:
    """Two shares as percentages without the sign: "1.5 to 20.0"."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def duration(seconds: float) -> str:
    """A time as "1 h 5 min", "3 min 20 s" or "9 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
