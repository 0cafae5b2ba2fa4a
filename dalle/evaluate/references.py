"""What subjects look like when the project paints them, as features that judges compare with.

Axes: n subjects, k looks, d feature values.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from dalle.data.emoji.looks import LOOKS
from dalle.data.emoji.palette import BACKGROUNDS
from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import UNITS, Cell, Placed, Scene
from dalle.data.emoji.subjects import Subject
from dalle.evaluate.foreground import Ground, Patch
from dalle.evaluate.layouts import panel
from dalle.evaluate.subjects import colours_and_edges, room

Stage = Literal["whole", "half"]
"""A picture of its own, or one of the smaller drawings of pairs, counts and panels."""

LOOKS_SEEN: tuple[str | None, ...] = (None, *LOOKS)
"""The plain drawing, and every look."""

_CELL: dict[Stage, Cell] = {"whole": Cell(4, 4, 24), "half": Cell(9, 17, 14)}
# As the grammar has them: a stamp fills the picture, a hat needs room above.
_LOOK_CELL = {"postage stamp": Cell(2, 2, 28), "hat": Cell(6, 8, 20)}
_OWN_GROUND = {"neon": "black", "close-up": "white"}
# Of the core subjects, painted frames of every look on every background in both stages, and
# features, which take seven times the room, of the 60 combinations used last.
_KEPT_BYTES = {"frames": 192 * 2**20, "subjects": 160 * 2**20, "looks": 64 * 2**20}


class References:
    """Features of painted subjects, kept for the next picture.

    `every_subject(look, stage, ground)` and `every_look(number, stage, ground)` give them.

    Args:
        painter: Paints them, at the size of the pictures judged.
        subjects: What may be shown.
    """

    def __init__(self, painter: Painter, subjects: tuple[Subject, ...]) -> None:
        self._painter = painter
        self._subjects = subjects
        nothing = self._nothing("white")
        row = colours_and_edges(nothing).nbytes
        count, looks = len(subjects), len(LOOKS_SEEN)
        self._frames = lru_cache(room(_KEPT_BYTES["frames"], nothing.nbytes * count))(
            self._paint_all
        )
        self.every_subject = lru_cache(room(_KEPT_BYTES["subjects"], row * count))(
            self._every_subject
        )
        self.every_look = lru_cache(room(_KEPT_BYTES["looks"], row * looks))(self._every_look)

    def shown_side(self, number: int, stage: Stage, ground: str) -> float:
        """How much of its cell's side a plain drawing spans where it differs from the background.

        Less than 1 for, say, a white drawing with a dark middle on white.
        """
        cell_px = _CELL[stage].side * self._painter.image_px / UNITS
        return self._patch(number, None, stage, ground).side / cell_px

    def _every_subject(self, look: str | None, stage: Stage, ground: str) -> np.ndarray:
        """Features of every subject in one look, and last of nothing at all, shape (n + 1, d)."""
        return colours_and_edges(self._frames(look, stage, ground))

    def _paint_all(self, look: str | None, stage: Stage, ground: str) -> np.ndarray:
        """Frames of the same, shape (n + 1, y, x, 3), uint8."""
        numbers = range(len(self._subjects))
        frames = [self._frame(number, look, stage, ground) for number in numbers]
        return np.concatenate([*frames, self._nothing(_wall(look, ground))])

    def _every_look(self, number: int, stage: Stage, ground: str) -> np.ndarray:
        """Features of one subject in all of `LOOKS_SEEN`, shape (k, d)."""
        frames = [self._frame(number, look, stage, ground) for look in LOOKS_SEEN]
        return colours_and_edges(np.concatenate(frames))

    def _frame(self, number: int, look: str | None, stage: Stage, ground: str) -> np.ndarray:
        patch = self._patch(number, look, stage, ground)
        return patch.all_of_it() if look == "close-up" else patch.frame()

    def _patch(self, number: int, look: str | None, stage: Stage, ground: str) -> Patch:
        wall = _wall(look, ground)
        cell = _CELL[stage] if stage == "half" else _LOOK_CELL.get(look or "", _CELL[stage])
        placed = Placed(
            subject=self._subjects[number],
            cell=cell,
            look=look,
            panel="bottom" if stage == "half" else None,
        )
        image = self._painter.paint(Scene(kind="plain", placed=(placed,), background=wall)).image
        if stage == "half":
            image = panel(image, "bottom")
        return Patch(image=image, ground=Ground(name=wall, rgb=BACKGROUNDS[wall]), step=1)

    @staticmethod
    def _nothing(ground: str) -> np.ndarray:
        rgb = BACKGROUNDS[ground]
        blank = Image.new("RGB", (2, 2), rgb)
        return Patch(image=blank, ground=Ground(name=ground, rgb=rgb), step=1).frame()


def _wall(look: str | None, ground: str) -> str:
    """The background behind a look: some bring their own."""
    return _OWN_GROUND.get(look or "", ground)
