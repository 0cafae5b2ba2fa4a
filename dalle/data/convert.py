"""`dalle data convert`: Parquet files of pictures, as data sets are published, to a plain folder.

Parquet is read from end to end in groups of rows; training wants any picture at any time.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
ROWS_AT_A_TIME = 32
_OF_A_SPLIT = re.compile(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?")
"""Name of a file that is part of a split, as in train-00000-of-00007.parquet."""


def run(settings: DataConvert) -> int:
    """Write the folder that `settings` describes; 0 when done.

    Raises:
        DataError: There are no such files, they cannot be read, or hold no picture that can be.
        DalleError: pyarrow is not installed.
        ValueError: The out folder exists.
        OSError: The out folder cannot be written.
    """
    parquet = _parquet_library()
    paths = _files(settings.data, settings.split)
    try:
        files = [parquet.ParquetFile(path) for path in paths]
    except (OSError, ValueError) as err:  # pyarrow's own errors are among them
        raise DataError(f"{settings.data} cannot be read: {err}") from err
    columns = _columns(paths[0], files[0].schema_arrow.names, settings)
    rows = sum(file.metadata.num_rows for file in files)
    wanted = rows if settings.limit is None else min(rows, settings.limit)
    pictures = captions = faults = 0
    with (
        new_folder(settings.out) as partial,
        (partial / TABLE_FILE).open("w", encoding="utf-8") as table,
        tqdm(total=wanted, desc="convert", unit="row", disable=bar_disabled()) as bar,
    ):
        for path, file in zip(paths, files, strict=True):
            for number, row in _rows(path, file, columns, most=wanted - bar.n):
                bar.update()
                try:
                    content, suffix = _picture(row[columns[0]])
                    texts = _captions(row[columns[1]])
                except DataError as err:
                    faults += 1
                    log.warning("skipped row %d of %s: %s", number, path.name, err)
                    continue
                name = f"{pictures // PER_FOLDER:05d}/{pictures:09d}{suffix}"
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_bytes(content)
                for text in texts:
                    line = {"file_name": name, "caption": text}
                    table.write(json.dumps(line, ensure_ascii=False) + "\n")
                pictures += 1
                captions += len(texts)
        if not pictures:
            raise DataError(
                f"{settings.data}: none of {wanted:,} rows holds a picture and a caption; the "
                "warnings above say what is wrong with each"
            )
    log.info(
        "%d pictures with %d captions in %s, %d rows skipped",
        pictures, captions, settings.out, faults,
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


def _files(path: Path, split: str | None) -> list[Path]:
    """The Parquet files of a split, in order.

    Raises:
        DataError: There are none, or of several splits and none is named.
    """
    if path.is_file():
        return [path]
    found = sorted(path.rglob(f"*{SUFFIX}"))
    if not found:
        raise DataError(f"{path} is no Parquet file, nor a folder that holds some ({SUFFIX})")
    splits: dict[str, list[Path]] = {}
    for file in found:
        name = _OF_A_SPLIT.fullmatch(file.stem)
        splits.setdefault(name[1] if name else file.stem, []).append(file)
    if split is None and len(splits) > 1:
        raise DataError(
            f"{path} holds several splits ({', '.join(splits)}); name the one to convert with "
            "--split, and give each a folder of its own"
        )
    wanted = next(iter(splits)) if split is None else split
    if wanted not in splits:
        raise DataError(f"{path} has no split {split!r}; it has {', '.join(splits)}")
    return splits[wanted]


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
                f"{have:.400}; give --{what}"
            )
        found.append(fitting[0])
    return found[0], found[1]


def _rows(
    path: Path, file: Any, columns: Sequence[str], *, most: int
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The first rows of a file, with their numbers from 1.

    Raises:
        DataError: The file is damaged, or has other columns than the first one.
    """
    number = 0
    try:
        for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=list(columns)):
            for row in batch.to_pylist():
                if number == most:
                    return
                number += 1
                yield number, row
    except (OSError, ValueError, KeyError) as err:
        raise DataError(f"{path} cannot be read after row {number}: {err}") from err


def _picture(cell: object) -> tuple[bytes, str]:
    """The file in a cell and its ending; bytes by themselves or in Hugging Face's `{bytes, path}`.

    Raises:
        DataError: There is none that can be read, as far as its first bytes tell.
    """
    match cell:
        case bytes() as content if content:
            pass
        case {"bytes": bytes() as content} if content:
            pass
        case str() | {"path": str()}:
            raise DataError(
                "it names a picture and does not hold it; write such a table as CSV or JSON lines, "
                "which are read as they are"
            )
        case _:
            raise DataError("it has no picture")
    if len(content) > MAX_PICTURE_BYTES:
        raise DataError(f"its picture has {len(content)} bytes, over {MAX_PICTURE_BYTES}")
    suffix = picture_suffix(content)
    if suffix is None:
        raise DataError(why_unreadable(content))
    return content, suffix


def _captions(cell: object) -> list[str]:
    """The captions in a cell: one text, or a list of them.

    Raises:
        DataError: There is none.
    """
    texts = cell if isinstance(cell, list) else [cell]
    found = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    if not found:
        raise DataError(f"it has no caption ({shown(repr(cell), 60)})")
    return found
