"""Downloads: the files of `dalle generate`, within the page's room on the disk."""

from __future__ import annotations

import re
import resource
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle import GeneratedImage, TextToImage, read_recipe
from dalle.page.exports import save_pictures, save_sheet, save_zip
from dalle.page.faults import PageFault
from dalle.page.limits import Limits

LIMITS = Limits()
NASTY = ("../../etc/passwd", "CON", "x" * 300, "line\r\nbreak", "a\x00b", "🦊 狐", "=1+1", "%s`id`")


@pytest.fixture(scope="module")
def images(tiny_pipeline: TextToImage) -> tuple[GeneratedImage, ...]:
    return tiny_pipeline.generate("a fox", candidates=3, seed=5).images


def test_pictures_keep_their_pixels_and_settings(
    images: tuple[GeneratedImage, ...], tmp_path: Path
) -> None:
    files = save_pictures(images, tmp_path, LIMITS)
    for image, file in zip(images, files, strict=True):
        assert read_recipe(file) == image.recipe
        with Image.open(file) as saved:
            assert (np.asarray(saved) == np.asarray(image.image)).all()
    assert len({file.parent for file in files}) == 1
    assert files[0].parent.parent == tmp_path


def test_names_are_plain_and_short(images: tuple[GeneratedImage, ...], tmp_path: Path) -> None:
    named = [
        replace(images[0], recipe=replace(images[0].recipe, caption=caption)) for caption in NASTY
    ]
    files = save_pictures(named, tmp_path, LIMITS)
    assert len({file.name for file in files}) == len(NASTY)
    for file in files:
        assert re.fullmatch(r"[a-z0-9-]{1,60}-[0-9a-f]{8}-s5-i\d{3}\.png", file.name)
        assert file.parent.parent == tmp_path


def test_the_zip_holds_every_picture_once(
    images: tuple[GeneratedImage, ...], tmp_path: Path
) -> None:
    path = save_zip([*images, images[0]], tmp_path, LIMITS)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "and nothing beside it"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        archive.extractall(tmp_path / "out")
    assert len(names) == len(set(names)) == len(images)
    assert {read_recipe(tmp_path / "out" / name).index for name in names} == {0, 1, 2}


def test_the_sheet_shows_all(images: tuple[GeneratedImage, ...], tmp_path: Path) -> None:
    with Image.open(save_sheet(images, tmp_path, LIMITS)) as sheet:
        assert sheet.width == 4 * (128 + 8) + 8, "16 px enlarged to 128, four in a row"


def test_at_the_same_time_downloads_keep_apart(
    images: tuple[GeneratedImage, ...], tmp_path: Path
) -> None:
    """Partial files of one name used to be shared by all who save the same picture."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: save_pictures(images, tmp_path, LIMITS), range(16)))
    files = [file for files in found for file in files]
    assert len(set(files)) == 48
    assert all(file.is_file() for file in files)


@pytest.mark.parametrize("save", [save_pictures, save_zip, save_sheet])
def test_a_spent_quota_is_told_before_anything_is_written(
    save: object, images: tuple[GeneratedImage, ...], tmp_path: Path
) -> None:
    assert callable(save)
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "earlier.png").write_bytes(bytes(1000))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PageFault, match="no room for more files just now; try again in a few"):
        save(images, tmp_path, Limits(result_bytes=1000))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("save", [save_pictures, save_zip, save_sheet])
def test_a_full_disk_leaves_nothing_behind(
    save: object, images: tuple[GeneratedImage, ...], tmp_path: Path
) -> None:
    assert callable(save)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # stands for a disk that fills up
    try:
        with pytest.raises(PageFault, match="no room for more files just now"):
            save(images, tmp_path, LIMITS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_other_troubles_are_not_called_a_full_disk(
    images: tuple[GeneratedImage, ...], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        save_pictures(images, tmp_path / "gone", LIMITS)


@pytest.mark.parametrize("save", [save_zip, save_sheet])
def test_nothing_is_not_saved(save: object, tmp_path: Path) -> None:
    assert callable(save)
    with pytest.raises(PageFault, match="no pictures to save yet; draw some first"):
        save([], tmp_path, LIMITS)
