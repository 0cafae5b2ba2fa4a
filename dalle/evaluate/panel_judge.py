"""What a bottom panel shows: the nearest of all subjects in all looks.

Retrieval among ground-truth renderings, as in `dalle.evaluate.attributes`, but of subject and look
at once: a panel is compared with every subject of the list in every look and as it is.

Axes: j frames tried of a panel, n subjects, r renderings, d feature values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dalle.data.emoji.palette import BACKGROUNDS, DEFAULT_BACKGROUND
from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import Subject
from dalle.evaluate.attributes import SAME_DRAWING
from dalle.evaluate.foreground import Ground, Patch, distances
from dalle.evaluate.layouts import panel
from dalle.evaluate.references import LOOKS_SEEN, References
from dalle.evaluate.subjects import colours_and_edges

SHORTLIST = 256
"""Renderings that a panel is compared with in all frames, the nearest in the middle one.

Less than a tenth of the work; the verdicts on 128 panels that a model drew stayed the same.
"""
_OWN_WALL = {"neon": "black"}  # painted behind it in panels; everything else stands on paper
_NOTHING = -1

Shown = tuple[str | None, int]
"""A look, and a subject's place in the list; `_NOTHING` for an empty panel."""


@dataclass(frozen=True, kw_only=True)
class PanelVerdict:
    """What of a case its bottom panel shows."""

    subject: bool
    """The nearest rendering is of the subject."""
    look: bool
    """The nearest rendering is in the look."""

    @property
    def hit(self) -> bool:
        """Whether the panel shows the subject in the look."""
        return self.subject and self.look


class PanelJudge:
    """Compares bottom panels with renderings of every subject in every look.

    Making one paints them all: about 12 s for the 328 core subjects.

    Args:
        painter: Paints them, at the size of the pictures judged.
        subjects: What may be shown.
    """

    def __init__(self, painter: Painter, subjects: Sequence[Subject]) -> None:
        self._step = painter.image_px / 64
        references = References(painter, tuple(subjects))
        numbers = [*range(len(subjects)), _NOTHING]
        self._features: dict[str | None, np.ndarray] = {
            look: references.every_subject(look, "half", DEFAULT_BACKGROUND) for look in LOOKS_SEEN
        }  # n+1 d each
        on_paper = [look for look in LOOKS_SEEN if look not in ("neon", "close-up")]
        self._shelves = {
            "paper": self._shelf(on_paper, numbers),
            "wall": self._shelf(["neon"], numbers),
            "whole": self._shelf(["close-up"], numbers),
        }

    def judge(self, image: Image.Image, *, number: int, look: str) -> PanelVerdict:
        """Whether the bottom of a two-panel picture shows a subject and a look.

        Renderings that cannot be told apart (two round silhouettes, say) count as one; a panel
        that shows nothing is wrong in both.

        Args:
            image: The whole picture, RGB.
            number: The subject's place in the judge's list.
            look: What it should look like, a member of `LOOKS_SEEN`.
        """
        seen_look, seen = self._nearest(panel(image, "bottom"))
        if seen == _NOTHING:
            return PanelVerdict(subject=False, look=False)
        exact = self._same((seen_look, seen), (look, number))
        return PanelVerdict(
            subject=exact or self._same((seen_look, seen), (seen_look, number)),
            look=exact or self._same((seen_look, seen), (look, seen)),
        )

    def _nearest(self, image: Image.Image) -> Shown:
        """The rendering that a panel is nearest to.

        Each look is compared on the wall that it is painted on, since the outline of a drawing is
        where it differs from that; a close-up has no outline to frame.
        """
        paper, wall = self._patch(image, DEFAULT_BACKGROUND), self._patch(image, _OWN_WALL["neon"])
        found = [
            self._shelves["paper"].nearest(colours_and_edges(paper.frame()), paper.views),
            self._shelves["wall"].nearest(colours_and_edges(wall.frame()), wall.views),
            self._shelves["whole"].nearest(paper.extent, paper.extent),
        ]
        return min(found, key=lambda one: one[0])[1]

    def _shelf(self, looks: Sequence[str | None], numbers: Sequence[int]) -> _Shelf:
        return _Shelf(
            features=np.concatenate([self._features[look] for look in looks]),
            shown=[(look, number) for look in looks for number in numbers],
        )

    def _patch(self, image: Image.Image, wall: str) -> Patch:
        return Patch(image=image, ground=Ground(name=wall, rgb=BACKGROUNDS[wall]), step=self._step)

    def _same(self, one: Shown, other: Shown) -> bool:
        """Whether two renderings cannot be told apart."""
        if one == other:
            return True
        a, b = (self._features[look][number] for look, number in (one, other))
        return bool(distances(a[None], b[None])[0] < SAME_DRAWING)


class _Shelf:
    """Renderings that panels are framed alike for.

    Args:
        features: Shape (r, d).
        shown: What each one is.
    """

    def __init__(self, *, features: np.ndarray, shown: Sequence[Shown]) -> None:
        self._features = features
        self._squares = np.square(features).sum(axis=1)  # r
        self._shown = shown

    def nearest(self, middle: np.ndarray, views: np.ndarray) -> tuple[float, Shown]:
        """The distance of the nearest rendering, and what it is.

        Args:
            middle: Features of the panel in its middle frame, shape (1, d).
            views: Features in all frames, shape (j, d).
        """
        rough = self._squares - 2 * (self._features @ middle[0])  # r, but for a constant
        count = min(SHORTLIST, len(rough))
        rows = np.sort(np.argpartition(rough, count - 1)[:count])
        far = distances(views, self._features[rows])
        best = int(far.argmin())
        return float(far[best]), self._shown[rows[best]]
