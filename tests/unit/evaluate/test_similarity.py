"""Structural similarity, against a plain computation window by window."""

from __future__ import annotations

import numpy as np
import pytest

from dalle.evaluate.similarity import ssim


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Equations 14 to 16 of Wang et al. 2004 for one picture, one window after the other."""
    squared = np.square(np.arange(11) - 5)
    window = np.exp(-(squared[:, None] + squared) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            for colour in range(a.shape[2]):
                p = a[top : top + 11, left : left + 11, colour].astype(float)
                q = b[top : top + 11, left : left + 11, colour].astype(float)
                mp, mq = (window * p).sum(), (window * q).sum()
                vp = (window * (p - mp) ** 2).sum()
                vq = (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                found.append(
                    (2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
                )
    return float(np.mean(found))


def test_it_is_the_mean_over_windows_and_colours() -> None:
    a = pictures(3, 14, 12, 3)
    b = np.stack([255 - a[0], a[1] // 2 + 60, pictures(14, 12, 3, seed=1)])
    found = ssim(a, b)
    assert found.shape == (3,)
    assert found == pytest.approx([plain_ssim(*pair) for pair in zip(a, b, strict=True)], abs=1e-9)
    assert found[0] < -0.5 < 0.3 < found[1], "inverted, and the same with less contrast"


def test_it_knows_flat_pictures() -> None:
    """No variance: only the means are compared, (2 * 100 * 150 + c) / (100^2 + 150^2 + c)."""
    a, b = (np.full((1, 11, 16, 3), level, np.uint8) for level in (100, 150))
    assert ssim(a, b)[0] == pytest.approx((30_000 + 6.5025) / (32_500 + 6.5025), abs=1e-9)
    assert ssim(a, a)[0] == pytest.approx(1)


def test_equal_pictures_have_one_and_order_does_not_matter() -> None:
    a, b = pictures(2, 16, 16, 3), pictures(2, 16, 16, 3, seed=1)
    assert ssim(a, a) == pytest.approx([1, 1])
    assert ssim(a, b) == pytest.approx(ssim(b, a))
    before = a.copy()
    ssim(a, b)
    assert (a == before).all()


def test_torchmetrics_says_the_same() -> None:
    functional = pytest.importorskip(
        "torchmetrics.functional.image", reason="a second opinion, extra `dev`"
    )
    import torch

    a, b = pictures(4, 32, 24, 3), pictures(4, 32, 24, 3, seed=1) // 2 + 40
    b[2] = a[2] // 3 * 3
    planes = [torch.from_numpy(p.astype(np.float64)).permute(0, 3, 1, 2) for p in (a, b)]
    _, everywhere = functional.structural_similarity_index_measure(
        *planes, data_range=255.0, reduction="none", return_full_image=True
    )  # b c y x, with mirrored pixels where a window reaches over the border; the source has none
    wanted = everywhere[:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3))
    assert ssim(a, b) == pytest.approx(wanted.numpy(), abs=1e-6)


def test_what_is_not_a_pair_of_pictures_is_refused() -> None:
    a = pictures(1, 16, 16, 3)
    with pytest.raises(ValueError, match=r"a must be uint8 of shape \(b, y, x, c\), got float64"):
        ssim(a / 255, a)
    with pytest.raises(ValueError, match=r"b must be uint8 of shape .* of shape \(16, 16, 3\)"):
        ssim(a, a[0])
    with pytest.raises(ValueError, match=r"one shape, got \(1, 16, 16, 3\) and \(1, 16, 15, 3\)"):
        ssim(a, a[:, :, :15])
    with pytest.raises(ValueError, match="sides of at least 11 px, got 16 x 10"):
        ssim(a[:, :10], a[:, :10])
