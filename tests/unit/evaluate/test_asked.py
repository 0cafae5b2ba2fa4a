"""What models are evaluated on: drawn by lot, named where it is damaged."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle.data.images import fit_square, open_rgb
from dalle.data.samples import open_samples
from dalle.errors import DataError
from dalle.evaluate.asked import ask_pictures, square_px


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve grey pictures, each of its own shade, and five captions."""
    for number in range(12):
        shade = (20 * number,) * 3
        Image.new("RGB", (30, 20), shade).save(tmp_path / f"{number:02}.png")
        (tmp_path / f"{number:02}.txt").write_text(f"shade {number % 5}", encoding="utf-8")
    return tmp_path


def test_pictures_come_by_lot_and_as_training_cuts_them(pictures: Path) -> None:
    samples = open_samples(pictures)
    all_of_them = ask_pictures(samples, 100, image_px=16, seed=3)
    assert len(all_of_them) == 12
    by_shade = {np.asarray(one.image)[0, 0, 0] // 20: one for one in all_of_them}
    for number, one in by_shade.items():
        assert one.caption == f"shade {number % 5}"
        assert one.image == fit_square(open_rgb(samples[int(number)].image), 16)
        assert one.truth is None
    assert list(by_shade) != sorted(by_shade)
    assert ask_pictures(samples, 5, image_px=16, seed=3) == all_of_them[:5]
    assert ask_pictures(samples, 5, image_px=16, seed=4) != all_of_them[:5]


def test_an_equal_caption_is_shown_by_another_candidate(pictures: Path) -> None:
    """Otherwise the same drawing would stand for all pictures of a class."""
    found = ask_pictures(open_samples(pictures), 12, image_px=16, seed=0)
    for caption in {one.caption for one in found}:
        candidates = [one.candidate for one in found if one.caption == caption]
        assert candidates == list(range(len(candidates)))


def test_what_cannot_be_used_is_named_and_another_taken(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "03.png").write_bytes(b"no picture")
    (pictures / "04.txt").write_text(" ", encoding="utf-8")
    (pictures / "05.txt").write_text("x" * 3000, encoding="utf-8")
    assert len(ask_pictures(open_samples(pictures), 12, image_px=16, seed=0)) == 9
    said = caplog.text
    assert "left out 03.png: the picture is damaged" in said
    assert "left out 04.png: the caption is empty" in said
    assert "left out 05.png: a caption must have at most 2,000 characters, got 3,000" in said


@pytest.mark.usefixtures("caplog")
def test_a_set_without_anything_usable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.txt").write_text("a fox", encoding="utf-8")
    with pytest.raises(DataError, match="no picture with a caption that can be read"):
        ask_pictures(open_samples(tmp_path), 3, image_px=16, seed=0)


def test_only_square_models_have_true_pictures() -> None:
    assert square_px((16, 16)) == 16
    with pytest.raises(ValueError, match="draws 32 x 16 px; evaluate it on a file of captions"):
        square_px((16, 32))


def test_faults_are_told_once(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pictures / "03.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        ask_pictures(open_samples(pictures), 12, image_px=16, seed=0)
    assert len(caplog.records) == 1
