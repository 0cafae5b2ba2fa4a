"""How many drawings a picture shows, and whether two stand side by side or one above the other.

Judged by analysis through synthesis: the layouts that the grammar knows are painted with the
subjects in question, so that a subject of several parts (a pair of eyes) does not pass for several
subjects, and the one whose foreground has the most similar shape is the picture's.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from dalle.data.emoji.palette import BACKGROUNDS
from dalle.data.emoji.render import Box, Painter
from dalle.data.emoji.scene import UNITS, Cell, Panel, Placed, Relation, Scene
from dalle.data.emoji.subjects import Subject
from dalle.evaluate.foreground import Ground, Patch, distances, foreground
from dalle.evaluate.subjects import colours_and_edges

# The grammar's places for drawings of this side, in its units; a test compares them.
SIDE = 14
COUNT_PLACES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((9, 9),),
    2: ((1, 9), (17, 9)),
    3: ((9, 1), (1, 17), (17, 17)),
    4: ((1, 1), (17, 1), (1, 17), (17, 17)),
}
PAIR_PLACES: dict[Relation, tuple[tuple[int, int], tuple[int, int]]] = {
    "left of": ((1, 9), (17, 9)),
    "right of": ((17, 9), (1, 9)),
    "above": ((9, 1), (9, 17)),
    "below": ((9, 17), (9, 1)),
}

# What belongs to each drawing: left, top, right, bottom in halves of the picture.
SIDE_BY_SIDE = ((0, 0, 1, 2), (1, 0, 2, 2))
STACKED = ((0, 0, 2, 1), (0, 1, 2, 2))
COUNT_AREAS: dict[int, tuple[tuple[int, int, int, int], ...]] = {
    1: ((0, 0, 2, 2),),
    2: SIDE_BY_SIDE,
    3: ((0, 0, 2, 1), (0, 1, 1, 2), (1, 1, 2, 2)),
    4: ((0, 0, 1, 1), (1, 0, 2, 1), (0, 1, 1, 2), (1, 1, 2, 2)),
}

_MASK_GROUND = Ground(name="black", rgb=(0, 0, 0))


class Layouts:
    """Shapes of painted layouts, kept for the next picture."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter
        self._painted = lru_cache(maxsize=512)(self._paint_all)

    def count_seen(self, patch: Patch, subject: Subject) -> int:
        """How many of `subject` the picture shows, 1 to 4; 0 where it shows nothing."""
        layouts = tuple(((subject,) * count, COUNT_PLACES[count]) for count in COUNT_PLACES)
        shape = _shape(patch)
        if shape.box is None:
            return 0
        return 1 + int(distances(shape.views, self._painted(layouts, patch.ground.name)).argmin())

    def is_side_by_side(self, patch: Patch, pair: tuple[Subject, Subject]) -> bool:
        """Whether the two, in either order, stand side by side and not one above the other."""
        layouts = tuple((pair, places) for places in PAIR_PLACES.values())
        far = distances(_shape(patch).views, self._painted(layouts, patch.ground.name))
        return list(PAIR_PLACES)[far.argmin()] in ("left of", "right of")

    def _paint_all(
        self,
        layouts: tuple[tuple[tuple[Subject, ...], tuple[tuple[int, int], ...]], ...],
        ground: str,
    ) -> np.ndarray:
        """Features of the shape of each layout, shape (n, d)."""
        shapes = []
        for subjects, places in layouts:
            placed = tuple(
                Placed(subject=subject, cell=Cell(left, top, SIDE))
                for subject, (left, top) in zip(subjects, places, strict=True)
            )
            scene = Scene(kind="plain", placed=placed, background=ground)
            known = Ground(name=ground, rgb=BACKGROUNDS[ground])
            patch = Patch(image=self._painter.paint(scene).image, ground=known, step=1)
            shapes.append(_shape(patch).frame())
        return colours_and_edges(np.concatenate(shapes))


def cut(image: Image.Image, halves: tuple[int, int, int, int]) -> Image.Image:
    """The part of a picture that belongs to one drawing."""
    width, height = image.width // 2, image.height // 2
    left, top, right, bottom = halves
    area: Box = (left * width, top * height, right * width, bottom * height)
    return image.crop(area)


def panel(image: Image.Image, which: Panel) -> Image.Image:
    """One half of a two-panel picture, without the seam, where a soft picture mixes the two."""
    width, height = image.size
    seam = round(height / UNITS)
    if which == "top":
        return image.crop((0, 0, width, height // 2 - seam))
    return image.crop((0, height // 2 + seam, width, height))


def _shape(patch: Patch) -> Patch:
    """What stands out in a patch, white on black."""
    mask = Image.fromarray(foreground(patch.image, patch.ground.rgb)).convert("RGB")
    return Patch(image=mask, ground=_MASK_GROUND, step=patch.step)
