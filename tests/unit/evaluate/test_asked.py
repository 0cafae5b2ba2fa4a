"""What models are evaluated on: drawn by lot, named where it is damaged."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle.data.folder import PictureFolder
from dalle.data.images import centre_crop, open_rgb
from dalle.data.samples import open_samples
from dalle.errors import DataError
from dalle.evaluate.asked import LOOKED_AT, ask_pictures, square_px

pytestmark = pytest.mark.usefixtures("log_reaches_caplog")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve grey pictures, each of its own shade."""
    for number in range(12):
        shade = (20 * number,) * 3
        Image.new("RGB", (30, 20), shade).save(tmp_path / f"{number:02}.png")
        (tmp_path / f"{number:02}.txt").write_text(f"shade {number}", encoding="utf-8")
    return tmp_path


def test_pictures_come_by_lot_and_as_training_cuts_them(pictures: Path) -> None:
    samples = open_samples(pictures)
    all_of_them = ask_pictures(samples, 100, image_px=(16, 16), seed=3)
    assert len(all_of_them) == 12
    by_shade = {np.asarray(one.image)[0, 0, 0] // 20: one for one in all_of_them}
    for number, one in by_shade.items():
        assert one.caption == f"shade {number}"
        assert one.image == centre_crop(open_rgb(samples[int(number)].image), (16, 16))
        assert one.truth is None
    assert list(by_shade) != sorted(by_shade)
    assert ask_pictures(samples, 5, image_px=(16, 16), seed=3) == all_of_them[:5]
    assert ask_pictures(samples, 5, image_px=(16, 16), seed=4) != all_of_them[:5]


def test_no_caption_and_no_picture_is_asked_for_twice(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever draws one caption for several pictures compares a drawing with itself."""
    for number in (1, 2, 3):  # three pictures of one caption
        (pictures / f"{number:02}.txt").write_text(" the same ", encoding="utf-8")
    for number in (5, 6):  # one picture with three captions
        shutil.copy(pictures / "04.png", pictures / f"{number:02}.png")
    with caplog.at_level(logging.INFO):
        found = ask_pictures(open_samples(pictures), 12, image_px=(16, 16), seed=0)
    assert len(found) == len({one.caption for one in found}) == 8
    assert len({one.image.tobytes() for one in found if one.image}) == 8
    assert "4 were passed over, whose caption or picture was among the 8 chosen" in caplog.text


def test_a_set_of_few_captions_is_not_read_to_its_end(tmp_path: Path) -> None:
    for number in range(LOOKED_AT + 5):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a fox" if number else "an owl")
    samples = open_samples(tmp_path)
    assert len(ask_pictures(samples, 1, image_px=(16, 16), seed=0)) == 1
    read = []

    class Counting(PictureFolder):
        def picture(self, index: int) -> bytes:
            read.append(index)
            return super().picture(index)

    ask_pictures(Counting(tmp_path), 2, image_px=(16, 16), seed=0)
    assert len(read) <= 2 * LOOKED_AT


def test_what_cannot_be_used_is_named_and_another_taken(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "03.png").write_bytes(b"no picture")
    (pictures / "04.txt").write_text(" ", encoding="utf-8")
    (pictures / "05.txt").write_text("x" * 3000, encoding="utf-8")
    assert len(ask_pictures(open_samples(pictures), 12, image_px=(16, 16), seed=0)) == 9
    said = caplog.text
    assert "left out 03.png: the picture is damaged" in said
    assert "left out 04.png: the caption is empty" in said
    assert "left out 05.png: a caption must have at most 2,000 characters, got 3,000" in said


@pytest.mark.usefixtures("caplog")
def test_a_set_without_anything_usable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.txt").write_text("a fox", encoding="utf-8")
    with pytest.raises(DataError, match="no picture with a caption that can be read"):
        ask_pictures(open_samples(tmp_path), 3, image_px=(16, 16), seed=0)


def test_emoji_scenes_are_square() -> None:
    assert square_px((16, 16)) == 16
    with pytest.raises(ValueError, match="pictures of 32 x 16 px are not; measure on pictures"):
        square_px((16, 32))


def test_faults_are_told_once(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pictures / "03.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        ask_pictures(open_samples(pictures), 12, image_px=(16, 16), seed=0)
    assert len(caplog.records) == 1
