"""Pictures to token grids and back, by way of a model's dVAE: how the model sees.

Axes: g pictures, h w grid rows and columns, y x pixel rows and columns, c channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dalle.given_picture import enough_px, read_picture, reduced
from dalle.image_prompt import CropMode, prepare
from vae import DiscreteVAE
from vae.pixels import to_image_u8, to_pixels


@dataclass(frozen=True, kw_only=True)
class SeenPicture:
    """A picture as a model sees it."""

    image: Image.Image
    """Cut or padded to the model's size, RGB."""
    tokens: np.ndarray
    """Token grid, shape (h, w), int64."""
    reconstruction: Image.Image
    """What the tokens are decoded to, of the same size."""


class ImageTokenizer:
    """A dVAE between pictures and token grids; keeps nothing between calls.

    Args:
        vae: The dVAE, in evaluation mode.
        grid: Rows and columns of the token grid.
        device: Where the dVAE lies.
    """

    def __init__(self, vae: DiscreteVAE, grid: tuple[int, int], device: torch.device) -> None:
        self.grid = grid
        """Rows and columns of the token grid."""
        self.codebook_size = vae.config.codebook_size
        """Codes that a token can be; it is one from 0 to this less 1."""
        self._vae = vae
        self._device = device

    @property
    def image_px(self) -> tuple[int, int]:
        """Height and width of the model's pictures."""
        stride = self._vae.config.stride
        return self.grid[0] * stride, self.grid[1] * stride

    def see(self, picture: Image.Image, *, crop: CropMode = "center") -> SeenPicture:
        """Any picture as the model sees it.

        Args:
            picture: A picture that Pillow holds, of any size.
            crop: How it becomes as wide and high as the model's pictures; see
                `dalle.image_prompt.prepare`.

        Raises:
            DataError: The picture is damaged, too large or too thin.
            ValueError: `crop` is unknown, or the picture's mode has no clear meaning as RGB.
        """
        cut = prepare(
            reduced(read_picture(picture), enough_px(self.image_px)),
            image_px=self.image_px,
            layout="top-half",
            crop=crop,
            rows=0,
            stride=self._vae.config.stride,
        ).whole
        tokens = self.encode(cut)
        return SeenPicture(
            image=cut, tokens=tokens.cpu().numpy(), reconstruction=self.decode(tokens[None])[0]
        )

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> Tensor:
        """Token grid (h, w) of an RGB picture of the model's size."""
        pixels = to_pixels(torch.from_numpy(np.array(image))[None])  # 1 c y x
        return self._vae.encode(pixels.to(self._device))[0]

    @torch.inference_mode()
    def decode(self, grids: Tensor | np.ndarray) -> list[Image.Image]:
        """Pictures of token grids.

        Args:
            grids: Codes from 0 to `codebook_size` - 1, shape (g, h, w), int64; h may be fewer than
                all rows.
        """
        codes = torch.as_tensor(grids, device=self._device)  # g h w
        return [Image.fromarray(image) for image in to_image_u8(self._vae.decode(codes))]
