"""`dalle transform` from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from dalle import read_recipe
from dalle.cli import main
from dalle.config import SamplingConfig
from dalle.transforms import TRANSFORMS


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "given.png"
    Image.effect_noise((40, 40), 90).convert("RGB").save(path)
    return path


def test_one_word_makes_the_caption_and_puts_the_picture_on_top(
    given: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--to", "sketch", "--subject", "a fox", "--model", str(tiny_model)]
    out = ["--out", str(tmp_path / "out"), "--candidates", "2", "--json"]
    assert main(["transform", str(given), *words, *out]) == 0
    report = json.loads(capsys.readouterr().out)
    (entry,) = report["captions"]
    assert entry["caption"] == "the exact same fox on the top as a sketch on the bottom"
    assert (report["prompt"]["rows"], report["prompt"]["rows_in_all"]) == (2, 4)
    recipe = read_recipe(Path(entry["images"][0]["file"]))
    assert len(recipe.prompt) == 8


def test_a_clip_that_cannot_be_had_is_asked_for_once(
    given: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: once to guess what the picture shows, and once more to rank."""
    words = ["--to", "sketch", "--model", str(tiny_model), "--clip", "ViT-B-32/laion2b_s34b_b79k"]
    out = ["--out", str(tmp_path / "out"), "--candidates", "1"]
    assert main(["transform", str(given), *words, *out]) == 0
    err = capsys.readouterr().err
    assert err.count("could not be fetched") == 1
    assert "name it with --subject" in err


def test_all_draws_every_transform_onto_one_sheet(
    given: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--to", "all", "--model", str(tiny_model), "--candidates", "1"]
    assert main(["transform", str(given), *words, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "name it with --subject" in printed.err
    assert printed.out.count("the exact same photo on the top") == len(TRANSFORMS)
    assert len(list((tmp_path / "out").glob("sheet-*.png"))) == 1
    # Bug: names were cut before the look, so that six of them began alike.
    begins = {path.name.rsplit("-", 3)[0] for path in (tmp_path / "out").glob("the-exact-*.png")}
    assert len(begins) == len(TRANSFORMS)


def test_sampling_settings_are_those_of_generate(
    given: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--to", "sketch", "--subject", "fox", "--model", str(tiny_model), "--candidates", "1"]
    chosen = ["--temperature", "0.5", "--top-k", "7", "--top-p", "0.75", "--guidance-scale", "3"]
    out = ["--out", str(tmp_path / "out"), "--json"]
    assert main(["transform", str(given), *words, *chosen, *out]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["captions"]
    sampling = read_recipe(Path(entry["images"][0]["file"])).sampling
    assert sampling == SamplingConfig(temperature=0.5, top_k=7, top_p=0.75, guidance_scale=3)
    assert main(["transform", str(given), *words, "--top-p", "2"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["GIVEN", "--to", "skech"], "unknown transform 'skech'; did you mean sketch?"),
        (["GIVEN"], "--to"),
        (["GIVEN", "GIVEN", "--to", "sketch"], "dalle transform takes one image, got 2"),
        (["missing.png", "--to", "sketch"], "missing.png"),
        (["GIVEN", "--to", "sketch", "--subject", " "], "a subject must not be blank"),
        (["GIVEN", "--to", "red", "--candidates", "0"], "candidates must be between 1 and"),
    ],
)
def test_mistakes_are_answered(
    words: list[str],
    message: str,
    given: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    spelt = [str(given) if word == "GIVEN" else word for word in words]
    assert main(["transform", *spelt, "--model", str(tiny_model), "--out", str(out)]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not out.exists()
