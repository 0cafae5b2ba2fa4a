"""Pictures that a model drew, found by the caption that they were drawn for."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dalle.data.tokens import TokenFolder
from dalle.errors import DataError
from dalle.labels import size_text
from dalle.prompts import normalise


class DrawnPictures:
    """Token grids of a folder that `dalle data drawn` wrote."""

    def __init__(self, folder: Path, *, image_px: tuple[int, int]) -> None:
        """Open `folder`, whose pictures must have height and width `image_px`.

        Raises:
            DataError: It is missing or damaged, or its pictures have another size.
            ModelFormatError: The dVAE beside the tokens cannot be read.
        """
        self.tokens = TokenFolder(folder)
        self.vae = self.tokens.vae()
        meta, stride = self.tokens.meta, self.vae.config.stride
        size = (meta.grid_h * stride, meta.grid_w * stride)
        if size != image_px:
            raise DataError(
                f"the pictures of {folder} are {size_text(size)}, and those of data.train are "
                f"read as {size_text(image_px)}; set data.image_px (and data.width_px) to the "
                "size that the model draws"
            )
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for place, caption in enumerate(self.tokens.captions()):
            self._places[caption].append(place)

    @property
    def fingerprint(self) -> str:
        """A hash that changes with the pictures."""
        return self.tokens.fingerprint

    def for_caption(self, caption: str, rng: np.random.Generator) -> Tensor | None:
        """One of the grids drawn for a caption, shape (h, w), int64; None if there is none.

        Raises:
            DataError: The tokens are damaged there.
        """
        places = self._places.get(normalise(caption))
        if not places:
            return None
        place = places[int(rng.integers(len(places)))]
        return torch.from_numpy(self.tokens.grid(place, int(rng.integers(self.tokens.meta.crops))))
