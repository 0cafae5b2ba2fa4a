"""Data sets made to break their readers: answered, counted, never a crash or a full memory."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from dalle.data.samples import open_samples
from dalle.data.tar_headers import list_members
from dalle.errors import DataError

MANY_DIGITS = "9" * 5000


def header(name: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    "record",
    [f"5011 size={MANY_DIGITS}\n", f"{MANY_DIGITS} size=1\n"],
    ids=["size", "length of the record"],
)
def test_a_pax_number_of_thousands_of_digits_is_no_number(record: str, tmp_path: Path) -> None:
    """Python refuses to read such numbers, and the whole data set once went down with them."""
    content = record.encode()
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(header("pax", len(content), tarfile.XHDTYPE) + padded(content))
        file.write(header("0.txt", 5, tarfile.REGTYPE) + padded(b"a fox") + bytes(1024))
    listing = list_members(tmp_path / "a.tar")
    assert [(one.name, one.size) for one in listing.members] == [("0.txt", 5)]
    assert listing.torn is None


def test_an_index_that_promises_a_trillion_samples_is_refused(tmp_path: Path) -> None:
    """Each missing sample is a placeholder in memory."""
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("0.png", "0.txt"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    index = {"shards": [{"file": "0.tar", "scenes": 10**12}]}
    (tmp_path / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"'0\.tar' with 1,000,000,000,000 scenes, over 10,000,000"):
        open_samples(tmp_path)
