"""`dalle data convert`: Parquet files of pictures, as data sets are published, to a plain folder.

Parquet is read from end to end in groups of rows; training wants any picture at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from dalle.config import DataConvert
from dalle.console import bar_disabled
from dalle.data.images import picture_suffix, why_unreadable
from dalle.data.picture_table import CAPTION_COLUMNS, PICTURE_COLUMNS
from dalle.data.sample import MAX_PICTURE_BYTES
from dalle.errors import DalleError, DataError
from dalle.labels import shown
from dalle.whole_file import new_folder

log = logging.getLogger(__name__)

SUFFIX = ".parquet"
TABLE_FILE = "metadata.jsonl"
PER_FOLDER = 10_000
"""Pictures in a folder of files; file browsers and some file systems are slow with more."""
ROWS_AT_A_TIME = 4
_PART = re.compile(r"(?:(?P<split>.+?)-\d+-of-\d+(?:-[0-9a-f]+)?|(?:part-)?\d+.*)")
"""Name of a file that is one of many: train-00000-of-00007, 0000, part-00000-0f3c."""
_NAMED = 400
"""Characters of a list of names in a message."""


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What a file says of itself."""

    titles: list[str]
    """Names of its columns."""
    rows: int


class _Writer:
    """The folder that pictures and captions go to; a picture that comes again is written once."""

    def __init__(self, folder: Path, table: IO[str]) -> None:
        self.folder = folder
        self.table = table
        self.names: dict[bytes, str] = {}
        """File of each picture, by a hash of its bytes."""
        self.captions = 0

    def add(self, content: bytes, suffix: str, captions: Sequence[str]) -> None:
        digest = hashlib.blake2b(content, digest_size=16).digest()
        name = self.names.get(digest)
        if name is None:
            number = len(self.names)
            name = self.names[digest] = f"{number // PER_FOLDER:05d}/{number:09d}{suffix}"
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(content)
        for caption in captions:
            line = {"file_name": name, "caption": caption}
            self.table.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.captions += len(captions)


def run(settings: DataConvert) -> int:
    """Write the folder that `settings` describes; 0 when done.

    Raises:
        DataError: There are no such files, they cannot be read, or hold no picture that can be.
        DalleError: pyarrow is not installed.
        ValueError: The out folder exists, or a split of a single file is asked for.
        OSError: The out folder cannot be written.
    """
    parquet = _parquet_library()
    paths = _files(settings.data, settings.split)
    heads = {path: _head(parquet, path) for path in paths}
    columns = _columns(paths[0], heads[paths[0]].titles, settings)
    _check_columns(heads, columns)
    wanted = sum(head.rows for head in heads.values())
    if settings.limit is not None:
        wanted = min(wanted, settings.limit)
    done = faults = 0
    with (
        new_folder(settings.out) as partial,
        (partial / TABLE_FILE).open("w", encoding="utf-8") as table,
        tqdm(total=wanted, desc="convert", unit="row", disable=bar_disabled()) as bar,
    ):
        writer = _Writer(partial, table)
        for path in paths:
            for number, (picture, caption) in _rows(parquet, path, columns, most=wanted - done):
                done += 1
                bar.update()
                try:
                    content, suffix = _picture(picture)
                    writer.add(content, suffix, _captions(caption))
                except DataError as err:
                    faults += 1
                    log.warning("skipped row %d of %s: %s", number, path.name, err)
        if not writer.names:
            raise DataError(
                f"{settings.data}: none of {wanted:,} rows holds a picture and a caption; the "
                "warnings above say what is wrong with each"
            )
    log.info(
        "%d pictures with %d captions in %s, %d rows skipped",
        len(writer.names), writer.captions, settings.out, faults,
    )  # fmt: skip
    return 0


def _parquet_library() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as err:
        raise DalleError(
            "Parquet is read by pyarrow, which is not installed; install the extra `parquet`"
        ) from err
    return pyarrow.parquet


# ------------------------------------------------------------------------------------------- files


def _files(path: Path, split: str | None) -> list[Path]:
    """The Parquet files of a split, in order.

    Raises:
        DataError: There are none, or of several splits and none is named.
        ValueError: A split of a single file is asked for.
    """
    if path.is_file():
        if split is not None:
            raise ValueError(f"split {split!r} chooses among the files of a folder; {path} is one")
        return [path]
    splits: dict[str, list[Path]] = {}
    for file in sorted(path.rglob(f"*{SUFFIX}")):
        splits.setdefault(_split_of(file.relative_to(path)), []).append(file)
    if not splits:
        raise DataError(f"{path} is no Parquet file, nor a folder that holds some ({SUFFIX})")
    there = f"{', '.join(splits):.{_NAMED}}"
    if split is None:
        if len(splits) > 1:
            raise DataError(
                f"{path} holds several splits ({there}); name the one to convert with --split, and "
                "give each a folder of its own"
            )
        return next(iter(splits.values()))
    fitting = [name for name in splits if name == split or name.endswith(f"/{split}")]
    if len(fitting) != 1:
        what = "no split" if not fitting else "several splits"
        raise DataError(f"{path} has {what} {split!r}; it has {there}")
    return splits[fitting[0]]


