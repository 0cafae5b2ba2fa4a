"""Caption files as people write them, and as spreadsheets save them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dalle.caption_file import MAX_BYTES
from dalle.evaluate.caption_sets import CaptionSet, read_captions
from dalle.prompts import MAX_CAPTION_CHARS

BOM = b"\xef\xbb\xbf"


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_text_file_holds_one_caption_a_line(tmp_path: Path, bom: bytes, newline: str) -> None:
    lines = ("a Fox", "", "  zwei Äpfel, rot\t", " \t ", "a\u2028cat", "a fox")
    path = write(tmp_path, "set.TXT", bom + newline.join(lines).encode())
    # Only newlines end a line: not U+2028, which `str.splitlines` would take for one.
    captions = ("a Fox", "zwei Äpfel, rot", "a\u2028cat", "a fox")
    assert read_captions(path) == CaptionSet(captions=captions, skipped=2)


@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_table_holds_a_column_of_captions(
    tmp_path: Path, bom: bytes, ending: str, mark: str
) -> None:
    rows = [["id", " caption ", "note"], ["1", "a fox", "x"], ["2", f'"red{mark} ""hot"" car"', ""]]
    rows += [["3", '"two\nlines"', ""], ["4", "an owl"]]
    path = write(tmp_path, f"set.{ending}", bom + "\n".join(map(mark.join, rows)).encode())
    captions = ("a fox", f'red{mark} "hot" car', "two\nlines", "an owl")
    assert read_captions(path) == CaptionSet(captions=captions, skipped=0)


def test_the_column_may_be_named_in_capitals(tmp_path: Path) -> None:
    path = write(tmp_path, "set.csv", "id,Caption\n1,a fox\n")
    assert read_captions(path) == CaptionSet(captions=("a fox",), skipped=0)


def test_rows_without_caption_are_skipped_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "set.csv", "caption,id\na fox,1\n,2\n\na cat,3\n  ,4\n")
    with caplog.at_level(logging.WARNING):
        assert read_captions(path) == CaptionSet(captions=("a fox", "a cat"), skipped=3)
    assert "set.csv: 3 of its lines hold no caption and were skipped: 3, 4, 6" in caplog.text


def test_a_long_list_of_skipped_lines_is_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_captions(write(tmp_path, "set.txt", "a fox" + "\n" * 12 + "a cat"))
    assert caplog.text.rstrip().endswith("skipped: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 1 more")


def test_a_whole_file_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_captions(write(tmp_path, "set.txt", "a fox\na cat\n")).skipped == 0
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,a fox\n", "first line has 'id', 'text'; name the column so there"),
        ("a.csv", "caption;id\na fox;1\n", "has 'caption;id'; name the .* with commas"),
        ("a.tsv", "caption,id\na fox,1\n", "has 'caption,id'; name the .* with tabs"),
        ("a.csv", "caption,caption\na,b\n", "one column named 'caption'"),
        ("a.csv", "", "its first line has none"),
        ("a.csv", "caption\na fox, red\n", "line 2: 2 columns where the first line has 1; put do"),
        ("a.csv", 'caption\n"a fox" red\n', "line 2: not a table: "),
        ("a.csv", 'caption\na fox\n"a cat\n', "line 3: not a table: unexpected end"),
        ("a.csv", "caption\n,\n", "line 2: 2 columns"),
        ("a.csv", "caption\n", "holds no caption; write at least one"),
        ("a.txt", " \n\n", "holds no caption; write at least one"),
        ("a.txt", b"", "holds no caption"),
        ("a.txt", b"a fox\nK\xe4se\n", "must be UTF-8, but line 2 is not .*; save it as UTF-8"),
        ("a.csv", "caption\na fox".encode("utf-16"), "must be UTF-8, but line 1 is not"),
        ("a.txt", "a fox\n\n" + "x" * (MAX_CAPTION_CHARS + 1), "line 3: .* at most 2,000 charac"),
        ("a.txt", "a fox\n\x07\n", r"line 2: a caption must not be empty"),
        ("a.json", '["a fox"]', r"must be a \.txt, \.csv or \.tsv file, got .*a\.json"),
        ("a", "a fox", r"must be a \.txt, \.csv or \.tsv file"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_captions(path)
    assert str(path) in str(caught.value)


def test_a_large_file_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="larger than 16,777,216 bytes; split it"):
        read_captions(path)


def test_a_long_header_is_not_repeated_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "set.csv", "x" * 10_000 + "\na fox\n")
    with pytest.raises(ValueError, match="one column named") as caught:
        read_captions(path)
    assert len(str(caught.value)) < 600 + len(str(path))


def test_the_newline_is_no_part_of_a_long_caption(tmp_path: Path) -> None:
    longest = "x" * MAX_CAPTION_CHARS
    assert read_captions(write(tmp_path, "set.txt", f"{longest}\n")).captions == (longest,)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_captions(tmp_path / "none.txt")
