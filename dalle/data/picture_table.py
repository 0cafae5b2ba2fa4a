"""A table of pictures and captions: `metadata.jsonl`, a `.csv` or a `.tsv` beside the pictures."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle.caption_file import DELIMITERS, csv_rows
from dalle.data.folder import picture_paths
from dalle.data.sample import MAX_PICTURE_BYTES, Sample, decode_caption, read_part
from dalle.errors import DataError

log = logging.getLogger(__name__)

TABLE_SUFFIXES = (".jsonl", *DELIMITERS)
"""Endings, in lower case, of what is read as a table."""
TABLE_NAMES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)
"""Names that a table has where a folder is given instead of it."""
PICTURE_COLUMNS = ("file_name", "filename", "file", "image", "path", "file_path", "image_path")
CAPTION_COLUMNS = ("caption", "text")
MAX_CELL_CHARS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Row:
    key: str
    """Names the row in messages."""
    picture: str
    """The picture's path from the table's folder, as it is written there."""
    caption: str
    fault: str | None = None
    """Why there is nothing to read; then the others may be empty."""


class PictureTable:
    """Every row of a table, in its order; a row is a picture's path and its caption.

    Paths count from the table's folder. Column names are matched without regard to capitals. A row
    that makes no sense stays in the set as a sample that raises.

    Args:
        path: `.jsonl` holds an object a line; `.csv` and `.tsv` have their columns' names in the
            first line. UTF-8, with or without byte order mark.

    Raises:
        DataError: It has no column of pictures or none of captions, several of one kind, or no
            rows; or it is no table.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self._rows = _read_rows(path)
        digest = hashlib.sha256()
        for row in self._rows:
            size = _size(self.folder / row.picture) if row.picture else None
            text = f"{row.picture}\n{row.caption!r}\n{row.fault}\n{size}\n"
            digest.update(text.encode(errors="surrogatepass"))
        self._fingerprint = digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """A hash of the rows and of the pictures' sizes."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def pictures(self) -> set[Path]:
        """The files that are named."""
        return {self.folder / row.picture for row in self._rows if row.picture}

    def key(self, index: int) -> str:
        """What sample `index` is called; see `dalle.data.samples.SampleSet`."""
        return self._row(index).key

    def picture_name(self, index: int) -> str:
        """The picture's path, which several rows may share; see `dalle.data.samples.SampleSet`."""
        row = self._row(index)
        return posixpath.normpath(row.picture) if row.picture else row.key

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; see `dalle.data.samples.SampleSet`."""
        image, row = self.picture(index), self._row(index)
        caption = decode_caption(row.key, row.caption.encode(errors="surrogatepass"))
        return Sample(key=row.key, image=image, caption=caption)

    def picture(self, index: int) -> bytes:
        """The picture alone; see `dalle.data.samples.SampleSet`."""
        row = self._row(index)
        if row.fault:
            raise DataError(f"sample {row.key}: {row.fault}")
        return read_part(row.key, "picture", self.folder / row.picture, MAX_PICTURE_BYTES)

    def truth(self, index: int) -> Mapping[str, Any] | None:
        """None: tables hold no ground truth; see `dalle.data.samples.SampleSet`."""
        self._row(index)
        return None

    def _row(self, index: int) -> _Row:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in 0 to {len(self) - 1}, got {index}")
        return self._rows[index]


def table_in(folder: Path) -> PictureTable | None:
    """The table of a folder, where it has one; a `metadata` file of another kind is none.

    Raises:
        OSError: It cannot be read.
    """
    for path in (folder / name for name in TABLE_NAMES):
        if path.is_file():
            try:
                table = PictureTable(path)
            except DataError as err:
                log.warning("captions are looked for beside the pictures: %s", err)
                continue
            others = len(set(picture_paths(folder)) - table.pictures)
            if others:
                log.warning("%d pictures of the folder are not in %s, and left out", others, path)
            return table
    return None


_Record = Mapping[str, Any] | str
"""A row by its columns' names, or what is wrong with it."""


