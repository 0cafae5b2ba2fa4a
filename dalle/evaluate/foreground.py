"""Finding a drawing in a picture: the background's colour, what stands out from it, and where.

Axes: j frames tried, n references, d feature values; y x pixel rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from PIL import Image, ImageFilter

from dalle.data.emoji.palette import BACKGROUNDS, Rgb
from dalle.data.emoji.render import Box
from dalle.evaluate.subjects import colours_and_edges

CONTRAST = 24
"""Step from the background, in any channel (0 to 255), from which a pixel is foreground."""
FRAME_PX = 16
"""Side that frames are scaled to."""
FRAME = 1.15
"""A frame's side in longer sides of its drawing: a little background tells the shape."""
_RING = 1 / 32  # width of the border where the background is looked for, of the picture's side
# Sharpness must not decide: models draw softly, and a soft drawing of white on white has more of
# pixel art, or of a paler paint, than of itself.
_SOFTENER = ImageFilter.Kernel((3, 3), (1, 2, 1, 2, 4, 2, 1, 2, 1))
# A box may be off by as much: shifts across and down, and change of side, in steps of a patch.
_JITTER = tuple(product((-1, 0, 1), (-1, 0, 1), (-2, 0, 2)))


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A picture's background."""

    name: str
    """The palette's colour that it is nearest to."""
    rgb: Rgb
    """The colour that it has."""


def ground_of(image: Image.Image) -> Ground:
    """The background colour that most of the border of `image`, RGB, is nearest to."""
    pixels = np.asarray(image, dtype=np.float32)  # y x 3
    width = max(1, round(max(image.size) * _RING))
    border = np.ones(pixels.shape[:2], dtype=bool)
    border[width:-width, width:-width] = False
    ring = pixels[border]
    palette = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
    # The pixel's own square does not change which colour is nearest, so it is left out.
    nearest = (np.square(palette).sum(axis=1) - 2 * ring @ palette.T).argmin(axis=1)
    winner = np.bincount(nearest, minlength=len(palette)).argmax()
    red, green, blue = np.median(ring[nearest == winner], axis=0).round().astype(int).tolist()
    return Ground(name=list(BACKGROUNDS)[winner], rgb=(red, green, blue))


def foreground(image: Image.Image, ground: Rgb) -> np.ndarray:
    """Where `image`, RGB, differs from its background colour, shape (y, x), bool."""
    difference = np.abs(np.asarray(image, dtype=np.int16) - np.array(ground, dtype=np.int16))
    red, green, blue = np.moveaxis(difference, 2, 0)  # nine times as fast as a maximum over them
    return np.asarray(np.maximum(np.maximum(red, green), blue) >= CONTRAST)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A part of a picture that holds one drawing, or several that are looked at as one."""

    image: Image.Image
    ground: Ground
    step: float
    """What counts as a small shift, in pixels."""

    @cached_property
    def box(self) -> Box | None:
        """The tightest box about what differs from the background; None where nothing does."""
        mask = foreground(self.image, self.ground.rgb)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            return None
        return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)

    @property
    def side(self) -> int:
        """Longer side of what is drawn, in pixels; 0 where nothing is."""
        if self.box is None:
            return 0
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @cached_property
    def views(self) -> np.ndarray:
        """Features of the drawing, framed in slightly different ways, shape (j, d)."""
        return colours_and_edges(self._framed(_JITTER))

    @cached_property
    def extent(self) -> np.ndarray:
        """Features of the whole patch, shape (1, d)."""
        return colours_and_edges(self.all_of_it())

    def frame(self) -> np.ndarray:
        """The drawing at one size, whatever its own, shape (1, FRAME_PX, FRAME_PX, 3), uint8.

        Where nothing is drawn, background alone.
        """
        return self._framed(((0, 0, 0),))

    def all_of_it(self) -> np.ndarray:
        """The whole patch at that size, shape (1, FRAME_PX, FRAME_PX, 3), uint8."""
        width, height = self.image.size
        return _scaled(self.image, (0, 0, width, height))[None]

    def _framed(self, jitter: tuple[tuple[int, int, int], ...]) -> np.ndarray:
        left, top, right, bottom = self.box or (0, 0, 1, 1)
        width, height = self.image.size
        margin = max(width, height)  # frames reach beyond the picture
        size = (width + 2 * margin, height + 2 * margin)
        canvas = Image.new("RGB", size, self.ground.rgb)
        if self.box is not None:
            canvas.paste(self.image, (margin, margin))
        frames = []
        for shift_x, shift_y, growth in jitter:
            half = max(self.side * FRAME + growth * self.step, 2) / 2
            x = margin + (left + right) / 2 + shift_x * self.step
            y = margin + (top + bottom) / 2 + shift_y * self.step
            frames.append(_scaled(canvas, (x - half, y - half, x + half, y + half)))
        return np.stack(frames)


def _scaled(image: Image.Image, area: tuple[float, float, float, float]) -> np.ndarray:
    part = image.resize((FRAME_PX, FRAME_PX), Image.Resampling.BOX, box=area)
    return np.asarray(part.filter(_SOFTENER))


def distances(views: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Root-mean-square distance of each reference from the view nearest to it, shape (n,).

    Args:
        views: Features of one drawing, shape (j, d).
        references: Features of others, shape (n, d).
    """
    squares = (
        np.einsum("jd,jd->j", views, views)[:, None]
        + np.einsum("nd,nd->n", references, references)  # without a copy, as np.square makes
        - 2 * views @ references.T
    )  # j n
    # Rounding can take the square of nearly nothing below zero.
    return np.asarray(np.sqrt(np.maximum(squares.min(axis=0), 0) / views.shape[1]))
