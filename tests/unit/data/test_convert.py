"""`dalle data convert`: Parquet as the Hugging Face Hub has it, to a folder that training reads."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle.cli import main
from dalle.data import convert
from dalle.data.samples import open_samples

pa = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install -e '.[parquet]')")
pq = pytest.importorskip("pyarrow.parquet")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(shade: int, kind: str = "PNG") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (20, 20), (shade, 0, 0)).save(written, kind)
    return written.getvalue()


def write(path: Path, cells: list[Any], captions: list[Any], *, image: Any = IMAGE) -> None:
    """A file of the usual two columns, and one that nobody asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {"image": pa.array(cells, type=image), "text": captions, "id": list(range(len(cells)))}
    )
    pq.write_table(table, path, row_group_size=3)


def found(folder: Path) -> list[tuple[bytes, str]]:
    samples = open_samples(folder)
    return [(samples[index].image, samples[index].caption) for index in range(len(samples))]


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_pictures_and_captions_arrive_untouched(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "PER_FOLDER", 4)
    files = [picture(number, ("PNG", "JPEG", "WEBP")[number % 3]) for number in range(10)]
    texts = [f"a füchslein, {number}" for number in range(10)]
    cells = files if kind == "binary" else [{"bytes": one, "path": None} for one in files]
    image = pa.binary() if kind == "binary" else IMAGE
    write(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", cells[:7], texts[:7],
          image=image)  # fmt: skip
    write(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet", cells[7:], texts[7:],
          image=image)  # fmt: skip
    out = tmp_path / "out"
    assert main(["data", "convert", str(tmp_path / "hub"), "--out", str(out)]) == 0
    assert found(out) == list(zip(files, texts, strict=True))
    names = [json.loads(line)["file_name"] for line in (out / "metadata.jsonl").open()]
    assert names[:3] == ["00000/000000000.png", "00000/000000001.jpg", "00000/000000002.webp"]
    assert names[-1] == "00002/000000009.png"
    assert not out.with_name("out.partial").exists()


def test_several_captions_of_a_picture_are_rows_of_one_file(tmp_path: Path) -> None:
    cells = [{"bytes": picture(number)} for number in range(2)]
    write(tmp_path / "a.parquet", cells, [["a fox", " ", "a red fox"], ["an owl"]])
    out = tmp_path / "out"
    assert main(["data", "convert", str(tmp_path / "a.parquet"), "--out", str(out)]) == 0
    samples = open_samples(out)
    assert [samples[index].caption for index in range(3)] == ["a fox", "a red fox", "an owl"]
    assert samples.picture_name(0) == samples.picture_name(1) != samples.picture_name(2)


def test_rows_that_hold_no_picture_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"bytes": picture(9)}
    cells = [good, None, {"path": "a.png"}, {"bytes": b"GIF89a"}, {"bytes": b""}, good, good]
    write(tmp_path / "a.parquet", cells, ["one", "two", "three", "four", "five", None, "seven"])
    out = tmp_path / "out"
    assert main(["data", "convert", str(tmp_path / "a.parquet"), "--out", str(out)]) == 0
    assert [caption for _, caption in found(out)] == ["one", "seven"]
    said = capsys.readouterr().err
    for number, reason in {
        2: "it has no picture",
        3: "it names a picture and does not hold it; write such a table as CSV or JSON lines",
        4: "the picture is a GIF, not PNG, JPEG or WebP",
        5: "its picture has 0 bytes, and must have 1 to ",
        6: "it has no caption (None)",
    }.items():
        assert f"skipped row {number} of a.parquet: {reason}" in said
    assert "1 pictures with 2 captions" in said
    assert "5 rows skipped" in said


def test_columns_of_other_names_and_a_limit(tmp_path: Path) -> None:
    pictures = pa.array([picture(number) for number in range(5)], type=pa.binary())
    columns = {"photo": pictures, "text": ["x"] * 5, "caption": list("abcde")}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    words = ["data", "convert", str(tmp_path / "a.parquet"), "--out", str(tmp_path / "out")]
    named = ["--image_column", "photo", "--caption_column", "caption", "--limit", "3"]
    assert main([*words, *named]) == 0
    assert [caption for _, caption in found(tmp_path / "out")] == ["a", "b", "c"]


def test_a_limit_counts_over_all_files(tmp_path: Path) -> None:
    """Bug: where no bar was shown, each file had the limit for itself."""
    for part in range(3):
        cells = [{"bytes": picture(10 * part + number)} for number in range(4)]
        write(tmp_path / "in" / f"{part:04d}.parquet", cells, list("abcd"))
    words = ["--quiet", "data", "convert", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*words, "--limit", "6"]) == 0
    assert "".join(caption for _, caption in found(tmp_path / "out")) == "abcdab"


