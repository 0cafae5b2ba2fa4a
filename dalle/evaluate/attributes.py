"""Whether a drawn picture shows what its caption says, attribute by attribute.

A caption fixes neither where nor how large its subject is, so a picture is judged by what it shows
and not by where: the drawing is found by its background's colour, brought to one size, and compared
with the project's own renderings. Nothing is learned, so no model can have been trained to please
this judge, and each attribute is decided apart: a fox in the wrong colour is a fox.

Axes: n subjects, k looks, d feature values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dalle.data.emoji.font import find_font
from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import UNITS
from dalle.data.emoji.subjects import list_subjects
from dalle.errors import DataError
from dalle.evaluate.foreground import Patch, distances, ground_of
from dalle.evaluate.layouts import COUNT_AREAS, SIDE_BY_SIDE, STACKED, Layouts, cut, panel
from dalle.evaluate.references import LOOKS_SEEN, References, Stage

SAME_DRAWING = 0.015
"""Root-mean-square feature distance under which two renderings count as one.

Sketches of a red and of a blue heart are 0.013 apart, a snowflake and itself upside-down 0.014; no
two of the plain core subjects are nearer than 0.03.
"""

Attribute = Literal["subject", "background", "count", "size", "relation", "look", "panels"]
"""What a caption can speak of."""

_HIDES_BACKGROUND = frozenset({"close-up", "neon"})
_HALF_UPTO = 18  # units; between the drawings of pairs (14) and those that have a picture alone
# Units between the grammar's small side (14) and normal ones (20, 24), and the large one (30).
_SMALL_BELOW, _LARGE_FROM = 17, 27


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What of its caption a picture shows."""

    attributes: Mapping[Attribute, bool]
    """Whether it shows each attribute that the caption speaks of."""

    @property
    def hit(self) -> bool:
        """Whether it shows all of them."""
        return all(self.attributes.values())


