"""What the true pictures of captions tell of a model: its likelihoods, its dVAE, its memory.

Axes: b pictures, y x pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from dalle.checkpoint import ModelParts
from dalle.data.order import in_groups
from dalle.data.pictures import readable_pictures
from dalle.data.samples import SampleSet, open_samples
from dalle.errors import DataError
from dalle.evaluate.memorisation import memorisation
from dalle.evaluate.results import Memorisation, Reconstruction
from dalle.evaluate.vae import BATCH, Scene, evaluate_vae
from vae.fidelity import rebuild

TRAINING_PICTURES = 20_000
"""Training pictures searched for copies, the first of their set."""


@dataclass(frozen=True, kw_only=True)
class TruePictures:
    """Pictures that captions belong to, as they are and as the dVAE leaves them."""

    images: Sequence[Image.Image]
    """RGB, of the model's size."""
    rebuilt: Sequence[Image.Image]
    """The same, turned into tokens and back."""

    @cached_property
    def images_u8(self) -> np.ndarray:
        """The pictures, shape (b, y, x, 3), uint8."""
        return np.stack([np.asarray(image) for image in self.images])


def true_pictures(parts: ModelParts, images: Sequence[Image.Image]) -> TruePictures:
    """`images`, at least one, and what the dVAE of `parts` leaves of them."""
    rebuilt = [
        Image.fromarray(image)
        for group in in_groups(images, BATCH)
        for image in rebuild(parts.vae, np.stack([np.asarray(one) for one in group]))[0]
    ]
    return TruePictures(images=images, rebuilt=rebuilt)


def reconstruction(parts: ModelParts, images_u8: np.ndarray) -> Reconstruction:
    """How much of pictures, shape (b, y, x, 3), uint8, the dVAE keeps."""
    measured = evaluate_vae(parts.vae, (Scene(image_u8=image) for image in images_u8), judging=None)
    return Reconstruction(**{name: measured[name] for name in Reconstruction.__dataclass_fields__})


def training_set(path: Path) -> SampleSet:
    """Training pictures to look for copies among, with captions or without.

    Raises:
        DataError: There is no such set, or none of its first pictures can be read.
    """
    samples = open_samples(path)
    if next(_first_pictures(samples, (1, 1)), None) is None:
        raise DataError(f"{path}: there are no training pictures to compare with")
    return samples


def copies(drawn: Sequence[Image.Image], true: TruePictures, training: SampleSet) -> Memorisation:
    """Whether `drawn` copies the first pictures of a training set; damaged ones are left out.

    Raises:
        ValueError: None of the training pictures can be read.
    """
    width, height = true.images[0].size
    first = _first_pictures(training, (height, width))
    return memorisation(drawn, true.rebuilt, first, originals=true.images)


def _first_pictures(samples: SampleSet, image_px: tuple[int, int]) -> Iterator[Image.Image]:
    indices = range(min(len(samples), TRAINING_PICTURES))
    for _, picture in readable_pictures(samples, indices, image_px=image_px, captioned=False):
        yield Image.fromarray(picture.image_u8.numpy())
