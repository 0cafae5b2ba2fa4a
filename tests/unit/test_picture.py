"""Pictures as PNG files that remember how they were made."""

from __future__ import annotations

import dataclasses
import json
import resource
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from dalle import GeneratedImage, Recipe, TextToImage, read_recipe
from dalle.config import SamplingConfig
from dalle.picture import MAX_CHUNK_CHARS, _recipe, save_png

RECIPE = Recipe(
    caption='a "fox"\r\n\x00 🦊 ../..',
    seed=-7,
    index=20,
    sampling=SamplingConfig(temperature=0.5, top_k=9, top_p=0.25, guidance_scale=3.0),
    batch=(1, 16),
    model="0123456789abcdef",
)
PIXELS = np.arange(16 * 16 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)


def picture(recipe: Recipe = RECIPE) -> GeneratedImage:
    return GeneratedImage(
        image=Image.fromarray(PIXELS),
        tokens=np.zeros((4, 4), dtype=np.int64),
        log_likelihood=-1.5,
        score=-1.5,
        ranker="likelihood",
        recipe=recipe,
    )


def parameters(**changes: Any) -> dict[str, Any]:
    """What a saved picture says of itself, changed here and there; `...` removes a key."""
    values = {
        "format_version": 1,
        **dataclasses.asdict(RECIPE),
        "batch": [1, 16],
        "prompt": [],
        "score": -1.5,
        "ranker": "likelihood",
    }
    values.update(changes)
    return {key: value for key, value in values.items() if value is not ...}


def png_with(path: Path, text: str, *, key: str = "parameters", compress: bool = False) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, text, zip=compress)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def test_a_picture_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    picture().save(str(path))
    assert read_recipe(path) == RECIPE
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert (np.asarray(image) == PIXELS).all()
        stored = json.loads(image.info["parameters"])
    assert stored == parameters()
    assert list(tmp_path.iterdir()) == [path]


def test_the_settings_are_an_itxt_chunk_that_any_program_can_read(tmp_path: Path) -> None:
    picture().save(tmp_path / "fox.png")
    content = (tmp_path / "fox.png").read_bytes()
    # PNG specification, 11.3.3.4: keyword, 0, compressed?, method, language, 0, keyword, 0, text
    head, _, rest = content.partition(b"iTXtparameters\x00\x00\x00\x00\x00")
    length = int.from_bytes(head[-4:], "big")
    text = rest[: length - len(b"parameters\x00\x00\x00\x00\x00")]
    assert json.loads(text.decode("utf-8")) == parameters()


@given(st.text(max_size=40))
def test_any_caption_survives(caption: str) -> None:
    recipe = dataclasses.replace(RECIPE, caption=caption)
    stored = json.dumps({**parameters(), **dataclasses.asdict(recipe)}, ensure_ascii=False)
    assert _recipe(json.loads(stored)) == recipe


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match=r"fox\.png"):
        picture().save(path)
    with pytest.raises(FileNotFoundError):
        save_png(Image.new("RGB", (4, 4)), tmp_path / "missing" / "fox.png")
    assert list(tmp_path.iterdir()) == [path]


