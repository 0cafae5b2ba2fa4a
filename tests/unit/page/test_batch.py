"""Caption files that people upload, and the command that draws the longer ones."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from dalle import flags
from dalle.config import Generate
from dalle.page.batch import command_line, read_captions
from dalle.page.faults import PageFault
from dalle.page.limits import Limits

LIMITS = Limits(batch_rows=3)
BOM = "\ufeff"


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_captions_come_in_their_order_from_text_and_table(tmp_path: Path) -> None:
    expected = ("a fox", "two apples, red", "a fox")
    text = write(tmp_path, "a.txt", f"{BOM}a fox\r\n\r\n  two apples, red\na fox\n")
    table = write(tmp_path, "b.csv", f'{BOM}id,caption\n1,a fox\n2,"two apples, red"\n3,\n4,a fox')
    assert read_captions(text, LIMITS) == expected
    assert read_captions(str(table), LIMITS) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,a fox\n", r"^a\.csv must have one column named 'caption'"),
        ("a.txt", "\n \n", r"^a\.txt holds no caption"),
        ("a.json", "[]", r"must be a \.txt, \.csv or \.tsv file, got a\.json"),
        ("a.txt", "a fox\n\n" + "x" * 1001, r"^a\.txt, line 3: .*at most 1,000 characters"),
        ("a.txt", "a fox\n\x07\n", r"^a\.txt, line 2: a caption must not be empty"),
    ],
)
def test_files_that_cannot_be_drawn_are_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(PageFault, match=message) as caught:
        read_captions(write(tmp_path, name, content), LIMITS)
    assert str(tmp_path) not in str(caught.value)


def test_more_captions_than_the_page_takes_get_the_command(tmp_path: Path) -> None:
    path = write(tmp_path, "my $(touch x) captions.txt", "a fox\n" * 4)
    with pytest.raises(PageFault, match="holds 4 captions, more than the 3") as caught:
        read_captions(path, LIMITS)
    command = str(caught.value).partition("draw them all with: ")[2]
    assert command == command_line(path.name)
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("dalle", "generate")
    settings = flags.parse(Generate, words, prog="dalle generate", positional="captions")
    assert settings.caption_file == Path(path.name)


def test_only_uploads_are_read(tmp_path: Path) -> None:
    with pytest.raises(PageFault, match="there is no file yet; choose one first"):
        read_captions(None, LIMITS)
    with pytest.raises(PageFault, match="a file must be uploaded from your device"):
        read_captions("https://example.org/captions.txt", LIMITS)


def test_a_file_is_not_read_beyond_what_its_captions_can_take(tmp_path: Path) -> None:
    """One of 16 MiB once took 30 s and over a gigabyte, only to be refused."""
    large = tmp_path / "large.txt"
    with large.open("wb") as file:
        file.truncate(LIMITS.caption_file_bytes + 1)
    with pytest.raises(PageFault, match=r"has over 0\.25 MiB; this page draws 3 .*large\.txt$"):
        read_captions(large, LIMITS)
    most = "\U0001f98a" * LIMITS.caption_chars + "\n"
    full = write(tmp_path, "most.txt", most * Limits().batch_rows)
    assert len(read_captions(full, Limits())) == Limits().batch_rows
