"""Pictures for torch: decoded and cut as their draw says, or named as unreadable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle.data.order import Draw
from dalle.data.pictures import Crop, Fault, Picture, PictureSet, split_indices
from dalle.data.samples import open_samples
from dalle.errors import DataError
from tests.paths import SCENES


def scenes(crop: Crop, *, seed: int = 0, indices: range = range(24), px: int = 32) -> PictureSet:
    return PictureSet(open_samples(SCENES), indices, image_px=(px, px), crop=crop, seed=seed)


def picture(found: Picture | Fault) -> Picture:
    assert isinstance(found, Picture)
    return found


def pixels(pictures: PictureSet, index: int, epoch: int) -> torch.Tensor:
    return picture(pictures[Draw(index=index, epoch=epoch)]).image_u8


def test_plain_pictures_are_the_same_in_every_epoch() -> None:
    plain = scenes("plain", px=64)
    sample = open_samples(SCENES)[5]
    found = picture(plain[Draw(index=5, epoch=0)])
    assert (found.key, found.caption) == (sample.key, sample.caption)
    assert found.image_u8.shape == (64, 64, 3)
    assert found.image_u8.dtype == torch.uint8
    assert torch.equal(found.image_u8, pixels(plain, 5, epoch=9))


def test_versions_of_one_opening_are_those_of_several() -> None:
    cuts: list[tuple[Crop, int]] = [("plain", 0), ("transformer", 1), ("transformer", 2)]
    found = scenes("plain").versions(3, cuts)
    assert not isinstance(found, Fault)
    for version, (crop, epoch) in zip(found, cuts, strict=True):
        assert torch.equal(version.image_u8, pixels(scenes(crop), 3, epoch))


def test_indices_choose_among_the_samples() -> None:
    part = scenes("plain", indices=range(10, 14))
    assert len(part) == 4
    assert torch.equal(pixels(part, 1, 0), pixels(scenes("plain"), 11, 0))


@pytest.mark.parametrize("crop", ["vae", "transformer"])
def test_random_crops_depend_on_seed_epoch_and_sample_alone(crop: Crop) -> None:
    first = scenes(crop)
    wanted = pixels(first, 3, epoch=1)
    assert wanted.shape == (32, 32, 3)
    fresh = scenes(crop)
    for index in (7, 3, 0):  # what was drawn before changes nothing
        pixels(fresh, index, epoch=0)
    assert torch.equal(pixels(fresh, 3, epoch=1), wanted)
    # Nor does the place within a part of the samples.
    assert torch.equal(pixels(scenes(crop, indices=range(3, 9)), 0, epoch=1), wanted)
    epochs = {pixels(first, 3, epoch).numpy().tobytes() for epoch in range(8)}
    seeds = {pixels(scenes(crop, seed=seed), 3, 1).numpy().tobytes() for seed in range(8)}
    assert len(epochs) > 4
    assert len(seeds) > 4


def test_what_cannot_be_read_is_named_instead_of_raised(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (40, 40), "red").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("a red square")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.txt").unlink()
    pictures = PictureSet(open_samples(tmp_path), range(3), image_px=(32, 32), crop="plain", seed=0)
    good, broken, silent = (pictures[Draw(index=index, epoch=0)] for index in range(3))
    assert picture(good).caption == "a red square"
    assert isinstance(broken, Fault)
    assert broken.key == "b.png"
    assert "damaged, or is not PNG" in broken.reason
    assert isinstance(silent, Fault)
    # Bug: it was called by its number, and by its name once more in the reason.
    assert (silent.key, silent.reason) == ("c.png", "it has no caption (c.txt is not there)")


def test_a_split_is_a_seeded_partition() -> None:
    train, heldout = split_indices(range(200), heldout_fraction=0.1, seed=0)
    assert len(heldout) == 20
    assert sorted(train + heldout) == list(range(200))
    assert (train, heldout) == split_indices(range(200), heldout_fraction=0.1, seed=0)
    assert heldout != split_indices(range(200), heldout_fraction=0.1, seed=1)[1]
    # Spread over the whole set, not its end: all twenty in one half has probability 2^-19.
    assert np.ptp(heldout) > 100


def test_captions_of_one_picture_stay_together() -> None:
    """Bug: held-out captions could be of pictures that were trained on."""
    pictures = [index // 5 for index in range(500)]
    train, heldout = split_indices(pictures, heldout_fraction=0.1, seed=0)
    assert len(heldout) == 50
    assert sorted(train + heldout) == list(range(500))
    assert not {pictures[index] for index in train} & {pictures[index] for index in heldout}


@pytest.mark.parametrize(("size", "fraction"), [(10, 0.01), (10, 0.99), (0, 0.5)])
def test_a_split_with_an_empty_part_is_refused(size: int, fraction: float) -> None:
    with pytest.raises(DataError, match=r"add pictures or change heldout_fraction"):
        split_indices(range(size), heldout_fraction=fraction, seed=0)
