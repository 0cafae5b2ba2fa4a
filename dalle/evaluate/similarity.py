"""How alike two pictures are in structure, which squared errors say little about.

Own code: torchmetrics 1.9 has this too, but loads 1,500 modules (pyplot and torchvision among them)
and also counts windows that reach over the border, filled with mirrored pixels.

Axes: b pictures; y x pixel rows and columns; c colours.
"""

from __future__ import annotations

import numpy as np

WINDOW_PX = 11
SIGMA_PX = 1.5
MEANS_FLOOR = (0.01 * 255) ** 2
"""Keeps the comparison of means stable where pictures are dark."""
CONTRASTS_FLOOR = (0.03 * 255) ** 2
"""Keeps the comparison of contrasts stable where pictures are flat."""


def require_room(shape: tuple[int, ...]) -> None:
    """Refuse pictures of (y, x) pixels that are smaller than the window of `ssim`.

    Raises:
        ValueError: They are.
    """
    height, width = shape
    if min(shape) < WINDOW_PX:
        raise ValueError(
            "pictures that are compared with true ones must have sides of at least "
            f"{WINDOW_PX} px, got {width} x {height}"
        )


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean structural similarity of pairs of pictures, 1 for equal ones.

    Window: Gaussian, 11 x 11 pixels, standard deviation 1.5, wholly inside the picture. Colours
    count as pictures of their own, where the source takes grey ones.

    Args:
        a: Pictures, shape (b, y, x, c), uint8, y and x at least 11.
        b: Pictures to compare them with, of the same shape.

    Returns:
        One value for each pair, shape (b), float64, -1 to 1.

    Raises:
        ValueError: The pictures are not uint8, differ in shape, or are smaller than the window.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861.
    """
    for name, pictures in (("a", a), ("b", b)):
        if pictures.dtype != np.uint8 or pictures.ndim != 4:
            raise ValueError(
                f"{name} must be uint8 of shape (b, y, x, c), "
                f"got {pictures.dtype} of shape {pictures.shape}"
            )
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, got {a.shape} and {b.shape}")
    require_room(a.shape[1:3])
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _weighted_means(x), _weighted_means(y)  # b y-10 x-10 c
    var_x = _weighted_means(x * x) - mean_x**2
    var_y = _weighted_means(y * y) - mean_y**2
    covariance = _weighted_means(x * y) - mean_x * mean_y
    means = (2 * mean_x * mean_y + MEANS_FLOOR) / (mean_x**2 + mean_y**2 + MEANS_FLOOR)
    contrasts = (2 * covariance + CONTRASTS_FLOOR) / (var_x + var_y + CONTRASTS_FLOOR)
    similarity: np.ndarray = (means * contrasts).mean(axis=(1, 2, 3))  # b
    return similarity


def _weighted_means(planes: np.ndarray) -> np.ndarray:
    """The Gaussian mean in every window that lies inside, shape (b, y - 10, x - 10, c)."""
    offsets = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weights = np.exp(-0.5 * (offsets / SIGMA_PX) ** 2)
    weights /= weights.sum()
    rows, columns = planes.shape[1] - WINDOW_PX + 1, planes.shape[2] - WINDOW_PX + 1
    # The window is a product of two one-dimensional ones.
    down = sum(weight * planes[:, i : i + rows] for i, weight in enumerate(weights))
    means: np.ndarray = sum(
        weight * down[:, :, i : i + columns] for i, weight in enumerate(weights)
    )
    return means
