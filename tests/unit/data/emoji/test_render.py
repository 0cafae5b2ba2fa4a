from __future__ import annotations

import numpy as np
import pytest

from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.looks import LOOKS, RECOLOURINGS, painted, pixel_art, suits, upside_down
from dalle.data.emoji.palette import BACKGROUNDS, PAINTS
from dalle.data.emoji.render import Painter, Picture
from dalle.data.emoji.scene import Cell, Placed, Scene
from dalle.data.emoji.subjects import Subject


def paint(font: EmojiFont, *placed: Placed, px: int = 64, background: str = "white") -> Picture:
    scene = Scene(kind="plain", placed=placed, background=background)
    return Painter(font, px).paint(scene)


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def extent(differs: np.ndarray) -> tuple[int, int, int, int]:
    """The box around what differs."""
    rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def test_boxes_are_where_pixels_changed(font: EmojiFont, core: dict[str, Subject]) -> None:
    cell = Cell(6, 2, 20)
    for subject in list(core.values())[::7]:
        picture = paint(font, Placed(subject=subject, cell=cell), background="pink")
        found = extent(np.abs(pixels(picture) - BACKGROUNDS["pink"]).max(2) > 3)
        assert np.allclose(found, picture.boxes[0], atol=1), subject.name
        left, top, right, bottom = picture.boxes[0]
        assert 12 <= left <= right <= 12 + 40
        assert 4 <= top <= bottom <= 4 + 40
        assert max(right - left, bottom - top) >= 38, f"{subject.name} fills its cell"


@pytest.mark.parametrize("px", [32, 64, 128, 256])
def test_boxes_scale_with_the_picture(font: EmojiFont, core: dict[str, Subject], px: int) -> None:
    picture = paint(font, Placed(subject=core["fox"], cell=Cell(4, 4, 24)), px=px)
    assert picture.image.size == (px, px)
    small = paint(font, Placed(subject=core["fox"], cell=Cell(4, 4, 24)), px=1024).boxes[0]
    assert np.allclose(np.array(picture.boxes[0]) / px, np.array(small) / 1024, atol=1.5 / px)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_have_their_colour(
    font: EmojiFont, core: dict[str, Subject], name: str
) -> None:
    picture = paint(font, Placed(subject=core["fox"], cell=Cell(8, 8, 16)), background=name)
    corners = pixels(picture)[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == BACKGROUNDS[name]).all()


def test_an_unlooked_panel_equals_a_small_picture(
    font: EmojiFont, core: dict[str, Subject]
) -> None:
    subject = core["fox"]
    both = paint(
        font,
        Placed(subject=subject, cell=Cell(9, 1, 14), panel="top"),
        Placed(subject=subject, cell=Cell(9, 17, 14), panel="bottom", look="upside-down"),
    )
    top, bottom = np.split(pixels(both), 2)
    assert (top != 255).any()
    # The same drawing mirrored: the cell is in the middle of its half, so the half is mirrored.
    assert (top == bottom[::-1]).all()


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_changes_the_drawing_and_stays_in_its_panel(
    font: EmojiFont, core: dict[str, Subject], look: str
) -> None:
    cell = Cell(9, 17, 14)
    plain = paint(font, Placed(subject=core["fox"], cell=cell, panel="bottom"))
    looked = paint(font, Placed(subject=core["fox"], cell=cell, panel="bottom", look=look))
    change = np.abs(pixels(plain) - pixels(looked)).max(2)
    assert (change > 60).sum() > 40
    assert (pixels(looked)[:32] == 255).all()
    left, top, right, bottom = looked.boxes[0]
    assert 0 <= left < right <= 64
    assert 32 <= top < bottom <= 64


@pytest.mark.parametrize("colour", PAINTS)
def test_paint_turns_everything_to_its_hue(
    font: EmojiFont, core: dict[str, Subject], colour: str
) -> None:
    fox = font.raster(core["fox"].glyph)
    solid = np.asarray(fox)[..., 3] == 255
    result = np.asarray(painted(colour, fox)).astype(int)[solid]
    middle = np.array(PAINTS[colour][1])
    strongest, weakest = middle.argmax(), middle.argmin()
    assert (result[:, strongest] >= result[:, weakest]).all()
    assert np.abs(result.mean(0)[:3] - middle).max() < 90


def test_looks_leave_the_cached_drawing_alone(font: EmojiFont, core: dict[str, Subject]) -> None:
    before = font.raster(core["fox"].glyph).tobytes()
    for recolour in RECOLOURINGS.values():
        recolour(font.raster(core["fox"].glyph))
    for look in LOOKS:
        paint(font, Placed(subject=core["fox"], cell=Cell(4, 4, 24), look=look))
    assert font.raster(core["fox"].glyph).tobytes() == before


def test_grayscale_has_no_colour_and_upside_down_undoes_itself(
    font: EmojiFont, core: dict[str, Subject]
) -> None:
    fox = font.raster(core["fox"].glyph)
    gray = np.asarray(RECOLOURINGS["grayscale"](fox))
    assert (gray[..., 0] == gray[..., 1]).all()
    assert (gray[..., 1] == gray[..., 2]).all()
    assert upside_down(fox).tobytes() != fox.tobytes()
    assert upside_down(upside_down(fox)).tobytes() == fox.tobytes()


def test_pixel_art_has_twelve_cells(font: EmojiFont, core: dict[str, Subject]) -> None:
    fox = font.raster(core["fox"].glyph).resize((48, 48))
    blocks = np.asarray(pixel_art(fox)).reshape(12, 4, 12, 4, 4)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_a_close_up_fills_the_picture(font: EmojiFont, core: dict[str, Subject]) -> None:
    for name in ("fox", "pizza", "ring", "umbrella"):
        picture = paint(font, Placed(subject=core[name], cell=Cell(4, 4, 24), look="close-up"))
        covered = (pixels(picture) != 255).any(2).mean()
        assert covered > 0.25, name
    assert np.allclose(paint_fox_close_up(font, core).boxes[0], (0, 0, 64, 64))


def paint_fox_close_up(font: EmojiFont, core: dict[str, Subject]) -> Picture:
    return paint(font, Placed(subject=core["fox"], cell=Cell(4, 4, 24), look="close-up"))


def test_nothing_wears_what_it_is() -> None:
    assert suits("sunglasses", "fox")
    assert not suits("sunglasses", "sunglasses")
    assert not suits("sunglasses", "smiling face with sunglasses")
    assert not suits("hat", "top hat")
    assert suits("colored red", "fox")
    assert not suits("colored red", "green book")
