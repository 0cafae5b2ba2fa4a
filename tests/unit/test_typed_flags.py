"""Flags that exclude each other count because somebody typed them, whatever their values are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dalle import flags
from dalle.config import Generate, Transform


def parse(*argv: str) -> Generate:
    return flags.parse(Generate, argv, prog="dalle generate", positional="captions")


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "0"],
        ["--candidates", "16"],
        ["--ranker", "auto"],
        ["--dtype", "auto"],
        ["--temperature", "null"],
    ],
    ids=lambda words: words[0],
)
def test_a_default_typed_beside_like_is_refused_like_any_other_value(words: list[str]) -> None:
    """`--like PICTURE --seed 0` once drew the picture's own seed without a word."""
    with pytest.raises(ValueError, match=rf"so {words[0]} \w+ would change nothing; leave it out"):
        parse("--like", "fox.png", *words)


def test_a_default_of_how_a_picture_is_read_needs_a_picture() -> None:
    """`--crop center` without a picture once did nothing, where `--crop pad` was refused."""
    for words in (["--crop", "center"], ["--prompt-layout", "top-half"]):
        with pytest.raises(ValueError, match="say how --image is read; give one"):
            parse("a fox", *words)
        assert parse("--image", "fox.png", *words).image == Path("fox.png")


def test_a_cut_of_a_picture_that_is_kept_whole_is_refused() -> None:
    """Bug: `--prompt-layout place-on-top --crop pad` was taken, and nothing was padded."""
    with pytest.raises(ValueError, match=r"crop pad says how .*; leave one of them out"):
        parse("--image", "fox.png", "--prompt-layout", "place-on-top", "--crop", "pad")


def test_rows_must_be_a_number_that_is_one() -> None:
    """Bug: `--keep-rows nan` went through, and ended the command once the model was loaded."""
    with pytest.raises(ValueError, match="keep_rows must be a part of the height under 1"):
        Generate(captions=("a fox",), image=Path("fox.png"), keep_rows=math.nan)


def test_a_file_that_spells_out_every_default_still_redraws(tmp_path: Path) -> None:
    """`--print_config` writes such files; what nobody changed there excludes nothing."""
    spelt = tmp_path / "all.yaml"
    spelt.write_text(
        flags.dump(Generate(captions=("a fox",))).replace("captions:\n  - a fox\n", "")
    )
    assert "seed: 0" in spelt.read_text()
    assert parse("--config", str(spelt), "--like", "fox.png").like == Path("fox.png")
    spelt.write_text("seed: 3\n")
    with pytest.raises(ValueError, match="--seed 3 would change nothing"):
        parse("--config", str(spelt), "--like", "fox.png")


@pytest.mark.parametrize("to", ["sketch", "all"])
def test_a_blank_subject_is_refused_before_anything_is_loaded(to: str) -> None:
    """With `--to all` it once took the seconds of loading torch to say so."""
    with pytest.raises(ValueError, match="a subject must not be blank, got ' '"):
        Transform(image=Path("fox.png"), to=to, subject=" ")


def test_the_rows_of_an_earlier_picture_may_get_another_caption() -> None:
    settings = parse("--vary", "fox.png", "two apples", "a pizza")
    assert settings.captions == ("two apples", "a pizza")
    for words in (["--image", "a.png"], ["--like", "a.png"], ["--caption-file", "a.txt"]):
        with pytest.raises(ValueError, match="give one caption or several to draw"):
            parse("--vary", "fox.png", "two apples", *words)
