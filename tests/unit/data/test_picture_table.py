"""Tables of pictures and captions, as people and other tools write them."""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path

import pytest

from dalle.data.folder import PictureFolder
from dalle.data.samples import open_samples, samples_together
from dalle.errors import DataError
from tests.unit.data.sets import captions, png

ROWS = (("cats/1.png", 'a cat, "red"'), ("2.png", "zwei Äpfel"), ("cats/1.png", "the same cat"))


def write_pictures(folder: Path) -> None:
    for number, name in enumerate(dict.fromkeys(name for name, _ in ROWS)):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(number))


def table(kind: str, titles: tuple[str, str] = ("file_name", "text")) -> str:
    if kind == "jsonl":
        return "\n".join(
            json.dumps({"id": 7, **dict(zip(titles, row, strict=True))}) for row in ROWS
        )
    mark = {"csv": ",", "tsv": "\t"}[kind]
    cells = [("id", *titles), *(("7", name, text.replace('"', '""')) for name, text in ROWS)]
    return "".join(mark.join(f'"{cell}"' for cell in row) + "\r\n" for row in cells)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("titles", [("file_name", "text"), ("Image", "Caption")])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_a_row_is_a_picture_and_its_caption(
    tmp_path: Path, kind: str, titles: tuple[str, str], bom: str
) -> None:
    write_pictures(tmp_path)
    path = tmp_path / f"Pictures.{kind.upper()}"
    path.write_text(bom + table(kind, titles), encoding="utf-8", newline="")
    samples = open_samples(path)
    assert captions(samples) == [text for _, text in ROWS]
    assert [samples.key(index) for index in range(3)] == ["cats/1.png", "2.png", "cats/1.png#2"]
    assert [samples[index].image for index in range(3)] == [png(0), png(1), png(0)]
    assert samples.picture(1) == png(1)
    assert samples.truth(1) is None
    assert samples_together(path) == 1
    assert pickle.loads(pickle.dumps(samples))[2] == samples[2]
    with pytest.raises(IndexError, match="0 to 2, got 3"):
        samples.key(3)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_a_folder_says_by_a_metadata_file_what_is_in_it(tmp_path: Path, kind: str) -> None:
    write_pictures(tmp_path)
    (tmp_path / "unnamed.png").write_bytes(png(9))
    (tmp_path / f"metadata.{kind}").write_text(table(kind), encoding="utf-8")
    assert captions(open_samples(tmp_path)) == [text for _, text in ROWS]


def test_a_metadata_file_of_another_kind_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "1.png").write_bytes(png())
    (tmp_path / "1.txt").write_text("a fox")
    (tmp_path / "metadata.csv").write_text("camera,lens\nx,y\n")
    with caplog.at_level(logging.WARNING):
        samples = open_samples(tmp_path)
    assert isinstance(samples, PictureFolder)
    assert captions(samples) == ["a fox"]
    assert "captions are looked for beside the pictures: " in caplog.text
    assert "its columns are 'camera', 'lens'" in caplog.text


def test_rows_of_one_picture_name_it_alike(tmp_path: Path) -> None:
    """Bug: what was set aside by rows could show pictures that were trained on."""
    path = tmp_path / "a.csv"
    path.write_text("file,text\n1.png,a\n2.png,b\n./1.png,c\n,d\n,e\n", encoding="utf-8")
    samples = open_samples(path)
    names = [samples.picture_name(index) for index in range(5)]
    assert names == ["1.png", "2.png", "1.png", "line 5", "line 6"]


def test_no_two_rows_have_one_name(tmp_path: Path) -> None:
    """Bug: the second row of a.png was called like a picture that was really called a.png#2."""
    rows = ["a.png", "a.png", "a.png#2", "a.png", "b.png", "b.png#2", "b.png", "b.png"]
    path = tmp_path / "a.csv"
    path.write_text("file,text\n" + "".join(f"{name},x\n" for name in rows), encoding="utf-8")
    samples = open_samples(path)
    keys = [samples.key(index) for index in range(len(rows))]
    assert len(set(keys)) == len(rows)
    assert [key for key in keys if "b.png" in key] == ["b.png", "b.png#2", "b.png#3", "b.png#4"]


