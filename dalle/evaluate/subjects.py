"""Which subject a picture shows, judged by ground-truth renderings and nothing learned.

A subject counts as retrieved when, among the renderings of every subject in the same place, look
and background, none is nearer to the picture than its own. Nearness is the distance of simple
features: colours, and where brightness changes. Subjects whose renderings cannot be told apart
(two round silhouettes, say) count as one.

Axes: n subjects, j parts of pictures, d feature values; y x pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from einops import rearrange
from PIL import Image

from dalle.data.emoji.font import find_font
from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import UNITS, Cell, Placed, Scene
from dalle.data.emoji.subjects import list_subjects
from dalle.errors import DataError

FEATURE_PX = 24
"""Side that the looked-at area is scaled to: finer detail says little about the subject."""
EDGE_WEIGHT = 2.0
"""Edges cover fewer pixels than colours, so they count more."""
SAME_RENDERING = 0.02
"""Root-mean-square feature distance under which two renderings count as one subject."""

KEPT_BYTES = 512 * 2**20
"""Renderings that a judge keeps for later scenes, at most: of all emoji, one place takes 42 MiB."""


class SubjectJudge:
    """Compares areas of pictures with renderings of every subject."""

    def __init__(
        self, *, image_px: int, which: Literal["core", "all"], font: Path | None = None
    ) -> None:
        """Prepare to judge scenes made with these settings.

        Raises:
            FontError: No usable emoji font was found.
        """
        found = find_font(font)
        self.image_px = image_px
        self.subjects = list_subjects(found, which)
        self._painter = Painter(found, image_px)
        self._number = {subject.glyph: number for number, subject in enumerate(self.subjects)}
        row = colours_and_edges(np.zeros((1, FEATURE_PX, FEATURE_PX, 3), np.uint8)).nbytes
        self._renderings = lru_cache(room(KEPT_BYTES, row * len(self.subjects)))(self._render_all)

    def retrieved(self, image: Image.Image, truth: Mapping[str, Any]) -> list[bool]:
        """For each subject of a scene, whether `image` shows it where the scene has it.

        Args:
            image: What is judged, RGB, `image_px` a side.
            truth: The scene's ground truth, as `.json` members hold it.

        Raises:
            DataError: The truth names a subject that these settings do not draw.
        """
        return [self._is_retrieved(image, truth, entry) for entry in truth["subjects"]]

    def _is_retrieved(
        self, image: Image.Image, truth: Mapping[str, Any], entry: Mapping[str, Any]
    ) -> bool:
        number = self._number.get(entry["glyph"])
        if number is None:
            raise DataError(
                f"the font and subject list draw no {entry['name']!r}; judge scenes with the "
                "font and list they were rendered with"
            )
        place = Placed(
            subject=self.subjects[number],
            cell=Cell(*entry["cell"]),
            look=entry["look"],
            panel=entry["panel"],
        )
        features = self._renderings(
            place.cell, place.look, place.panel, truth["background"]["name"]
        )
        seen = area_features(image, self._area(place))
        distances = np.sqrt(np.square(features - seen).mean(axis=1))  # n
        twins = np.sqrt(np.square(features - features[number]).mean(axis=1)) < SAME_RENDERING
        return bool(twins[distances.argmin()])

    def _render_all(
        self, cell: Cell, look: str | None, panel: Literal["top", "bottom"] | None, background: str
    ) -> np.ndarray:
        """Features of every subject in one place, look and background, shape (n, d)."""
        return np.stack(
            [
                self._render(Placed(subject=subject, cell=cell, look=look, panel=panel), background)
                for subject in self.subjects
            ]
        )

    def _render(self, placed: Placed, background: str) -> np.ndarray:
        scene = Scene(kind="plain", placed=(placed,), background=background)
        return area_features(self._painter.paint(scene).image, self._area(placed))

    def _area(self, placed: Placed) -> tuple[int, int, int, int]:
        """The pixels that tell which subject was placed: its cell, or all that its look covers."""
        px = self.image_px
        if placed.look in ("close-up", "postage stamp", "neon", "hat"):
            top = px // 2 if placed.panel == "bottom" else 0
            return (0, top, px, px // 2 if placed.panel == "top" else px)
        unit = px / UNITS
        cell = placed.cell
        return (
            round(cell.left * unit),
            round(cell.top * unit),
            round((cell.left + cell.side) * unit),
            round((cell.top + cell.side) * unit),
        )


def room(kept_bytes: int, nbytes: int) -> int:
    """How many results of `nbytes` each are kept within `kept_bytes`; two at least."""
    return max(2, kept_bytes // nbytes)


def area_features(image: Image.Image, area: tuple[int, int, int, int]) -> np.ndarray:
    """Colours and edges of a part of a picture, scaled to one size, shape (d), float32.

    Args:
        image: RGB.
        area: Left, top, right, bottom in pixels.
    """
    part = image.crop(area).resize((FEATURE_PX, FEATURE_PX), Image.Resampling.BOX)
    features: np.ndarray = colours_and_edges(np.asarray(part)[None])[0]
    return features


def colours_and_edges(parts: np.ndarray) -> np.ndarray:
    """Features of parts of pictures, shape (j, d), float32.

    Args:
        parts: Brought to one size, RGB, shape (j, y, x, 3), uint8.
    """
    colours = parts.astype(np.float32) / 255  # j y x 3
    luma: np.ndarray = (colours[..., 0] + colours[..., 1] + colours[..., 2]) / 3  # j y x
    edges = np.stack(np.gradient(luma, axis=(1, 2)), axis=-1) * EDGE_WEIGHT  # j y x 2
    return rearrange(np.concatenate([colours, edges], axis=-1), "j y x c -> j (y x c)")
