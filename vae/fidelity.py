"""What a dVAE keeps of pictures, gathered batch after batch.

Axes: b batch, y x pixel rows and columns, h w grid rows and columns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vae.model import DiscreteVAE
from vae.pixels import to_image_u8, to_pixels
from vae.quantize import CodebookHealth, codebook_health

LEAST_ERROR = 1e-10
"""Mean square error, of values 0 to 1, that counts for a perfect copy: 100 dB."""


class Fidelity:
    """Signal-to-noise ratio and codebook health of reconstructions from hard codes.

    Args:
        codebook_size: Codes that tokens are chosen from.
    """

    def __init__(self, codebook_size: int) -> None:
        self._levels: list[float] = []
        self._counts = torch.zeros(codebook_size, dtype=torch.int64)

    def add(self, image_u8: np.ndarray, rebuilt_u8: np.ndarray, tokens: Tensor) -> None:
        """Count some pictures in.

        Args:
            image_u8: Originals, shape (b, y, x, 3), uint8.
            rebuilt_u8: Their reconstructions, of the same shape.
            tokens: What those were made from, shape (b, h, w), int64.
        """
        error = (rebuilt_u8.astype(np.float64) - image_u8) / 255
        squared = np.square(error).mean(axis=(1, 2, 3))  # b
        self._levels += (-10 * np.log10(np.maximum(squared, LEAST_ERROR))).tolist()
        self._counts += torch.bincount(tokens.flatten().cpu(), minlength=len(self._counts))

    @property
    def pictures(self) -> int:
        """How many were counted in."""
        return len(self._levels)

    @property
    def psnr_db(self) -> float:
        """Mean over pictures of each one's peak signal-to-noise ratio, from 8-bit levels."""
        return float(np.mean(self._levels))

    @property
    def codebook(self) -> CodebookHealth:
        """How much of the codebook these pictures use.

        Raises:
            ValueError: None were counted in.
        """
        return codebook_health(self._counts)


@torch.inference_mode()
def rebuild(vae: DiscreteVAE, image_u8: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """Pictures turned into hard codes and back.

    Args:
        vae: Computes where its weights are.
        image_u8: Shape (b, y, x, 3), uint8.

    Returns:
        The reconstructions, of the same shape and type, and their tokens, shape (b, h, w), int64.

    Raises:
        ValueError: The stride does not divide the pictures.
    """
    tokens = vae.encode(to_pixels(torch.from_numpy(image_u8).to(next(vae.parameters()).device)))
    return to_image_u8(vae.decode(tokens)), tokens