def test_an_earlier_picture_survives_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(b"earlier")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # stands for a disk that fills up
    try:
        with pytest.raises(OSError, match="File too large"):
            picture().save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_saving_replaces_an_earlier_picture(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(b"old")
    picture().save(path)
    assert read_recipe(path) == RECIPE


# ----------------------------------------------------------------------------- what is no picture


def test_what_is_no_picture_of_ours_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    with pytest.raises(ValueError, match=r"missing\.png does not exist; give a PNG that dalle"):
        read_recipe(missing)
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    jpeg = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(jpeg, format="JPEG")
    for path in (text, jpeg, tmp_path):
        with pytest.raises(ValueError, match=rf"{path} cannot be read as a PNG \("):
            read_recipe(path)
    bare = tmp_path / "bare.png"
    Image.new("RGB", (8, 8)).save(bare)
    other = png_with(tmp_path / "other.png", "{}", key="workflow")
    for path in (bare, other):
        with pytest.raises(ValueError, match=rf"{path} holds no settings \(no 'parameters' chunk"):
            read_recipe(path)


def test_a_truncated_or_changed_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    picture().save(path)
    content = path.read_bytes()
    where = content.index(b"guidance_scale")
    path.write_bytes(content[:where])
    with pytest.raises(ValueError, match=r"fox\.png"):
        read_recipe(path)
    path.write_bytes(content.replace(b"guidance_scale", b"guidance_scala"))
    with pytest.raises(ValueError, match=r"fox\.png cannot be read as a PNG"):  # its CRC is wrong
        read_recipe(path)


@pytest.mark.parametrize("compress", [False, True])
def test_a_huge_chunk_is_refused_before_it_is_parsed(compress: bool, tmp_path: Path) -> None:
    path = png_with(tmp_path / "huge.png", "[" * 5_000_000, compress=compress)
    with pytest.raises(ValueError, match=r"huge\.png"):
        read_recipe(path)
    path = png_with(tmp_path / "large.png", " " * MAX_CHUNK_CHARS + "{}")
    with pytest.raises(ValueError, match="65,538 characters, at most 65,536 are read"):
        read_recipe(path)


def test_a_picture_of_a_size_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    picture().save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    header = bytes(content[12:29])
    content[29:33] = zlib.crc32(header).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read as a PNG"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "settings cannot be used"),
        ("{", "settings cannot be used"),
        ("[" * 60_000, "nested too deeply"),
        ("[]", "must be a JSON object, got list"),
        ('"fox"', "must be a JSON object, got str"),
        ("null", "must be a JSON object, got NoneType"),
        ("{}", "format_version must be 1, got None"),
    ],
)
def test_settings_that_are_no_settings_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = png_with(tmp_path / "odd.png", text)
    with pytest.raises(ValueError, match=rf"odd\.png.* {message}"):
        read_recipe(path)


SAMPLING = dataclasses.asdict(RECIPE.sampling)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version must be 1, got 2"),
        ({"caption": ...}, "caption must be text, got nothing"),
        ({"caption": ["a fox"]}, r"caption must be text, got \['a fox'\]"),
        ({"seed": 1.5}, r"seed must be a whole number, got 1\.5"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"seed": 1 << 63}, r"seed must be a whole number below 2\^63"),
        ({"index": "0"}, "index must be a whole number, got '0'"),
        ({"index": -1}, "index must be between 0 and 4,095, got -1"),
        ({"index": 4096}, "index must be between 0 and 4,095, got 4096"),
        ({"model": None}, "model must be text, got nothing"),
        ({"batch": ...}, "batch must be a list, got nothing"),
        ({"batch": [16]}, r"batch must be two whole numbers from 1 on, got \[16\]"),
        ({"batch": [1, 0]}, r"batch must be two whole numbers from 1 on, got \[1, 0\]"),
        ({"batch": [1, "16"]}, "batch must be two whole numbers from 1 on"),
        ({"batch": [4096, 4096]}, r"batch must be at most 256 images, got \[4096, 4096\]"),
        ({"sampling": ...}, "sampling is missing or not an object"),
        ({"sampling": {**SAMPLING, "heat": 1}}, "sampling has unknown keys: heat"),
        ({"sampling": {"temperature": 1}}, "sampling lacks the keys guidance_scale, top_k, top_p"),
        ({"sampling": {**SAMPLING, "top_p": "1"}}, r"sampling\.top_p must be a number, got '1'"),
        ({"sampling": {**SAMPLING, "top_k": 2.5}}, r"sampling\.top_k must be"),
        ({"sampling": {**SAMPLING, "top_p": 1.2}}, r"top_p must be in \(0, 1\], got 1\.2"),
        ({"sampling": {**SAMPLING, "temperature": float("nan")}}, "temperature must be between"),
        ({"caption": ["x" * 500]}, "caption must be text, got .{60}$"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = png_with(tmp_path / "odd.png", json.dumps(parameters(**changes)))
    with pytest.raises(ValueError, match=rf"odd\.png: its settings cannot be used: .*{message}"):
        read_recipe(path)


def test_a_picture_is_printed_on_one_line(tiny_pipeline: TextToImage) -> None:
    """Bug: a result, which the README prints, was a hundred lines of tokens."""
    result = tiny_pipeline.generate("a fox", candidates=2, seed=5, ranker="none").results[0]
    assert repr(result.images[1]) == "GeneratedImage('a fox', seed 5, no. 1)"
    assert repr(dataclasses.replace(result.images[0], score=0.25, ranker="clip")) == (
        "GeneratedImage('a fox', seed 5, no. 0, clip 0.250)"
    )
    *_, frame = tiny_pipeline.stream("a fox", candidates=2)
    assert max(len(repr(frame)), len(repr(result))) < 500
