"""Captioned pictures as torch reads them: decoded, cut to one size, or named as unreadable."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dalle.config import DataConfig
from dalle.data.images import DECODED_TIMES, centre_crop, open_rgb, random_crop_paper
from dalle.data.order import Draw
from dalle.data.sample import Sample, without_key
from dalle.data.samples import SampleSet, open_samples
from dalle.errors import DataError
from dalle.seeds import derive_seed

log = logging.getLogger(__name__)

Crop = Literal["plain", "vae", "transformer"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One decoded sample."""

    key: str
    caption: str
    image_u8: Tensor
    """RGB, shape (y, x, 3), uint8."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One sample that could not be read, and why."""

    key: str
    reason: str


class PictureSet(Dataset[Picture | Fault]):
    """Pictures of height and width `image_px`; a `Draw` chooses item and augmentation seed.

    `crop` is `plain` (resize and centre crop, no randomness) or one of the paper's two random
    crops: `vae` (its listing 1) or `transformer` (listing 2, near the centre and never flipped).
    Where pictures need not be `captioned`, as for a dVAE, captions are not read.
    """

    def __init__(
        self,
        samples: SampleSet,
        indices: Sequence[int],
        *,
        image_px: tuple[int, int],
        crop: Crop,
        seed: int,
        captioned: bool = True,
    ) -> None:
        self.samples = samples
        self.indices = indices
        self.image_px = image_px
        self.crop = crop
        self.seed = seed
        self.captioned = captioned

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, draw: Draw) -> Picture | Fault:
        found = self.versions(draw.index, [(self.crop, draw.epoch)])
        return found if isinstance(found, Fault) else found[0]

    def versions(self, place: int, cuts: Sequence[tuple[Crop, int]]) -> list[Picture] | Fault:
        """Item `place`, opened once and cut in several ways, each a crop and its epoch."""
        index = self.indices[place]
        key = self.samples.key(index)
        try:
            if self.captioned:
                sample = self.samples[index]
            else:
                sample = Sample(key=key, image=self.samples.picture(index), caption="")
            image = open_rgb(sample.image, enough_px=DECODED_TIMES * max(self.image_px))
        except DataError as err:
            return Fault(key=key, reason=without_key(err, key))
        return [
            Picture(key=key, caption=sample.caption, image_u8=self._cut(image, crop, epoch, index))
            for crop, epoch in cuts
        ]

    def _cut(self, image: Image.Image, crop: Crop, epoch: int, index: int) -> Tensor:
        if crop == "plain":
            cut = centre_crop(image, self.image_px)
        else:
            rng = np.random.default_rng(derive_seed(self.seed, "crop", epoch, index))
            cut = random_crop_paper(image, self.image_px, rng, listing=crop)
        return torch.from_numpy(np.array(cut, dtype=np.uint8))


def readable_pictures(
    samples: SampleSet,
    indices: Sequence[int],
    *,
    image_px: tuple[int, int],
    captioned: bool = True,
) -> Iterator[tuple[int, Picture]]:
    """Samples and their indices, cut as held-out ones are; damaged ones are named and left out.

    Args:
        samples: The set.
        indices: Which of its samples.
        image_px: Height and width to bring them to.
        captioned: Whether a picture without caption is a fault.
    """
    pictures = PictureSet(
        samples, indices, image_px=image_px, crop="plain", seed=0, captioned=captioned
    )
    for place, index in enumerate(indices):
        found = pictures[Draw(index=place, epoch=0)]
        if isinstance(found, Fault):
            log.warning("left out %s: %s", found.key, found.reason)
        else:
            yield index, found


def split_indices(
    pictures: Sequence[Hashable], *, heldout_fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Indices to train on and indices set aside, chosen by a seeded permutation of the pictures.

    Args:
        pictures: Which picture each sample shows; samples of one picture stay together.
        heldout_fraction: Of the pictures, to set aside.
        seed: Any integer.

    Raises:
        DataError: One of the two parts would be empty.
    """
    samples_of: dict[Hashable, list[int]] = {}
    for index, picture in enumerate(pictures):
        samples_of.setdefault(picture, []).append(index)
    groups = list(samples_of.values())
    heldout = round(len(groups) * heldout_fraction)
    if not 0 < heldout < len(groups):
        raise DataError(
            f"setting aside {heldout_fraction:.1%} of {len(groups)} pictures leaves "
            f"{len(groups) - heldout} to train on and {heldout} to evaluate on; add pictures or "
            "change heldout_fraction"
        )
    order = np.random.default_rng(derive_seed(seed, "split")).permutation(len(groups))
    aside, rest = (
        sorted(index for group in part.tolist() for index in groups[group])
        for part in np.split(order, [heldout])
    )
    return rest, aside


def picture_sets(
    data: DataConfig, seed: int, *, random_crop: Crop, captioned: bool = True
) -> tuple[PictureSet, PictureSet]:
    """Training and held-out pictures, as `data` names or splits them.

    Args:
        data: Where they lie, and whether training pictures are cut at random.
        seed: Seed of the split and of the crops.
        random_crop: Which crop that is.
        captioned: Whether a picture without caption is a fault.

    Raises:
        DataError: A folder cannot be read, or too small to be split.
    """
    samples = open_samples(data.train)
    heldout_samples: SampleSet = samples
    if data.heldout is not None:
        heldout_samples = open_samples(data.heldout)
        train, heldout = list(range(len(samples))), list(range(len(heldout_samples)))
    else:
        names = [samples.picture_name(index) for index in range(len(samples))]
        train, heldout = split_indices(names, heldout_fraction=data.heldout_fraction, seed=seed)
    common: Any = {"image_px": data.size_px, "seed": seed, "captioned": captioned}
    crop: Crop = random_crop if data.augment == "paper" else "plain"
    return (
        PictureSet(samples, train, crop=crop, **common),
        PictureSet(heldout_samples, heldout, crop="plain", **common),
    )
