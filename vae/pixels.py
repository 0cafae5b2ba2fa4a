"""The only place where 8-bit images and model pixels are converted into each other.

Axes: b batch, c colour channels (3), y x pixel rows and columns.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

# The paper squeezes [0, 1] to [0.1, 0.9] (appendix A.3, epsilon = 0.1), so that the logit of a
# fully black or white pixel stays finite.
SQUEEZE = 0.1


def to_pixels(image_u8: Tensor) -> Tensor:
    """Model pixels of 8-bit images.

    Args:
        image_u8: RGB images, 0...255, shape (b, y, x, 3), uint8.

    Returns:
        float32 pixels, -1...1, shape (b, 3, y, x).

    Raises:
        TypeError: `image_u8` is not uint8.
        ValueError: `image_u8` does not have three channels last.
    """
    if image_u8.dtype != torch.uint8:
        raise TypeError(f"image_u8 must be uint8, got {image_u8.dtype}")
    if image_u8.ndim != 4 or image_u8.shape[-1] != 3:
        raise ValueError(f"image_u8 must have shape (b, y, x, 3), got {tuple(image_u8.shape)}")
    channels_first = rearrange(image_u8, "b y x c -> b c y x")
    return channels_first.float() / 127.5 - 1.0


def to_image_u8(pixels: Tensor) -> np.ndarray:
    """8-bit images of model pixels, rounded to the nearest level and clipped.

    Args:
        pixels: Shape (b, 3, y, x), -1...1; values beyond are clipped.

    Returns:
        uint8 array, 0...255, shape (b, y, x, 3).
    """
    levels = ((pixels.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    image: np.ndarray = rearrange(levels, "b c y x -> b y x c").cpu().numpy()
    return image


def squeeze(pixels: Tensor) -> Tensor:
    """Pixels -1...1 mapped to 0.1...0.9, where the logit-Laplace likelihood lives."""
    return (0.5 - SQUEEZE) * pixels + 0.5


def unsqueeze(squeezed: Tensor) -> Tensor:
    """Inverse of `squeeze`, limited to -1...1."""
    return ((squeezed - 0.5) / (0.5 - SQUEEZE)).clamp(-1.0, 1.0)
