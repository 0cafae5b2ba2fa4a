"""Captions in a file that a person wrote: one a line, or a column of a table."""

from __future__ import annotations

import csv
import io
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

MAX_BYTES = 16 << 20
"""Largest file that is read."""
NAMED_LINES = 10
"""Lines without caption that the warning names."""
COLUMN = "caption"
"""Header of the column that tables hold their captions in; other columns are ignored."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Endings of tables, and what separates their columns."""
STDIN = Path("-")
"""Stands for standard input, which holds one caption a line."""


@dataclass(frozen=True, kw_only=True)
class CaptionLine:
    """One caption of a file."""

    line: int
    """Number of the line it stands on, or its row ends on, from 1."""
    caption: str
    """As written, without white space around it; never empty, but not yet checked."""


@dataclass(frozen=True, kw_only=True)
class CaptionLines:
    """The captions of a file."""

    name: str
    """The file's, as messages call it."""
    lines: tuple[CaptionLine, ...]
    """In the file's order; never empty."""
    empty: tuple[int, ...]
    """Numbers of the lines without caption, which were left out."""


def read_caption_lines(path: Path) -> CaptionLines:
    """The captions in a text file or a table.

    Args:
        path: UTF-8, with or without byte order mark. `.txt` holds one caption a line; `.csv`
            and `.tsv` hold a column named `caption`; `STDIN` is read to its end.

    Raises:
        OSError: The file cannot be read.
        ValueError: Its ending is another, it is too large, not UTF-8, not a table, lacks the
            column, or holds no caption.
    """
    if path == STDIN:
        content = b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_BYTES + 1)
        return _found(content, name="standard input", ending=".txt")
    _check_ending(str(path))
    with path.open("rb") as file:
        return caption_lines(file.read(MAX_BYTES + 1), name=str(path))


def warn_skipped(found: CaptionLines) -> None:
    """Name the lines of a file that hold no caption, if there are any."""
    lines = found.empty
    if lines:
        named = ", ".join(map(str, lines[:NAMED_LINES]))
        more = f" and {len(lines) - NAMED_LINES} more" if lines[NAMED_LINES:] else ""
        log.warning(
            "%s: %d of its lines hold no caption and were skipped: %s%s",
            found.name, len(lines), named, more,
        )  # fmt: skip


def caption_lines(content: bytes, *, name: str) -> CaptionLines:
    """The captions in the content of a file, as `read_caption_lines` reads it.

    Args:
        content: The file's bytes.
        name: The file's name, whose ending says what it is; messages begin with it.

    Raises:
        ValueError: As `read_caption_lines`.
    """
    return _found(content, name=name, ending=_check_ending(name))


def _found(content: bytes, *, name: str, ending: str) -> CaptionLines:
    text = _decode(content, name)
    cells = _lines(text) if ending == ".txt" else _column(name, text, DELIMITERS[ending])
    found, empty = [], []
    for line, cell in cells:
        if caption := cell.strip():
            found.append(CaptionLine(line=line, caption=caption))
        else:
            empty.append(line)
    if not found:
        raise ValueError(f"{name} holds no caption; write at least one, such as 'a fox'")
    return CaptionLines(name=name, lines=tuple(found), empty=tuple(empty))


def _check_ending(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix != ".txt" and suffix not in DELIMITERS:
        raise ValueError(
            f"captions must be a .txt, .csv or .tsv file, got {name}; "
            "write one caption a line to a .txt file"
        )
    return suffix


def _decode(content: bytes, name: str) -> str:
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES:,} bytes; split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = content.count(b"\n", 0, err.start) + 1
        raise ValueError(
            f"{name} must be UTF-8, but line {line} is not ({err.reason}); save it as UTF-8"
        ) from err


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; only newlines end one, not every separator of Unicode."""
    return enumerate(io.StringIO(text, newline=None), start=1)


def _column(name: str, text: str, delimiter: str) -> Iterator[tuple[int, str]]:
    """The column's cells with the numbers of the lines that their rows end on."""
    rows = csv_rows(name, io.StringIO(text, newline=""), delimiter)
    header = [title.strip() for title in next(rows, (0, []))[1]]
    names = [title.lower() for title in header]
    if names.count(COLUMN) != 1:
        separator = "tabs" if delimiter == "\t" else "commas"
        titles = ", ".join(map(repr, header)) or "none"
        raise ValueError(
            f"{name} must have one column named {COLUMN!r}, but its first line has "
            f"{titles:.300}; name the column so there, and save it with {separator} between "
            "columns"
        )
    column = names.index(COLUMN)
    for line, row in rows:
        # A caption with a comma and no quotes would otherwise be cut there, unnoticed.
        if len(row) > len(header):
            raise ValueError(
                f"{name}, line {line}: {len(row)} columns where the first line has "
                f"{len(header)}; put double quotes around text that holds a separator"
            )
        yield line, row[column] if column < len(row) else ""


def csv_rows(name: str, lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, its header among them, with the numbers of the lines they end on.

    Args:
        name: The file's name; messages begin with it.
        lines: Its text, whose line ends are left as they are.
        delimiter: What separates columns.

    Raises:
        ValueError: A row cannot be read.
    """
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as err:
        raise ValueError(f"{name}, line {rows.line_num}: not a table: {err}") from err
