"""What CLIP makes of drawn pictures: whose captions they are, and how far from true ones.

Axes: b pictures and their captions, p captions to choose from, e embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dalle.evaluate.estimators import Rate, bootstrap_counts, mean_interval, share
from dalle.evaluate.results import Agreement, Likeness, Retrieval

LEAST_PICTURES = 10
"""Fewer make no set: intervals of their distance would be far too narrow."""


def retrieval(images: Tensor, captions: Tensor, own: Sequence[int]) -> Retrieval:
    """How often pictures find their own captions among others.

    Args:
        images: Vectors of pictures, shape (b, e).
        captions: Unit vectors of different captions, shape (p, e).
        own: Which of them is each picture's.
    """
    cosines = images @ captions.T
    places = torch.tensor(own, device=cosines.device)
    better = (cosines > cosines.gather(1, places[:, None])).sum(dim=1).cpu().numpy()
    return Retrieval(captions=len(captions), r_at_1=share(better < 1), r_at_5=share(better < 5))


def agreement(
    *, drawn: Tensor, best: Tensor, true: Tensor | None, captions: Tensor, seed: int
) -> Agreement:
    """Cosines of pictures and their captions, the CLIP score without its factor of 2.5.

    Args:
        drawn: Vectors of pictures that nobody chose, shape (b, e).
        best: Of the same captions' pictures that the ranker puts first, shape (b, e).
        true: Of their true pictures, shape (b, e), where there are some.
        captions: Unit vectors of each one's caption, shape (b, e).
        seed: Of the intervals' resampling.

    Source: Hessel et al. 2021, "CLIPScore", section 3.
    """
    # Each picture beside the caption of the next one, where that is another: chance, in this set.
    differ = (captions != captions.roll(1, dims=0)).any(dim=1)

    def cosines(images: Tensor, chosen: Tensor | slice = slice(None)) -> Rate:
        products = (images * captions[chosen]).sum(dim=1)
        return mean_interval(products.double().cpu().numpy(), seed=seed)

    return Agreement(
        drawn=cosines(drawn),
        best=cosines(best),
        true=None if true is None else cosines(true),
        others=cosines(drawn.roll(1, dims=0)[differ], differ) if differ.any() else None,
    )


def likeness(
    *, drawn: Tensor, best: Tensor, rebuilt: Tensor, true: Tensor, seed: int
) -> Likeness | None:
    """How far sets of pictures are from the true ones, by `kernel_distance`.

    Args:
        drawn: Vectors of pictures that nobody chose, shape (b, e).
        best: Of the same captions' pictures that the ranker puts first, shape (b, e).
        rebuilt: Of their true pictures through the dVAE, shape (b, e).
        true: Of their true pictures, shape (b, e).
        seed: Of the intervals' resampling.

    Returns:
        None of fewer than `LEAST_PICTURES`, which are no set.
    """
    if len(true) < LEAST_PICTURES:
        return None
    return Likeness(
        drawn=kernel_distance(drawn, true, seed=seed),
        best=kernel_distance(best, true, seed=seed),
        rebuilt=kernel_distance(rebuilt, true, seed=seed),
    )


def kernel_distance(a: Tensor, b: Tensor, *, seed: int, draws: int = 2000) -> Rate:
    """Squared maximum mean discrepancy of two sets of pictures, 0 on average for alike ones.

    The kernel is the cube of (1 + cosine) / 2, as the kernel Inception distance's is one of dot
    products. The estimate is unbiased, whatever the number of pictures, which a Fréchet distance
    of few is not; so it may lie below 0. Pairs of equal number, which belong to one caption, are
    never compared. All captions and pictures of a set must differ. The interval is a percentile
    bootstrap's, which for sets that are alike holds 0 more often than in 95 of 100 cases.

    Args:
        a: Vectors, shape (b, e), b at least 2.
        b: Vectors of as many others, of the same captions.
        seed: Of the interval's resampling of captions.
        draws: Resampled sets.

    Raises:
        ValueError: The sets differ in size, or have fewer than two members.

    Source: Gretton et al. 2012, "A kernel two-sample test", equation 4; Bińkowski et al. 2018,
        "Demystifying MMD GANs", section 4.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(
            f"two sets of equally many pictures are compared, at least two each; got {len(a)} and "
            f"{len(b)}"
        )
    x, y = (torch.nn.functional.normalize(one.double(), dim=1) for one in (a, b))
    across = _kernel(x, y)
    excess = (_kernel(x, x) + _kernel(y, y) - across - across.T).cpu().numpy()  # b b
    np.fill_diagonal(excess, 0)
    n = len(excess)
    counts = bootstrap_counts(n, seed=seed, draws=draws).astype(np.float64)  # r b
    # A caption that was drawn twice is not compared with itself either.
    compared = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
    resampled = ((counts @ excess) * counts).sum(axis=1)[compared > 0] / compared[compared > 0]
    low, high = np.percentile(resampled, (2.5, 97.5))
    rate = float(excess.sum() / (n * (n - 1)))
    return Rate(rate=rate, low=min(rate, float(low)), high=max(rate, float(high)), n=n)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Similarities of all unit vectors of `x` and of `y`, 0 to 1, shape (b, b)."""
    return ((1 + x @ y.T) / 2) ** 3
