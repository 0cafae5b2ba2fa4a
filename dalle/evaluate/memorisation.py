"""Whether drawn pictures are copies: how near each is to the training picture nearest to it.

Axes: b pictures, d thumbnail values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from dalle.data.order import in_groups
from dalle.evaluate.results import Memorisation, Nearness

THUMBNAIL_PX = 16
"""Side that pictures are compared at: copies differ in detail, which the dVAE redraws."""
CHUNK = 4096


def memorisation(
    generated: Sequence[Image.Image],
    heldout: Sequence[Image.Image],
    training: Iterable[Image.Image],
    *,
    originals: Sequence[Image.Image],
) -> Memorisation:
    """Distances to the nearest training picture, of drawn pictures and of true unseen ones.

    A distance is the root mean square of colour differences of thumbnails, 0 to 1.

    Args:
        generated: Pictures that the model drew.
        heldout: Pictures like the training pictures that training never showed; seen through the
            same dVAE, if the drawn ones were, so that its blur counts for neither.
        training: What the model was trained on, or part of it; read once.
        originals: The held-out pictures as they are, to tell whether training showed some of them
            after all.

    Raises:
        ValueError: One of the three is empty.
    """
    if not generated or not heldout:
        raise ValueError("both drawn and held-out pictures are needed, and one of them is missing")
    wanted = np.concatenate([_thumbnails(generated), _thumbnails(heldout)])  # b d
    nearest = np.full(len(wanted), np.inf)
    count = 0
    unseen = {image.tobytes() for image in originals}
    seen: set[bytes] = set()
    for group in in_groups(training, CHUNK):
        seen |= unseen.intersection(image.tobytes() for image in group)
        nearest = np.minimum(nearest, _distances(wanted, _thumbnails(group)).min(axis=1))
        count += len(group)
    if not count:
        raise ValueError("there are no training pictures to compare with")
    return Memorisation(
        generated=_nearness(nearest[: len(generated)]),
        heldout=_nearness(nearest[len(generated) :]),
        training_pictures=count,
        trained_on=sum(image.tobytes() in seen for image in originals),
    )


def _thumbnails(images: Sequence[Image.Image]) -> np.ndarray:
    """Colours of small versions, shape (b, d), float32, 0 to 1."""
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    small = [
        np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX)) for image in images
    ]
    return np.stack(small).reshape(len(images), -1).astype(np.float32) / 255


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square differences of every row of `a` and every row of `b`."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    # Rounding can leave a tiny negative number where two rows are equal.
    distances: np.ndarray = np.sqrt(np.maximum(squares, 0) / a.shape[1])
    return distances


def _nearness(nearest: np.ndarray) -> Nearness:
    return Nearness(
        median=float(np.median(nearest)),
        p05=float(np.percentile(nearest, 5)),
        least=float(nearest.min()),
        n=len(nearest),
    )
