"""`dalle generate --caption-file`: every caption of a file, in its order."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from dalle import CaptionFailure, TextToImage, read_recipe
from dalle.cli import main
from tests.integration.generating import Generate

CAPTIONS = ("a fox", "two apples, red", "a fox", "A Robot")


def write(folder: Path, name: str, content: str) -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.txt", "\ufeffa fox\r\n\r\ntwo apples, red\na fox\nA Robot\n"),
        ("set.csv", 'id,caption\n1,a fox\n2,"two apples, red"\n3,a fox\n4,A Robot\n'),
        ("set.tsv", "id\tcaption\n1\ta fox\n2\ttwo apples, red\n3\ta fox\n4\tA Robot\n"),
    ],
)
def test_a_file_is_drawn_as_the_api_draws_many(
    generate: Generate, tiny_model: Path, tmp_path: Path, name: str, content: str
) -> None:
    path = write(tmp_path, name, content)
    status, out, err = generate(
        "--caption-file", path, "--candidates", "3", "--keep", "2", "--seed", "4",
        "--temperature", "0.7", "--ranker", "likelihood", "--json",
    )  # fmt: skip
    assert (status, err) == (0, "")
    entries = json.loads(out)["captions"]
    expected = TextToImage.from_pretrained(tiny_model).generate_many(
        CAPTIONS, candidates=3, keep=2, seed=4, temperature=0.7
    )
    assert [entry["caption"] for entry in entries] == list(CAPTIONS)
    for entry, result in zip(entries, expected, strict=True):
        assert not isinstance(result, CaptionFailure)
        for image, drawn in zip(entry["images"], result.images, strict=True):
            assert read_recipe(Path(image["file"])) == drawn.recipe
            with Image.open(image["file"]) as saved:
                assert saved.tobytes() == drawn.image.tobytes()


def piped(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input holds `content`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_captions_are_read_from_standard_input(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(b"a fox\n\n\x07\na pizza\n", monkeypatch)
    status, out, err = generate("--caption-file", "-", "--candidates", "1", "--json")
    assert status == 1
    assert "1 of 3 captions could not be drawn; standard input, line 3: " in err
    assert "skipped" not in err, "empty lines only separate"
    assert [entry["caption"] for entry in json.loads(out)["captions"]] == [
        "a fox",
        "\x07",
        "a pizza",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input holds no caption; write at least one"),
        (b"a fox\n\xff\n", "standard input must be UTF-8, but line 2 is not"),
    ],
)
def test_standard_input_without_captions_is_refused(
    content: bytes, message: str, generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(content, monkeypatch)
    status, out, err = generate("--caption-file", "-")
    assert (status, out) == (2, "")
    assert message in err


def test_closed_standard_input_holds_no_caption(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    status, _, err = generate("--caption-file", "-")
    assert status == 2
    assert "standard input holds no caption" in err


def test_one_bad_line_leaves_the_others_alone(generate: Generate, tmp_path: Path) -> None:
    lines = ["a fox", "", "x" * 2001, "two apples", "\x07", "a pizza"]
    path = write(tmp_path, "set.txt", "\n".join(lines))
    status, out, err = generate("--caption-file", path, "--candidates", "1", "--json")
    assert status == 1
    assert re.search(
        r"error: 2 of 5 captions could not be drawn; .*set\.txt, line 3: .*at most", err
    )
    entries = json.loads(out)["captions"]
    assert [("images" in entry, "error" in entry) for entry in entries] == [
        (True, False), (False, True), (True, False), (False, True), (True, False),
    ]  # fmt: skip
    assert "line 5: a caption must not be empty" in entries[3]["error"]
    pictures = [path for path in (tmp_path / "out").iterdir() if not path.name.startswith("sheet")]
    assert len(pictures) == 3


def test_the_sheet_of_many_captions_is_no_strip(generate: Generate, tmp_path: Path) -> None:
    """Bug: with one picture kept of each, the sheet was one picture wide, whatever its height."""
    captions = write(tmp_path, "set.txt", "\n".join(f"a fox and {n} cats" for n in range(9)))
    _, out, _ = generate("--caption-file", captions, "--candidates", "1")
    (sheet,) = re.findall(r"all together: (\S+)", out)
    with Image.open(sheet) as image:
        assert image.width > image.height / 2


def test_people_read_which_were_not_drawn(generate: Generate, tmp_path: Path) -> None:
    status, out, err = generate(
        "--caption-file", write(tmp_path, "set.txt", "\x07\na fox\n"), "--candidates", "1"
    )
    assert status == 1
    assert re.search(r"^: not drawn, .*line 1: a caption must not be empty", out, re.MULTILINE)
    assert "a fox (best first by likelihood):" in out
    (sheet,) = re.findall(r"all together: (\S+)", out)
    assert Path(sheet).is_file()
    assert err.count("\n") == 1


def test_a_file_without_a_good_line_leaves_no_sheet(generate: Generate, tmp_path: Path) -> None:
    status, out, err = generate("--caption-file", write(tmp_path, "set.txt", "\x07\n"), "--json")
    assert status == 1
    assert "1 of 1 captions could not be drawn" in err
    assert not (tmp_path / "out").exists()
    assert "prompt" not in json.loads(out)


@pytest.mark.parametrize(
    ("name", "content", "status", "message"),
    [
        ("set.csv", "text\na fox\n", 2, "must have one column named 'caption'"),
        ("set.csv", "caption\na, b\n", 2, "line 2: 2 columns where the first line has 1"),
        ("set.json", "[]", 2, "captions must be a .txt, .csv or .tsv file"),
        ("set.txt", "", 2, "holds no caption"),
        (None, "", 1, "set.txt: No such file or directory"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    generate: Generate, tmp_path: Path, name: str | None, content: str, status: int, message: str
) -> None:
    path = str(tmp_path / "set.txt") if name is None else write(tmp_path, name, content)
    found, out, err = generate("--caption-file", path)
    assert (found, out) == (status, "")
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [("a fox",), ("--image", "fox.png"), ("--vary", "x.png"), ("--like", "x.png")]
)
def test_a_file_stands_alone(generate: Generate, words: tuple[str, ...]) -> None:
    status, _, err = generate(*words, "--caption-file", "set.txt")
    assert status == 2
    assert "or one of --caption-file, --vary and --like" in err


def test_pictures_are_saved_while_others_are_drawn(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops a long run keeps what is finished, and memory holds few pictures at a time."""
    path = write(tmp_path, "set.txt", "".join(f"fox {number}\n" for number in range(5)))
    out, before = tmp_path / "out", []
    original = TextToImage._finish

    def counting(*args: object, **options: object) -> object:
        before.append(len(list(out.glob("fox-*.png"))))
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TextToImage, "_finish", counting)
    words = ["--caption-file", path, "--candidates", "16", "--keep", "2", "--ranker", "none"]
    assert main(["generate", "--model", str(tiny_model), "--out", str(out), *words]) == 0
    assert before == [0, 2, 4, 6, 8]


def test_rows_without_caption_are_named(generate: Generate, tmp_path: Path) -> None:
    """They were once left out without a word."""
    path = write(tmp_path, "set.csv", "id,caption\n1,a fox\n2,\n3,an owl\n")
    status, out, err = generate("--caption-file", path, "--candidates", "1", "--json")
    assert status == 0
    assert "1 of its lines hold no caption and were skipped: 3" in err
    assert len(json.loads(out)["captions"]) == 2
