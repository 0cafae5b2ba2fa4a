"""What CLIP makes of pictures, against plain computations and sets whose distance is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle.evaluate.seen_by_clip import (
    LEAST_PICTURES,
    agreement,
    kernel_distance,
    likeness,
    retrieval,
)


def vectors(count: int, *, seed: int, mean: float = 0.0, width: int = 12) -> Tensor:
    draws = torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + mean
    return torch.nn.functional.normalize(draws, dim=1)


def test_the_distance_equals_a_plain_sum_over_pairs() -> None:
    a, b = vectors(7, seed=0), vectors(7, seed=1, mean=0.5)

    def kernel(x: Tensor, y: Tensor) -> float:
        return float(((1 + x.double() @ y.double()) / 2) ** 3)

    pairs = list(itertools.permutations(range(7), 2))
    within = sum(kernel(a[i], a[j]) + kernel(b[i], b[j]) for i, j in pairs)
    across = sum(kernel(a[i], b[j]) for i, j in pairs)
    found = kernel_distance(a, b, seed=0)
    assert found.rate == pytest.approx((within - 2 * across) / len(pairs), abs=1e-7)
    assert found.low < found.rate < found.high
    assert found.n == 7
    # Vectors of any length: what CLIP sees from several sides has one below 1.
    assert kernel_distance(a * 0.5, b * 3, seed=0).rate == pytest.approx(found.rate, abs=1e-7)


def test_alike_sets_have_no_distance_on_average_and_few_pictures_no_bias() -> None:
    few = [
        kernel_distance(vectors(6, seed=2 * i), vectors(6, seed=2 * i + 1), seed=0, draws=1).rate
        for i in range(400)
    ]
    assert min(few) < 0 < max(few)
    assert abs(np.mean(few)) < 3 * np.std(few) / 20
    shifted = [
        kernel_distance(vectors(n, seed=5, mean=0.4), vectors(n, seed=6), seed=0).rate
        for n in (400, 800)
    ]
    assert shifted[0] == pytest.approx(shifted[1], rel=0.2)
    assert shifted[0] > 20 * np.std(few) * 6 / 400


def test_the_interval_holds_the_distance_of_large_sets() -> None:
    truth = kernel_distance(
        vectors(4000, seed=1, mean=0.3), vectors(4000, seed=2), seed=0, draws=1
    ).rate
    found = []
    for i in range(100):
        pair = vectors(60, seed=100 + i, mean=0.3), vectors(60, seed=500 + i)
        found.append(kernel_distance(*pair, seed=i, draws=400))
    # 95 expected; 88 or fewer once in 300 times.
    assert sum(one.low <= truth <= one.high for one in found) >= 89
    widths, rates = [one.high - one.low for one in found], [one.rate for one in found]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(rates), rel=0.3), "and no wider"


def test_pictures_of_one_caption_are_never_compared() -> None:
    """A copy of the true set would otherwise be nearer to it than another true set is."""
    true = vectors(50, seed=0)
    assert kernel_distance(true, true, seed=0).rate == pytest.approx(0, abs=1e-12)
    assert kernel_distance(true, true.roll(1, dims=0), seed=0).rate < 0


@pytest.mark.parametrize(("a", "b"), [(3, 4), (1, 1), (0, 0)])
def test_other_sets_are_refused(a: int, b: int) -> None:
    with pytest.raises(ValueError, match=f"at least two each; got {a} and {b}"):
        kernel_distance(vectors(a, seed=0), vectors(b, seed=0), seed=0)


def test_agreement_is_the_mean_cosine() -> None:
    drawn, best, true, captions = (vectors(5, seed=seed) for seed in range(4))
    found = agreement(drawn=drawn, best=best, true=true, captions=captions, seed=0)
    for rate, images in ((found.drawn, drawn), (found.best, best), (found.true, true)):
        assert rate is not None
        cosines = [float(image @ caption) for image, caption in zip(images, captions, strict=True)]
        assert rate.rate == pytest.approx(np.mean(cosines), abs=1e-6)
        assert rate.low <= rate.rate <= rate.high
    assert found.others is not None
    others = [float(drawn[i - 1] @ captions[i]) for i in range(5)]
    assert found.others.rate == pytest.approx(np.mean(others), abs=1e-6)


def test_few_pictures_are_no_set() -> None:
    one, few = vectors(1, seed=0), vectors(LEAST_PICTURES - 1, seed=0)
    found = agreement(drawn=one, best=one, true=None, captions=one, seed=0)
    assert found.true is found.others is None
    assert found.drawn.rate == pytest.approx(1)
    assert likeness(drawn=few, best=few, rebuilt=few, true=few, seed=0) is None


def test_chance_is_beside_other_captions() -> None:
    drawn, captions = vectors(4, seed=0), vectors(4, seed=1)
    captions[1] = captions[0]
    found = agreement(drawn=drawn, best=drawn, true=None, captions=captions, seed=0).others
    assert found is not None
    others = [float(drawn[i - 1] @ captions[i]) for i in (0, 2, 3)]
    assert found.rate == pytest.approx(np.mean(others), abs=1e-6)
    assert found.n == 3


def test_the_sets_are_told_apart() -> None:
    true = vectors(200, seed=0)
    near, far = vectors(200, seed=1, mean=0.1), vectors(200, seed=2, mean=0.8)
    found = likeness(drawn=far, best=near, rebuilt=true, true=true, seed=0)
    assert found is not None
    assert found.drawn.low > found.best.high > found.best.rate > found.rebuilt.rate


def test_retrieval_counts_places() -> None:
    captions = torch.eye(8)
    images = torch.tensor([[8.0, 7, 6, 5, 4, 3, 2, 1]]).repeat(3, 1)
    found = retrieval(images, captions, [0, 4, 5])
    assert (found.captions, found.r_at_1.rate, found.r_at_5.rate) == (8, 1 / 3, 2 / 3)