@pytest.mark.parametrize(
    ("kind", "row", "key", "fault"),
    [
        ("jsonl", '{"file_name": "1.png"', "line 2", "it is not valid JSON: "),
        ("jsonl", "[1, 2]", "line 2", "it is no JSON object"),
        ("jsonl", '{"text": "a fox"}', "line 2", "it names no picture"),
        ("jsonl", '{"file_name": 5, "text": "a fox"}', "line 2", "it names no picture"),
        ("jsonl", '{"file_name": "1.png"}', "1.png#2", "the caption is empty"),
        ("jsonl", '{"file_name": "1.png", "text": ["a"]}', "1.png#2", "its caption is not text"),
        ("jsonl", r'{"file_name": "1.png", "text": "\ud800"}', "1.png#2", "caption is not UTF-8"),
        ("jsonl", r'{"file_name": "a\u0000b", "text": "a"}', "a\0b", "cannot be read"),
        ("jsonl", r'{"file_name": "\ud800.png", "text": "a"}', "\ud800.png", "cannot be read"),
        ("csv", "gone.png,a fox", "gone.png", r"it has no picture \(gone.png is not there\)"),
        ("csv", "1.png, ", "1.png#2", "the caption is empty"),
        ("csv", "1.png", "1.png#2", "the caption is empty"),
        ("csv", ",a fox", "line 2", "it names no picture"),
        (
            "csv",
            "1.png,a fox, red",
            "line 2",
            r"it has 3 columns \(the first line has 2; put double",
        ),
    ],
)
def test_a_row_without_sense_is_one_sample_that_raises(
    tmp_path: Path, kind: str, row: str, key: str, fault: str
) -> None:
    (tmp_path / "1.png").write_bytes(png())
    good = {"jsonl": '{"file_name": "1.png", "text": "%s"}', "csv": "1.png,%s"}[kind]
    lines = [good % "a fox", row, "", good % "end"]
    if kind == "csv":
        lines.insert(0, "file_name,text")
        key = key.replace("line 2", "line 3")
    path = tmp_path / f"a.{kind}"
    path.write_text("\n".join(lines), encoding="utf-8")
    samples = open_samples(path)
    assert len(samples) == 3
    assert (samples[0].caption, samples[2].caption) == ("a fox", "end")
    assert samples.key(1) == key
    with pytest.raises(DataError, match=fault) as caught:
        samples[1]
    assert str(caught.value).startswith(f"sample {key}: ")


def test_what_stands_first_does_not_decide_alone(tmp_path: Path) -> None:
    """A broken first line, or capitals in the second, made all others useless."""
    (tmp_path / "1.png").write_bytes(png())
    path = tmp_path / "a.jsonl"
    path.write_text('{\n{"File_Name": "1.png"}\n{"file_name": "1.png", "TEXT": "a fox"}\n')
    samples = open_samples(path)
    assert len(samples) == 3
    assert samples[2].caption == "a fox"
    csv = tmp_path / "a.csv"
    csv.write_text("text, file_name\na fox, 1.png\n" + f"{'x' * 200_000},1.png\n")
    assert [len(one) for one in captions(open_samples(csv))] == [5, 200_000]


def test_pictures_that_a_table_leaves_out_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,text\n2.png,a fox\n")
    assert len(open_samples(tmp_path)) == 1
    assert "1 pictures of the folder are not in" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_pipes_and_devices_are_no_pictures(tmp_path: Path) -> None:
    """The one was waited for and the other read for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    path = tmp_path / "a.csv"
    path.write_text("file_name,text\npipe.png,a fox\n/dev/zero,a fox\n")
    for index in (0, 1):
        with pytest.raises(DataError, match="its picture is no file"):
            open_samples(path)[index]


def test_a_picture_may_be_named_in_any_bytes(tmp_path: Path) -> None:
    name = b"caf\xe9.png"
    picture = Path(str(tmp_path), name.decode("utf-8", "surrogateescape"))
    try:
        picture.write_bytes(png())
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    (tmp_path / "a.csv").write_bytes(b"file,caption\n" + name + b",a coffee\n")
    samples = open_samples(tmp_path / "a.csv")
    assert samples[0].image == png()
    assert samples.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "id,caption\n1,a fox\n",
            r"column of pictures \(named file_name .*'id', 'caption'",
        ),
        ("a.csv", "file,words\n1.png,a fox\n", r"column of captions \(named caption or text\)"),
        ("a.csv", "file,path,text\na,b,c\n", "one column of pictures"),
        ("a.csv", "file,text\n", "holds no row"),
        ("a.tsv", 'file\ttext\n1.png\t"Hello" he says\n', "a.tsv, line 2: not a table: .*double"),
        ("a.csv", "", "its columns are none"),
        ("a.csv", 'file,text\n"1.png,a fox\n', "line 2: not a table: unexpected end of data"),
        ("a.jsonl", "", "its columns are none"),
        ("a.jsonl", "[]\n", "its columns are none"),
        ("a.jsonl", "{\n", "its columns are none"),
        ("a.jsonl", '{"file": "1.png"}\n', "exactly one column of captions"),
    ],
)
def test_what_is_no_such_table_is_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        open_samples(path)
    assert str(path) in str(caught.value)


def test_the_fingerprint_tells_what_changed(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    path = tmp_path / "a.jsonl"
    path.write_text(table("jsonl"), encoding="utf-8")
    found = [open_samples(path).fingerprint, open_samples(path).fingerprint]
    path.write_text(table("jsonl").replace("same", "dear"), encoding="utf-8")
    found.append(open_samples(path).fingerprint)
    (tmp_path / "2.png").write_bytes(png(1) + b"\0")
    found.append(open_samples(path).fingerprint)
    (tmp_path / "2.png").unlink()
    found.append(open_samples(path).fingerprint)
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_other_files_are_refused_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "pictures.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(
        DataError, match=r"or a table of pictures and captions \(.jsonl, .csv, .tsv"
    ):
        open_samples(path)
    with pytest.raises(DataError, match=r"gone.csv is not a folder"):
        open_samples(tmp_path / "gone.csv")