def test_a_picture_that_comes_again_is_one_picture(tmp_path: Path) -> None:
    """Bug: one file a row, so that captions of a picture could be on both sides of a split."""
    cells = [{"bytes": picture(number)} for number in (1, 2, 1, 1)]
    write(tmp_path / "a.parquet", cells, list("abcd"))
    assert main(["data", "convert", str(tmp_path / "a.parquet"), "--out", str(tmp_path / "o")]) == 0
    samples = open_samples(tmp_path / "o")
    assert [samples.picture_name(index)[-5] for index in range(4)] == ["0", "1", "0", "0"]


def test_a_caption_that_is_no_text_costs_its_row_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: it ended the conversion, and took everything with it."""
    captions = pa.array([b"a fox", b"a \xff", b"an owl"]).cast(pa.string(), safe=False)
    images = pa.array([picture(number) for number in range(3)])
    pq.write_table(pa.table({"image": images, "text": captions}), tmp_path / "a.parquet")
    assert main(["data", "convert", str(tmp_path / "a.parquet"), "--out", str(tmp_path / "o")]) == 0
    assert [caption for _, caption in found(tmp_path / "o")] == ["a fox", "an owl"]
    assert "skipped row 2 of a.parquet: its caption is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "split", "wanted"),
    [
        (["default/train/0000", "default/train/0001", "default/test/0000"], "train", "01"),
        (["data/train-00000-of-00002", "data/train-00001-of-00002"], None, "01"),
        (["00000", "00001", "part"], ".", "01"),
        (["part-00000-c7", "part-00001-c7"], None, "01"),
        (["a/train-00000-of-00001", "b/train-00000-of-00001"], "b/train", "1"),
        (["a/train-00000-of-00001", "b/train-00000-of-00001"], "train", "has several splits"),
        (["a/train-00000-of-00001", "b/train-00000-of-00001"], None, "a/train, b/train"),
    ],
)
def test_files_of_one_folder_and_name_are_a_split(
    files: list[str], split: str | None, wanted: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for number, name in enumerate(files):
        path = tmp_path / "in" / f"{name}.parquet"
        write(path, [{"bytes": picture(number)}], [str(number)])
    words = ["data", "convert", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    status = main(words if split is None else [*words, "--split", split])
    if wanted.isdigit():
        assert status == 0
        assert "".join(caption for _, caption in found(tmp_path / "out")) == wanted
    else:
        assert status == 1
        assert wanted in capsys.readouterr().err


def test_a_later_file_must_have_the_columns_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "0.parquet", [{"bytes": picture(1)}], ["a"])
    pq.write_table(pa.table({"image": [b"x"], "caption": ["a"]}), tmp_path / "in" / "1.parquet")
    words = ["data", "convert", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "1.parquet has no column 'text', as the first file has" in capsys.readouterr().err
    assert (
        main(["data", "convert", str(tmp_path / "in" / "0.parquet"), *words[3:], "--split", "x"])
        == 2
    )
    assert "split 'x' chooses among the files of a folder" in capsys.readouterr().err


def test_splits_are_converted_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, shade in (("train", 1), ("test", 2)):
        path = tmp_path / "hub" / f"{split}-00000-of-00001-0123456789abcdef.parquet"
        write(path, [{"bytes": picture(shade)}], [split])
    words = ["data", "convert", str(tmp_path / "hub"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "holds several splits (test, train); name the one" in capsys.readouterr().err
    assert main([*words, "--split", "dev"]) == 1
    assert "has no split 'dev'; it has test, train" in capsys.readouterr().err
    assert main([*words, "--split", "test"]) == 0
    assert [caption for _, caption in found(tmp_path / "out")] == ["test"]


@pytest.mark.parametrize(
    ("content", "message", "status"),
    [
        (b"PAR1 and nothing more", "cannot be read: ", 1),
        (None, "holds some (.parquet)", 1),
        ("no picture", "none of 1 rows holds a picture and a caption", 1),
        ("other columns", "image_column must name one column, a column named file_name or", 1),
        ("out exists", "out exists; give a new one or remove it", 2),
    ],
)
def test_what_cannot_be_converted_leaves_nothing_behind(
    content: bytes | str | None, message: str, status: int, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    match content:
        case bytes():
            path.write_bytes(content)
        case "no picture":
            write(path, [None], ["a fox"])
        case "other columns":
            pq.write_table(pa.table({"photo": [b"x"], "text": ["a"]}), path)
        case "out exists":
            write(path, [{"bytes": picture(1)}], ["a fox"])
            (tmp_path / "out").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "convert", str(path.parent), "--out", str(tmp_path / "out")]) == status
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_torn_file_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.parquet"
    write(path, [{"bytes": picture(number)} for number in range(9)], list("abcdefghi"))
    content = bytearray(path.read_bytes())
    content[20:120] = bytes(100)  # a page; what lies at the end says where each is
    path.write_bytes(content)
    out = tmp_path / "out"
    status = main(["data", "convert", str(path), "--out", str(out)])
    assert status == 1, "the damage lies in pages that are read"
    assert "a.parquet cannot be read after row" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [path]


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = ["data", "convert", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "install the extra `parquet`" in capsys.readouterr().err