def _split_of(file: Path) -> str:
    """What a file, by its path from the data set's folder, is a part of: its folder and split."""
    part = _PART.fullmatch(file.stem)
    own = file.stem if part is None else part["split"]
    return "/".join([*file.parent.parts, *([own] if own else [])]) or "."


def _head(parquet: Any, path: Path) -> _Head:
    """What a file says of itself.

    Raises:
        DataError: It cannot be read.
    """
    try:
        found = parquet.read_metadata(path)
        return _Head(titles=found.schema.to_arrow_schema().names, rows=found.num_rows)
    except (OSError, ValueError) as err:  # pyarrow's own errors are among them
        raise DataError(f"{path} cannot be read: {err}") from err


def _check_columns(heads: Mapping[Path, _Head], columns: Sequence[str]) -> None:
    """Refuse files without the columns.

    Raises:
        DataError: One has not all of them.
    """
    for path, head in heads.items():
        missing = [name for name in columns if name not in head.titles]
        if missing:
            raise DataError(
                f"{path} has no column {missing[0]!r}, as the first file has; it has "
                f"{', '.join(map(repr, head.titles)):.{_NAMED}}"
            )


def _columns(path: Path, titles: Sequence[str], settings: DataConvert) -> tuple[str, str]:
    """Names of the columns of pictures and of captions.

    Raises:
        DataError: There is no such column, or not exactly one.
    """
    found = []
    for what, asked, names in (
        ("image_column", settings.image_column, PICTURE_COLUMNS),
        ("caption_column", settings.caption_column, CAPTION_COLUMNS),
    ):
        usual = [name for name in titles if name.lower() in names]
        fitting = usual if asked is None else [name for name in titles if name == asked]
        if len(fitting) != 1:
            have = ", ".join(map(repr, titles))
            wanted = repr(asked) if asked else f"a column named {' or '.join(names)}"
            raise DataError(
                f"{path}: {what} must name one column, {wanted} is not exactly one, and there are "
                f"{have:.{_NAMED}}; give --{what}"
            )
        found.append(fitting[0])
    return found[0], found[1]


# -------------------------------------------------------------------------------------------- rows


def _rows(
    parquet: Any, path: Path, columns: Sequence[str], *, most: int
) -> Iterator[tuple[int, tuple[Any, Any]]]:
    """The first rows of a file, with their numbers from 1, as Arrow holds them.

    Raises:
        DataError: The file is damaged.
    """
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=list(columns)):
                for row in zip(*(batch.column(name) for name in columns), strict=True):
                    if number == most:
                        return
                    number += 1
                    yield number, row
    except (OSError, ValueError) as err:
        raise DataError(f"{path} cannot be read after row {number}: {err}") from err


def _picture(cell: Any) -> tuple[bytes, str]:
    """The file in a cell and its ending; bytes by themselves or in Hugging Face's `{bytes, path}`.

    Raises:
        DataError: There is none that can be read, as far as its first bytes tell.
    """
    held, names = cell, _is_text(cell)
    if hasattr(cell, "keys") and cell.is_valid:  # a struct
        parts = set(cell.keys())
        held = cell["bytes"] if "bytes" in parts else None
        names = "path" in parts and cell["path"].is_valid
    if held is None or not held.is_valid or _is_text(held) or not hasattr(held, "as_buffer"):
        if names:
            raise DataError(
                "it names a picture and does not hold it; write such a table as CSV or JSON lines, "
                "which are read as they are"
            )
        raise DataError("it has no picture")
    size = len(held.as_buffer())  # before it is copied
    if not 0 < size <= MAX_PICTURE_BYTES:
        raise DataError(f"its picture has {size} bytes, and must have 1 to {MAX_PICTURE_BYTES}")
    content: bytes = held.as_py()
    suffix = picture_suffix(content)
    if suffix is None:
        raise DataError(why_unreadable(content))
    return content, suffix


def _captions(cell: Any) -> list[str]:
    """The captions in a cell: one text, or a list of them.

    Raises:
        DataError: There is none, or one is not UTF-8.
    """
    is_list = cell.is_valid and hasattr(cell, "values")
    try:
        texts = [text.as_py().strip() for text in (cell if is_list else [cell]) if _is_text(text)]
    except UnicodeDecodeError as err:
        raise DataError(f"its caption is not UTF-8 ({err.reason})") from err
    found = [text for text in texts if text]
    if not found:
        raise DataError(f"it has no caption ({shown(str(cell), 60)})")
    return found


def _is_text(cell: Any) -> bool:
    return cell.is_valid and str(cell.type) in ("string", "large_string", "string_view")
