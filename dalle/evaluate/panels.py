"""Two-panel pictures whose bottom a model is to draw, and the truth that it is measured by.

A case is a subject and a look that training never showed together, neither in a picture of its own
nor in panels. The model is given the top panel, painted as the grammar paints it, above white
paper: nothing of the truth can leak through the convolutions of the dVAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from dalle.data.emoji.dice import Dice
from dalle.data.emoji.heldout import heldout_transform, is_held_out
from dalle.data.emoji.looks import suits
from dalle.data.emoji.palette import DEFAULT_BACKGROUND
from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import Cell, Placed, Scene
from dalle.data.emoji.subjects import Subject
from dalle.data.emoji.wording import LOOK_NAMES, look_caption, panel_caption

# As the grammar places panels most often: in the middle, 14 of 32 units wide.
_TOP, _BOTTOM = Cell(9, 1, 14), Cell(9, 17, 14)


@dataclass(frozen=True, kw_only=True)
class PanelCase:
    """One subject to be redrawn in one look."""

    number: int
    """The subject's place in the list that cases were chosen from."""
    subject: str
    look: str
    caption: str
    """Asks for the whole picture: "the exact same fox on the top as a sketch on the bottom"."""
    bottom_caption: str
    """Says what the bottom should show: "a sketch of a fox"."""
    given: Image.Image
    """The top panel above white paper."""
    truth: Image.Image
    """The whole picture."""

    @property
    def is_zero_shot(self) -> bool:
        """Whether training showed this look in single pictures only, never below a subject."""
        return self.look == heldout_transform()


def heldout_cases(
    painter: Painter, subjects: Sequence[Subject], *, per_look: int, seed: int
) -> list[PanelCase]:
    """Cases of every look in turn, their subjects drawn from those held out with that look.

    Args:
        painter: Paints them, at the size of the model's pictures.
        subjects: Everything that may be shown.
        per_look: Subjects per look; fewer where fewer are held out.
        seed: Of the choice.
    """
    cases = []
    for look in LOOK_NAMES:
        held_out = [
            number
            for number, subject in enumerate(subjects)
            if suits(look, subject.name)
            and is_held_out("subject, look", subject.unicode_name, look)
        ]
        chosen = _shuffled(held_out, f"{seed}/transforms/{look}")[:per_look]
        cases += [_case(painter, subjects[number], number, look) for number in chosen]
    return cases


def _shuffled(numbers: Sequence[int], seed: str) -> list[int]:
    """`numbers` in an order that depends on `seed` alone."""
    dice, left = Dice(seed), list(numbers)
    return [left.pop(left.index(dice.pick(left))) for _ in numbers]


def _case(painter: Painter, subject: Subject, number: int, look: str) -> PanelCase:
    top = Placed(subject=subject, cell=_TOP, panel="top")
    bottom = Placed(subject=subject, cell=_BOTTOM, look=look, panel="bottom")

    def painted(*placed: Placed) -> Image.Image:
        scene = Scene(kind="panels", placed=placed, background=DEFAULT_BACKGROUND, look=look)
        return painter.paint(scene).image

    return PanelCase(
        number=number,
        subject=subject.name,
        look=look,
        caption=panel_caption(look, subject.name),
        bottom_caption=look_caption(look, subject.name),
        given=painted(top),
        truth=painted(top, bottom),
    )


def bottom_square(image: Image.Image) -> Image.Image:
    """The middle of the bottom half, as high as wide: a picture of its own, as CLIP knows them."""
    side = min(image.height - image.height // 2, image.width)
    left = (image.width - side) // 2
    return image.crop((left, image.height - side, left + side, image.height))
