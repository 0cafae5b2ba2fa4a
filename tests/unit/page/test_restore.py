"""Pictures dropped on the page: their settings, or a fault that tells what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dalle import TextToImage
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.restore import read_settings, settings_of

LIMITS = Limits()


def png_with(folder: Path, text: str) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("parameters", text)
    path = folder / "dropped.png"
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(("candidates", "index"), [(3, 1), (20, 2), (20, 18)])
def test_a_dropped_picture_is_drawn_again(
    tiny_pipeline: TextToImage, tmp_path: Path, candidates: int, index: int
) -> None:
    """Index 18 of 20 is of a second micro-batch, which a smaller number of candidates lacks."""
    drawn = tiny_pipeline.generate("a fox", candidates=candidates, seed=9, temperature=0.7)
    (picture,) = [image for image in drawn.images if image.recipe.index == index]
    picture.save(tmp_path / "dropped.png")
    recipe = read_settings(tmp_path / "dropped.png", LIMITS)
    assert recipe == picture.recipe
    settings = settings_of(recipe)
    again = tiny_pipeline.generate(settings.caption, **settings.options()).images
    (same,) = [image for image in again if image.recipe == recipe]
    assert (np.asarray(same.image) == np.asarray(picture.image)).all()


def test_the_null_caption_belongs_to_pictures_that_go_on_from_one(
    tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    given = tiny_pipeline.generate("a fox", candidates=1).images[0]
    prompt = tiny_pipeline.first_rows(given, 0.5)
    picture = tiny_pipeline.generate(None, image=prompt, candidates=1).images[0]
    picture.save(tmp_path / "dropped.png")
    assert settings_of(read_settings(tmp_path / "dropped.png", LIMITS)).caption is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "its settings cannot be used: format_version must be 1, got None"),
        ("[" * 10_000, "its settings are nested too deeply"),
        ("[" * 5_000_000, "5,000,000 characters, at most 65,536 are read"),
        (" " * 70_000, "70,000 characters, at most 65,536 are read"),
        ("__import__('os').system('true')", "its settings cannot be used"),
    ],
    ids=["empty", "deep", "huge", "long", "code"],
)
def test_settings_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PageFault, match=message) as caught:
        read_settings(png_with(tmp_path, text), LIMITS)
    assert str(tmp_path) not in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def test_what_is_no_picture_of_ours_is_refused(tmp_path: Path) -> None:
    text, bare, photo = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    text.write_text("no picture")
    Image.new("RGB", (4, 4)).save(bare)
    Image.new("RGB", (4, 4)).save(photo, "JPEG")
    for path in (text, photo):
        with pytest.raises(PageFault, match=r"the picture cannot be read as a PNG \(it is none\)"):
            read_settings(path, LIMITS)
    with pytest.raises(PageFault, match="the picture holds no settings"):
        read_settings(bare, LIMITS)
    with pytest.raises(PageFault, match="addresses are not opened"):
        read_settings("http://127.0.0.1:9/a.png", LIMITS)


@pytest.mark.parametrize(("caption", "message"), [("x" * 1001, "at most 1,000"), ("", "empty")])
def test_captions_keep_to_the_pages_limits(
    tiny_pipeline: TextToImage, tmp_path: Path, caption: str, message: str
) -> None:
    tiny_pipeline.generate("a fox", candidates=1).images[0].save(tmp_path / "own.png")
    with Image.open(tmp_path / "own.png") as image:
        stored = json.loads(image.info["parameters"])
    with pytest.raises(PageFault, match=message):
        read_settings(png_with(tmp_path, json.dumps({**stored, "caption": caption})), LIMITS)
