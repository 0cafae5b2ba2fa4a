"""What `dalle generate` tells people beside the pictures."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from dalle import read_recipe
from tests.integration.generating import FOX, Generate


def test_people_read_what_was_cut_from_which_caption(generate: Generate) -> None:
    """It once stood on stderr alone, without saying which of several captions it was."""
    status, out, _ = generate("a fox", " ".join([FOX] * 9), "--candidates", "1")
    assert status == 0
    first, second = out.split("a fox on a blue", 1)
    assert "note:" not in first
    assert "  note: only the first 12 tokens of the caption are used: 'a fox on" in second


def test_the_first_rows_are_gone_on_from_with_another_caption(generate: Generate) -> None:
    _, out, _ = generate(FOX, "--candidates", "1", "--json")
    first = json.loads(out)["captions"][0]["images"][0]["file"]
    words = ("--vary", first, "--keep-rows", "0.5", "--candidates", "1", "--json")
    status, out, _ = generate("a pizza", "two apples", *words)
    assert status == 0
    entries = json.loads(out)["captions"]
    assert [entry["caption"] for entry in entries] == ["a pizza", "two apples"]
    recipes = [read_recipe(Path(entry["images"][0]["file"])) for entry in entries]
    assert [len(recipe.prompt) for recipe in recipes] == [8, 8]


def test_people_are_told_that_greedy_candidates_are_one_picture(generate: Generate) -> None:
    """They came as four files of one score, best first, without a word."""
    _, out, err = generate(FOX, "--candidates", "2", "--temperature", "0", "--json")
    assert "at temperature 0 the 2 candidates of a caption are one and the same picture" in err
    files = [Path(image["file"]) for image in json.loads(out)["captions"][0]["images"]]
    one, other = (Image.open(file).tobytes() for file in files)
    assert one == other
    _, _, err = generate(FOX, "--candidates", "1", "--temperature", "0")
    assert "at temperature 0" not in err


def test_whoever_is_stopped_is_told_what_is_written(generate: Generate, tmp_path: Path) -> None:
    """Ten pictures lay in the folder, under names that nothing had said."""
    alone = ("--candidates", "1", "--json", "--out")
    _, out, _ = generate("a pizza", *alone, str(tmp_path / "known"))
    name = Path(json.loads(out)["captions"][0]["images"][0]["file"]).name
    in_the_way = tmp_path / "out" / name
    in_the_way.mkdir(parents=True)
    status, out, err = generate("a fox", "a pizza", *alone, str(tmp_path / "out"))
    assert status == 1
    assert f"error: {in_the_way} cannot be written (Is a directory)" in err
    (entry,) = json.loads(out)["captions"]
    assert entry["caption"] == "a fox"
    assert Path(entry["images"][0]["file"]).is_file()