def _read_rows(path: Path) -> list[_Row]:
    """The rows of a table, empty ones left out.

    Raises:
        DataError: As `PictureTable`.
        OSError: It cannot be read.
    """
    # Bytes that are not UTF-8 stay what they are: names of pictures may hold some.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        delimiter = DELIMITERS.get(path.suffix.lower())
        if delimiter is None:
            titles, records = _objects(file)
        else:
            titles, records = _cells(path, file, delimiter)
    columns = (
        _column(path, titles, "pictures", PICTURE_COLUMNS),
        _column(path, titles, "captions", CAPTION_COLUMNS),
    )
    if not records:
        raise DataError(f"{path} holds no row; write at least one picture and its caption")
    times: Counter[str] = Counter()
    return [_row(line, record, columns, times) for line, record in records]


def _objects(lines: Iterable[str]) -> tuple[list[str], list[tuple[int, _Record]]]:
    """The names in the objects, and every line's object with its number."""
    records = [(number, _object(line)) for number, line in enumerate(lines, 1) if line.strip()]
    titles = {title: None for _, record in records if isinstance(record, dict) for title in record}
    return list(titles), records


def _object(line: str) -> _Record:
    """The object in a line, its names in lower case."""
    try:
        found = json.loads(line.strip())
    except (ValueError, RecursionError) as err:
        return f"it is not valid JSON: {err}"
    if not isinstance(found, dict):
        return "it is no JSON object"
    return {name.lower(): value for name, value in found.items()}


def _cells(
    path: Path, lines: Iterable[str], delimiter: str
) -> tuple[list[str], list[tuple[int, _Record]]]:
    """The names in the first line in lower case, and every row with the number of its last line."""
    csv.field_size_limit(MAX_CELL_CHARS)
    rows = csv_rows(str(path), lines, delimiter)
    records: list[tuple[int, _Record]] = []
    try:
        titles = [title.strip().lower() for title in next(rows, (0, []))[1]]
        for line, row in rows:
            if len(row) > len(titles):
                # A caption with a comma and no quotes would otherwise be cut there, unnoticed.
                fault = (
                    f"it has {len(row)} columns (the first line has {len(titles)}; put double "
                    "quotes around text that holds a separator)"
                )
                records.append((line, fault))
            elif any(cell.strip() for cell in row):
                cells = [cell.strip() for cell in row]
                records.append((line, dict(zip(titles, cells, strict=False))))
    except ValueError as err:
        raise DataError(
            f"{err}; put double quotes around text that holds quotes, and double those"
        ) from err
    return titles, records


def _column(path: Path, titles: Sequence[str], what: str, names: Sequence[str]) -> str:
    """The title of the column of `what`."""
    found = [title for title in titles if title in names]
    if len(found) != 1:
        have = ", ".join(map(repr, titles)) or "none"
        raise DataError(
            f"{path} must have exactly one column of {what} (named {' or '.join(names)}), and its "
            f"columns are {have:.300}; rename them, and save the table as UTF-8"
        )
    return found[0]


def _row(line: int, record: _Record, columns: tuple[str, str], times: Counter[str]) -> _Row:
    """A record as a sample; `times` counts how often each name was given before."""
    if isinstance(record, str):
        return _Row(key=f"line {line}", picture="", caption="", fault=record)
    name, text = (record.get(column) or "" for column in columns)
    if not isinstance(name, str) or not name.strip():
        return _Row(key=f"line {line}", picture="", caption="", fault="it names no picture")
    key = _unique(name, times)
    if not isinstance(text, str):
        return _Row(key=key, picture=name, caption="", fault="its caption is not text")
    return _Row(key=key, picture=name, caption=text)


def _unique(name: str, times: Counter[str]) -> str:
    """`name` the first time and `name#2` the next, if no picture is really called so."""
    times[name] += 1
    key = name
    while times[name] > 1 and (key := f"{name}#{times[name]}") in times:
        times[name] += 1
    times[key] += key != name
    return key


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None
