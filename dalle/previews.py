"""Pictures as far as they are drawn: each new row is decoded with the few above it.

Axes: g candidates, r image tokens so far, h w grid rows and columns.
"""

from __future__ import annotations

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from dalle.device import autocast_dtype
from dalle.image_tokenizer import ImageTokenizer

UNDRAWN = (222, 222, 222)
"""Colour of the rows that a preview does not know yet."""
REPAINTED = 1
"""Rows above the new ones that are painted again, now that what lies below them is known."""
UNPAINTED = 1
"""Rows above those that are decoded for their neighbours' sake alone."""


def undrawn(size: tuple[int, int]) -> Image.Image:
    """A picture of `size` (height, width) of which nothing is drawn yet."""
    height, width = size
    return Image.new("RGB", (width, height), UNDRAWN)


class Previews:
    """Candidates that are drawn together, row after row.

    To decode all rows again for each new one took as long as drawing them. These previews differ
    from the bundled model's whole pictures by 1.5 of 255 on average, all rows again by 0.7.

    Args:
        image_tokenizer: Decodes.
        device: Where it does. Every row waits for a preview, so it is in bf16 where that is native.
        around: What is kept around a region that is drawn, of the model's size; None shows what is
            not drawn yet in grey.
    """

    def __init__(
        self,
        image_tokenizer: ImageTokenizer,
        device: torch.device,
        *,
        around: Image.Image | None = None,
    ) -> None:
        self._image_tokenizer = image_tokenizer
        self._device = device
        self._blank = around or undrawn(image_tokenizer.image_px)
        self._painted: dict[int, tuple[Image.Image, int]] = {}
        """The candidates that were looked at, each with its rows."""

    def after(self, tokens: Tensor, which: slice = slice(None)) -> tuple[Image.Image, ...]:
        """Full-size pictures of what is drawn, the rest in grey; new ones each time.

        Args:
            tokens: Image tokens of all candidates in raster order, whole rows, shape (g, r).
                Further rows than in the call before are painted below those, fewer anew.
            which: The candidates that are looked at.
        """
        size, (grid_h, grid_w) = self._image_tokenizer.image_px, self._image_tokenizer.grid
        grids = rearrange(tokens, "g (h w) -> g h w", w=grid_w)
        rows = grids.shape[1]
        canvases = {}
        painted_from = rows
        for number in range(len(grids))[which]:
            canvas, painted = self._painted.get(number, (None, 0))
            if canvas is None or painted > rows:
                canvas, painted = self._blank.copy(), 0
            canvases[number] = canvas
            painted_from = min(painted_from, max(0, painted - REPAINTED))
        decoded_from = max(0, painted_from - UNPAINTED)
        dtype = autocast_dtype("auto", self._device)
        with torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None):
            strips = self._image_tokenizer.decode(grids[which, decoded_from:])
        row_px = size[0] // grid_h
        hidden = (painted_from - decoded_from) * row_px
        for (number, canvas), strip in zip(canvases.items(), strips, strict=True):
            seen = strip.crop((0, hidden, strip.width, strip.height))
            canvas.paste(seen, (0, painted_from * row_px))
            self._painted[number] = (canvas, rows)
        return tuple(canvas.copy() for canvas in canvases.values())