class AttributeJudge:
    """Compares pictures with what their captions say, by ground-truth renderings.

    Args:
        image_px: Height and width of the pictures.
        which: The subjects that a picture may show.
        font: Font that ground truth is drawn with; None looks where systems keep one.

    Raises:
        FontError: No usable emoji font was found.
    """

    def __init__(
        self, *, image_px: int, which: Literal["core", "all"], font: Path | None = None
    ) -> None:
        found = find_font(font)
        self.image_px = image_px
        self.subjects = list_subjects(found, which)
        self._number = {subject.glyph: number for number, subject in enumerate(self.subjects)}
        painter = Painter(found, image_px)
        self._references = References(painter, self.subjects)
        self._layouts = Layouts(painter)

    def judge(self, image: Image.Image, truth: Mapping[str, Any]) -> Verdict:
        """What of its caption a picture shows.

        - subject: what is drawn is nearest to the subject, of all subjects in the look seen; of
          several copies more than half, of a pair both in either order, of panels both.
        - background: the border is nearest to the colour named, or to white where none is. Left
          out where the look hides it (a close-up) or brings its own (neon).
        - count, relation: the number of drawings; on which side of the second the first is.
        - size: small or large by the longer side of what is drawn.
        - look: of all looks of the subject, the nearest (in panels: to what the bottom shows).
        - panels: the top shows something as it is, and the bottom shows something.

        What cannot be told apart (two round silhouettes, a snowflake and it upside-down) counts as
        one. A picture that shows nothing, or no drawing at all, is wrong and no error. Where a
        two-panel caption names no subject, it is whatever the top panel shows.

        Args:
            image: RGB, `image_px` a side.
            truth: What the caption says, as `.json` members of emoji scenes hold it; boxes and
                cells are not looked at.

        Raises:
            DataError: The truth names a subject that these settings do not draw.
            ValueError: The picture has another size.
        """
        px = self.image_px
        if image.size != (px, px):
            width, height = image.size
            raise ValueError(
                f"image must be {px} x {px} pixels, which its judge was made for, "
                f"got {width} x {height}; resize it or make another judge"
            )
        image = image.convert("RGB")
        numbers = [self._numbered(entry) for entry in truth["subjects"]]
        match truth["scene"]:
            case "count":
                found = self._judge_count(self._patch(image), truth, numbers[0])
            case "pair":
                found = self._judge_pair(self._patch(image), truth, numbers[0], numbers[1])
            case "panels":
                found = self._judge_panels(image, truth, numbers[0])
            case _:
                found = self._judge_single(self._patch(image), truth, numbers[0])
        return Verdict(attributes=found)

    def _numbered(self, entry: Mapping[str, Any]) -> int:
        number = self._number.get(entry["glyph"])
        if number is None:
            raise DataError(
                f"the font and subject list draw no {entry['name']!r}; judge scenes with the "
                "font and list they were rendered with"
            )
        return number

    def _judge_single(
        self, patch: Patch, truth: Mapping[str, Any], number: int
    ) -> dict[Attribute, bool]:
        look: str | None = truth["look"]
        found: dict[Attribute, bool] = {}
        if look not in _HIDES_BACKGROUND:
            found["background"] = patch.ground.name == truth["background"]["name"]
        if look is None:  # the caption asks for the drawing as it is
            found["subject"] = self._shows(patch, number, None)
        else:
            found["subject"], found["look"] = self._subject_and_look(patch, number, look)
        if truth["size"] is not None:
            found["size"] = self._size_seen(patch, number) == truth["size"]
        return found

    def _judge_count(
        self, patch: Patch, truth: Mapping[str, Any], number: int
    ) -> dict[Attribute, bool]:
        count = self._layouts.count_seen(patch, self.subjects[number])
        areas = COUNT_AREAS.get(count, ())
        copies = [self._shows(self._part(patch, area), number, None) for area in areas]
        return {
            "background": patch.ground.name == truth["background"]["name"],
            "subject": sum(copies) > len(copies) / 2,
            "count": count == truth["count"],
        }

    def _judge_pair(
        self, patch: Patch, truth: Mapping[str, Any], first: int, second: int
    ) -> dict[Attribute, bool]:
        found: dict[Attribute, bool] = {
            "background": patch.ground.name == truth["background"]["name"],
            "subject": False,
            "relation": False,
        }
        pair = (self.subjects[first], self.subjects[second])
        beside = self._layouts.is_side_by_side(patch, pair)
        parts = [self._part(patch, area) for area in (SIDE_BY_SIDE if beside else STACKED)]
        if any(part.box is None for part in parts):
            return found
        references = self._references.every_subject(None, "half", patch.ground.name)
        far = np.stack([distances(part.views, references) for part in parts])  # 2 n+1
        nearest = far.argmin(axis=1)
        like_first, like_second = _twins(references, first), _twins(references, second)
        found["subject"] = bool(
            (like_first[nearest[0]] and like_second[nearest[1]])
            or (like_second[nearest[0]] and like_first[nearest[1]])
        )
        relation = truth["relation"]
        # The first subject belongs in the first part (left or top), or in the other one.
        here, there = (0, 1) if relation in ("left of", "above") else (1, 0)
        ordered = far[here, first] + far[there, second] <= far[there, first] + far[here, second]
        along = beside == (relation in ("left of", "right of"))
        found["relation"] = bool(along and (ordered or like_first[second]))
        return found

    def _judge_panels(
        self, image: Image.Image, truth: Mapping[str, Any], number: int
    ) -> dict[Attribute, bool]:
        top, bottom = self._patch(panel(image, "top")), self._patch(panel(image, "bottom"))
        if names_no_subject(truth) and top.box is not None:
            number = self._nearest(top, (None,))
        top_subject, top_plain = self._subject_and_look(top, number, None)
        bottom_subject, bottom_look = self._subject_and_look(bottom, number, truth["look"])
        return {
            "background": top.ground.name == truth["background"]["name"],
            "subject": top_subject and bottom_subject,
            "look": bottom_look,
            "panels": top_plain and bottom.box is not None,
        }

    def _patch(self, image: Image.Image) -> Patch:
        return Patch(image=image, ground=ground_of(image), step=self.image_px / 64)

    def _part(self, patch: Patch, area: tuple[int, int, int, int]) -> Patch:
        """A part of a picture, with the picture's background."""
        return Patch(image=cut(patch.image, area), ground=patch.ground, step=patch.step)

    def _stage(self, patch: Patch) -> Stage:
        """With which renderings a patch is compared: sketched lines do not grow with the size."""
        is_panel = patch.image.width != patch.image.height
        small = patch.side * UNITS <= _HALF_UPTO * self.image_px
        return "half" if is_panel or small else "whole"

    def _subject_and_look(self, patch: Patch, number: int, look: str | None) -> tuple[bool, bool]:
        """Whether a patch shows a subject, in whatever look; and a look, of whatever subject."""
        if patch.box is None:
            return False, False
        seen = self._look_seen(patch, number, expected=look)
        shows = self._shows(patch, number, seen)
        if seen != look and not shows:
            # Another subject must not be taken for a strange look of this one. It is looked for as
            # it is, in the look asked for, and in the one seen; all looks would be six times the
            # renderings and find no other.
            looks = tuple(dict.fromkeys((None, look, seen)))
            seen = self._look_seen(patch, self._nearest(patch, looks), expected=look)
        return shows, seen == look

    def _look_seen(self, patch: Patch, number: int, *, expected: str | None) -> str | None:
        """The nearest look of a subject; `expected` where the two cannot be told apart."""
        references = self._references.every_look(number, self._stage(patch), patch.ground.name)
        far = distances(patch.views, references)
        close_up = LOOKS_SEEN.index("close-up")  # it has no outline to frame
        far[close_up] = distances(patch.extent, references[[close_up]])[0]
        nearest = far.argmin()
        same = _twins(references, LOOKS_SEEN.index(expected))
        return expected if same[nearest] else LOOKS_SEEN[nearest]

    def _shows(self, patch: Patch, number: int, look: str | None) -> bool:
        """Whether a patch shows a subject rather than another, or nothing, in the same look."""
        if patch.box is None:
            return False
        references, far = self._compared(patch, look)
        return bool(_twins(references, number)[far.argmin()])

    def _nearest(self, patch: Patch, looks: tuple[str | None, ...]) -> int:
        """The number of the subject that a patch most likely shows, in any of some looks."""
        far = np.stack([self._compared(patch, look)[1][:-1] for look in looks])  # k n
        return int(far.min(axis=0).argmin())

    def _compared(self, patch: Patch, look: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Every subject in a look, (n + 1, d), and how far the patch is from each, (n + 1,)."""
        references = self._references.every_subject(look, self._stage(patch), patch.ground.name)
        views = patch.extent if look == "close-up" else patch.views
        return references, distances(views, references)

    def _size_seen(self, patch: Patch, number: int) -> str:
        shown = self._references.shown_side(number, self._stage(patch), patch.ground.name)
        if patch.side == 0 or shown == 0:
            return "none"
        cell = patch.side / shown * UNITS / self.image_px
        if cell < _SMALL_BELOW:
            return "small"
        return "large" if cell >= _LARGE_FROM else "normal"


def _twins(references: np.ndarray, number: int) -> np.ndarray:
    """Which references cannot be told from one of them, shape (n,), bool."""
    return np.asarray(distances(references[[number]], references) < SAME_DRAWING)


def names_no_subject(truth: Mapping[str, Any]) -> bool:
    """Whether a two-panel caption says "photo" and leaves open what of."""
    return "{" not in truth["template"]
