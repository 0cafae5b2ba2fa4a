"""`dalle generate` from outside: the report, and the files it tells of."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dalle import TextToImage, read_recipe
from dalle.cli import main
from dalle.labels import file_name, shown
from tests.integration.generating import FOX, Generate, files, pixels


def test_the_report_is_one_json_object_and_nothing_else(
    generate: Generate, tiny_model: Path, tmp_path: Path
) -> None:
    status, out, err = generate(
        FOX, "TWO apples", "--candidates", "6", "--keep", "2", "--seed", "7", "--json"
    )
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    report = json.loads(out)
    assert list(report) == ["captions", "model", "seconds"]
    assert report["model"] == str(tiny_model)
    assert 0 < report["seconds"] < 60
    assert [entry["caption"] for entry in report["captions"]] == [FOX, "TWO apples"]
    expected = TextToImage.from_pretrained(tiny_model).generate(
        [FOX, "TWO apples"], candidates=6, keep=2, seed=7
    )
    for entry, result in zip(report["captions"], expected.results, strict=True):
        assert list(entry) == ["caption", "images"]
        assert [
            (image["seed"], image["index"], image["score"], image["ranker"])
            for image in entry["images"]
        ] == [(7, image.recipe.index, image.score, "likelihood") for image in result.images]
        for image, drawn in zip(entry["images"], result.images, strict=True):
            assert list(image) == ["file", "seed", "index", "score", "ranker", "log_likelihood"]
            path = Path(image["file"])
            assert path.parent == tmp_path / "out"
            assert pixels(path) == drawn.image.tobytes()
            assert read_recipe(path) == drawn.recipe
    sheets = [name for name in files(tmp_path / "out") if name.startswith("sheet-")]
    assert len(files(tmp_path / "out")) == 5
    with Image.open(tmp_path / "out" / sheets[0]) as sheet:
        assert sheet.width == 2 * (128 + 8) + 8, "a row for each caption, a column for each place"


def test_people_read_where_the_pictures_are_best_first(generate: Generate, tmp_path: Path) -> None:
    status, out, err = generate(FOX, "--candidates", "3")
    assert (status, err) == (0, "")
    first, *pictures, sheet, last = out.splitlines()
    assert first == f"{FOX} (best first by likelihood):"
    assert len(pictures) == 3
    scores = []
    for line in pictures:
        path, score = line.split()
        assert Path(path).is_file()
        scores.append(float(score))
    assert scores == sorted(scores, reverse=True)
    assert Path(sheet.removeprefix("all together: ")).is_file()
    assert re.fullmatch(r"\d+\.\d s with model .*tiny", last)


@pytest.mark.parametrize(("words", "kept"), [(("--candidates", "1"), 1), ((), 4)])
def test_four_are_kept_or_as_many_as_there_are(
    words: tuple[str, ...], kept: int, generate: Generate
) -> None:
    """`--candidates 1` was once refused, because the default `--keep 4` was more."""
    status, out, _ = generate(FOX, *words, "--json")
    assert status == 0
    assert len(json.loads(out)["captions"][0]["images"]) == kept


def test_a_cut_caption_is_reported(generate: Generate) -> None:
    status, out, err = generate(" ".join([FOX] * 9), "--candidates", "1", "--json")
    assert status == 0
    notice = json.loads(out)["captions"][0]["notice"]
    assert notice.startswith("only the first 12 tokens of the caption are used: 'a fox on")
    assert err == f"warning: {notice}\n"


def test_the_report_survives_any_stdout(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latin-1 has no fox; the report once died on it after all the drawing."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    words = ["generate", "🦊 狐", "--candidates", "1", "--json", "--model", str(tiny_model)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert json.loads(written.getvalue())["captions"][0]["caption"] == "🦊 狐"


# ------------------------------------------------------------------------------------------- names


NASTY = (
    "../../etc/passwd", "a/b\\c", "CON", "nul.txt", "x" * 300, "line\r\nbreak", "a\x00b", "🦊 狐",
    "Ünïcødé", "-rf", "a fox  ", ".hidden", "%s$HOME`id`", "\x1b[31mred",
)  # fmt: skip


def test_file_names_are_safe_and_tell_captions_apart(generate: Generate, tmp_path: Path) -> None:
    status, out, err = generate("--candidates", "1", "--json", "--", *NASTY)
    assert status == 0, err
    entries = json.loads(out)["captions"]
    assert [entry["caption"] for entry in entries] == list(NASTY)
    written = [Path(entry["images"][0]["file"]) for entry in entries]
    assert len(set(written)) == len(NASTY)
    for path, caption in zip(written, NASTY, strict=True):
        assert path.parent == tmp_path / "out"
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{8}-s0-i000\.png", path.name)
        assert len(path.name) < 80
        assert read_recipe(path).caption == caption
    assert len(files(tmp_path)) == len(NASTY) + 2, "with the folder and the sheet, nothing else"


def test_other_settings_get_another_file(generate: Generate) -> None:
    """A second try at another temperature once replaced the pictures of the first."""
    names = set()
    for words in ((), ("--temperature", "0.5"), ("--top-k", "3"), ("--seed", "1")):
        _, out, _ = generate(FOX, "--candidates", "1", "--json", *words)
        names.add(json.loads(out)["captions"][0]["images"][0]["file"])
    assert len(names) == 4


def test_the_name_of_a_picture_is_its_own(tiny_pipeline: TextToImage) -> None:
    recipe = tiny_pipeline.generate("A  Fox!", candidates=1, seed=-3).images[0].recipe
    assert re.fullmatch(r"a-fox-[0-9a-f]{8}-s-3-i000\.png", file_name(recipe))
    # Bug: "ein-f-chslein-gr-t-z-c".
    recipe = replace(recipe, caption="Ein Füchslein grüßt Željko \u0080 🦊")
    assert file_name(recipe).startswith("ein-fuchslein-grusst-zeljko-")


def test_what_is_shown_of_a_caption_steers_no_terminal() -> None:
    assert shown("a\x1b[31m fox\r\n on\tblue\u202e", 80) == "a [31m fox on blue"
    assert shown("x" * 50, 10) == "x" * 9 + "…"
    assert shown("x" * 10, 10) == "x" * 10
