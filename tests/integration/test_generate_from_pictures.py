"""`dalle generate` that goes on from a picture: completions and variations."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from dalle import read_recipe
from tests.integration.generating import FOX, Generate, pixels


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "given.png"
    Image.effect_noise((40, 20), 90).convert("RGB").save(path)
    return path


def test_a_given_picture_is_gone_on_from(generate: Generate, given: Path, tmp_path: Path) -> None:
    status, out, err = generate(
        FOX, "--image", str(given), "--keep-rows", "1", "--candidates", "3", "--json"
    )
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["prompt"]["rows"], report["prompt"]["rows_in_all"]) == (1, 4)
    assert report["prompt"]["notes"], "40 x 20 px were cut to a square, which is said"
    recipes = [read_recipe(Path(image["file"])) for image in report["captions"][0]["images"]]
    assert len({recipe.prompt for recipe in recipes}) == 1
    assert len(recipes[0].prompt) == 4
    with Image.open(report["prompt"]["file"]) as shown_prompt:
        assert shown_prompt.width > shown_prompt.height
    again = tmp_path / "again"
    status, out, _ = generate(
        "--like", report["captions"][0]["images"][0]["file"], "--out", str(again), "--json"
    )
    assert status == 0
    redrawn = json.loads(out)["captions"][0]["images"][0]["file"]
    assert pixels(Path(redrawn)) == pixels(Path(report["captions"][0]["images"][0]["file"]))


def test_a_picture_is_completed_without_a_caption(generate: Generate, given: Path) -> None:
    status, out, _ = generate("--image", str(given), "--candidates", "2")
    assert status == 0
    assert out.startswith("(no caption) (best first by likelihood):")
    assert "kept 2 of 4 rows of tokens: " in out
    (sheet,) = re.findall(r"all together: (\S+)", out)
    with Image.open(sheet) as shown:
        assert shown.width == 4 * (128 + 8) + 8, "what was given, two completions, the original"


def test_a_region_of_a_picture_is_drawn_anew(
    generate: Generate, given: Path, tmp_path: Path
) -> None:
    words = ("--candidates", "2", "--region", "0.5", "0", "1", "0.5")
    status, out, err = generate(FOX, "--image", str(given), *words)
    assert (status, err) == (0, "")
    assert "drew 8 x 8 px at 8, 0 and kept the rest: " in out
    status, out, _ = generate(FOX, "--image", str(given), *words, "--json")
    assert status == 0
    report = json.loads(out)
    assert report["prompt"]["region"] == [8, 0, 16, 8]
    first = Path(report["captions"][0]["images"][0]["file"])
    again = tmp_path / "again"
    status, out, _ = generate("--like", str(first), "--out", str(again), "--json")
    assert status == 0
    assert pixels(Path(json.loads(out)["captions"][0]["images"][0]["file"])) == pixels(first)
    status, out, _ = generate(
        "two apples", "--vary", str(first), "--region", "[0, 0.5, 1, 1]", "--json", "--out",
        str(again), "--candidates", "1", "--seed", "9",
    )  # fmt: skip
    assert status == 0
    other = read_recipe(Path(json.loads(out)["captions"][0]["images"][0]["file"]))
    assert (other.caption, other.prompt[8:]) == ("two apples", (-1,) * 8)


def test_variations_keep_the_first_rows(generate: Generate, tmp_path: Path) -> None:
    _, out, _ = generate(FOX, "--candidates", "1", "--seed", "3", "--json")
    first = Path(json.loads(out)["captions"][0]["images"][0]["file"])
    status, out, _ = generate(
        "--vary", str(first), "--keep-rows", "0.5", "--seed", "4", "--candidates", "3", "--json"
    )
    assert status == 0
    report = json.loads(out)
    assert "prompt" not in report
    (entry,) = report["captions"]
    assert entry["caption"] == FOX
    tokens = {read_recipe(Path(image["file"])).prompt for image in entry["images"]}
    assert {len(prompt) for prompt in tokens} == {8}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep-rows", "2", FOX], "keep_rows 2 says how much of a picture is kept"),
        (["--image", "GIVEN", "--keep-rows", "1.5"], "or a whole number of token rows, got 1.5"),
        (["--image", "GIVEN", "--keep-rows", "-1"], "keep_rows must be a part of the height"),
        (["--image", "GIVEN", "--keep-rows", "4"], "keep_rows must be"),
        (["--region", "0", "0", "0.5", "1", "--", FOX], "give one with --image or --vary"),
        (["--image", "GIVEN", "--region", "0", "0", "0.5"], "left, top, right and bottom, got [0"),
        (["--image", "GIVEN", "--region", "0", "0", "2", "1"], "each from 0 to 1"),
        (["--image", "GIVEN", "--region", "0", "0", "1", "1"], "region is the whole picture"),
        (
            ["--image", "GIVEN", "--region", "0", "0", "0.5", "1", "--keep-rows", "2"],
            "leave keep_r",
        ),
        (["--crop", "pad", FOX], "prompt_layout and crop say how --image is read"),
        (["--image", "GIVEN", "--like", "x.png"], "give one caption or several"),
        (["--image", "missing.png"], "missing.png"),
    ],
)
def test_bad_image_prompts_are_refused(
    words: list[str], message: str, generate: Generate, given: Path, tmp_path: Path
) -> None:
    status, out, err = generate(*[str(given) if word == "GIVEN" else word for word in words])
    assert status in (1, 2)
    assert out == ""
    assert message in err
    assert not (tmp_path / "out").exists()
