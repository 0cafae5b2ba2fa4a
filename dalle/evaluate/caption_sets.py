"""Captions to evaluate on, read from a file that a person wrote."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dalle.prompts import check_prompt

log = logging.getLogger(__name__)

MAX_BYTES = 16 << 20
"""Largest file that is read."""
COLUMN = "caption"
"""Header of the column that tables hold their captions in; other columns are ignored."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Endings of tables, and what separates their columns."""
NAMED_LINES = 10
"""Skipped lines that the warning names."""


@dataclass(frozen=True, kw_only=True)
class CaptionSet:
    """The captions of a file."""

    captions: tuple[str, ...]
    """In the file's order, as written, without white space around them; never empty."""
    skipped: int
    """Empty lines, or rows without caption, that were left out."""


def read_captions(path: Path) -> CaptionSet:
    """The captions in a text file or a table, each one that a model can be asked to draw.

    Args:
        path: UTF-8, with or without byte order mark. `.txt` holds one caption a line; `.csv`
            and `.tsv` hold a column named `caption`.

    Raises:
        OSError: The file cannot be read.
        ValueError: Its ending is another, it is too large, not UTF-8, not a table, lacks the
            column, or holds no caption or one that cannot be drawn.
    """
    suffix = path.suffix.lower()
    if suffix != ".txt" and suffix not in DELIMITERS:
        raise ValueError(
            f"captions must be a .txt, .csv or .tsv file, got {path}; "
            "write one caption a line to a .txt file"
        )
    text = _decode(path)
    cells = _lines(text) if suffix == ".txt" else _column(path, text, DELIMITERS[suffix])
    captions, empty = [], []
    for line, cell in cells:
        caption = cell.strip()
        if not caption:
            empty.append(line)
            continue
        try:
            check_prompt(caption)
        except ValueError as err:
            raise ValueError(f"{path}, line {line}: {err}") from err
        captions.append(caption)
    if not captions:
        raise ValueError(f"{path} holds no caption; write at least one, such as 'a fox'")
    if empty:
        _warn_skipped(path, empty)
    return CaptionSet(captions=tuple(captions), skipped=len(empty))


def _decode(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes; split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = content.count(b"\n", 0, err.start) + 1
        raise ValueError(
            f"{path} must be UTF-8, but line {line} is not ({err.reason}); save it as UTF-8"
        ) from err


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; only newlines end one, not every separator of Unicode."""
    return enumerate(io.StringIO(text, newline=None), start=1)


def _column(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, str]]:
    """The column's cells with the numbers of the lines that their rows end on."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if header.count(COLUMN) != 1:
            separator = "tabs" if delimiter == "\t" else "commas"
            names = ", ".join(map(repr, header)) or "none"
            raise ValueError(
                f"{path} must have one column named {COLUMN!r}, but its first line has "
                f"{names:.300} (columns are separated by {separator})"
            )
        column = header.index(COLUMN)
        for row in rows:
            # A caption with a comma and no quotes would otherwise be cut there, unnoticed.
            if len(row) > len(header):
                raise ValueError(
                    f"{path}, line {rows.line_num}: {len(row)} columns where the first line has "
                    f"{len(header)}; put double quotes around text that holds a separator"
                )
            yield rows.line_num, row[column] if column < len(row) else ""
    except csv.Error as err:
        raise ValueError(f"{path}, line {rows.line_num}: not a table: {err}") from err


def _warn_skipped(path: Path, lines: list[int]) -> None:
    named = ", ".join(map(str, lines[:NAMED_LINES]))
    more = f" and {len(lines) - NAMED_LINES} more" if len(lines) > NAMED_LINES else ""
    log.warning(
        "%s: %d of its lines hold no caption and were skipped: %s%s", path, len(lines), named, more
    )
