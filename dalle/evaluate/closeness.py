"""How near a drawn bottom panel comes to its truth: in pixels, in edges, in tokens.

Axes: b pictures, y x pixel rows and columns, h w grid rows and columns.
"""

from __future__ import annotations

import numpy as np


def pixel_distance(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Root-mean-square difference of colours, 0 (equal) to 1 (black and white), shape (b).

    Args:
        drawn: Pictures, shape (b, y, x, 3), uint8.
        truth: What they should be, shape (y, x, 3), uint8.
    """
    difference = (drawn.astype(np.float64) - truth) / 255
    distance: np.ndarray = np.sqrt(np.square(difference).mean(axis=(1, 2, 3)))
    return distance


def edge_distance(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Root-mean-square difference of how steeply brightness changes, 0 for equal ones, shape (b).

    Outlines in the wrong place weigh twice, where they are and where they should be; flat areas of
    the wrong colour do not count.

    Args:
        drawn: Pictures, shape (b, y, x, 3), uint8.
        truth: What they should be, shape (y, x, 3), uint8.
    """
    difference = _steepness(drawn) - _steepness(truth[None])
    distance: np.ndarray = np.sqrt(np.square(difference).mean(axis=(1, 2)))
    return distance


def _steepness(images_u8: np.ndarray) -> np.ndarray:
    """Size of the brightness gradient, per pixel, shape (b, y, x)."""
    brightness = images_u8.astype(np.float64).mean(axis=3) / 255  # b y x
    down, across = np.gradient(brightness, axis=(1, 2))
    return np.asarray(np.hypot(down, across))


def token_agreement(drawn: np.ndarray, truth: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """The share of tokens that are the truth's, where the truth is not blank paper, shape (b).

    Paper is most of a picture and easily right, so it is left out. Where the truth is all paper,
    the share is 1 for pictures that are too, otherwise 0.

    Args:
        drawn: Token grids, shape (b, h, w).
        truth: Tokens of the true picture, shape (h, w).
        blank: Tokens of the same picture without drawing, shape (h, w).
    """
    inked = truth != blank  # h w
    if not inked.any():
        return np.asarray((drawn == truth).all(axis=(1, 2)), dtype=np.float64)
    agreement: np.ndarray = (drawn == truth)[:, inked].mean(axis=1)
    return agreement
