"""Contact sheets, measured pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dalle.config import SamplingConfig
from dalle.lettering import _knows, _tell_once, font_for
from dalle.picture import GeneratedImage, Recipe
from dalle.sheets import GAP_PX, LABEL_PX, LINE_PX, _wrap, completion_sheet, picture_grid

FONT = ImageFont.load_default(LABEL_PX)


def family(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str | None:
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font.getname()[0]


def plain(colour: tuple[int, int, int], px: int = 64) -> Image.Image:
    return Image.new("RGB", (px, px), colour)


def test_pictures_stand_in_rows_enlarged_to_a_whole_multiple() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    sheet = picture_grid([plain(colour) for colour in colours], columns=2)
    cell = 128 + GAP_PX  # 64 px are doubled
    assert sheet.size == (2 * cell + GAP_PX, 2 * cell + GAP_PX)
    pixels = np.asarray(sheet)
    for (x, y), colour in zip([(0, 0), (1, 0), (0, 1)], colours, strict=True):
        left, top = GAP_PX + x * cell, GAP_PX + y * cell
        assert (pixels[top : top + 128, left : left + 128] == colour).all()
        assert (pixels[top - 1, left : left + 128] == 255).all()
        assert (pixels[top : top + 128, left + 128] == 255).all()
    assert (pixels[cell + GAP_PX :, cell + GAP_PX :] == 255).all(), "the fourth place stays white"


def test_enlarging_invents_no_colours() -> None:
    checks = Image.fromarray(np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 255)
    sheet = np.asarray(picture_grid([checks.convert("RGB")], columns=1))
    assert set(np.unique(sheet)) == {0, 255}


def test_large_pictures_keep_their_size() -> None:
    assert picture_grid([plain((1, 2, 3), px=200)], columns=1).size == (216, 216)


def test_labels_stand_below_their_picture() -> None:
    sheet = picture_grid([plain((255, 255, 255))] * 2, columns=2, labels=["one\ntwo\nthree", ""])
    assert sheet.size == (2 * 136 + 8, 8 + 128 + 3 * LINE_PX + 8)
    dark = np.asarray(sheet.convert("L")) < 128
    for line in range(3):
        top = 136 + line * LINE_PX
        assert dark[top : top + LINE_PX, : 8 + 128].any()
    assert not dark[:136].any()
    assert not dark[:, 8 + 128 :].any(), "the second picture has no label"


def test_a_long_label_stays_under_its_picture() -> None:
    """A word longer than its picture used to run into the neighbour's label."""
    label = "x" * 60 + " and some ordinary words after it"
    sheet = picture_grid([plain((255, 255, 255))] * 2, columns=2, labels=[label, ""])
    assert not (np.asarray(sheet.convert("L"))[:, 8 + 128 + 1 :] < 128).any()


def test_lines_break_between_words_and_long_words_inside() -> None:
    text = "a fox on a blue background\n" + "w" * 30
    lines = [line.text for line in _wrap(text, 100)]
    assert all(FONT.getlength(line) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert lines[0] == "a fox on a blue"[: len(lines[0])]
    assert all(not line.startswith(" ") and not line.endswith(" ") for line in lines)
    assert [line.text for line in _wrap("w", 1)] == ["w"], "a letter wider than the line ends it"


def test_english_looks_as_pillow_writes_it() -> None:
    sheet = picture_grid([plain((255, 255, 255))], columns=1, labels=["a fox, gently (0.5)"])
    by_hand = Image.new("RGB", sheet.size, "white")
    ImageDraw.Draw(by_hand).text((8, 136), "a fox, gently (0.5)", fill="black", font=FONT)
    assert sheet == by_hand


@pytest.mark.parametrize("text", ["ein Fuchs – größer", "лиса на синем фоне", "αλεπού σε μπλε"])
def test_other_letters_are_no_boxes(text: str) -> None:
    """Pillow's own font knows no ö: captions of half of Europe were rows of boxes."""
    (line,) = _wrap(text, 1000)
    assert family(line.font) != family(FONT), "matplotlib brings one that knows them"
    ink = np.asarray(picture_grid([plain((255, 255, 255), 300)], columns=1, labels=[text])) < 128
    assert all(_knows(line.font, letter) for letter in text if letter != " ")
    assert not _knows(line.font, "\U0010fffe")
    assert ink.any()
    assert ink[:308].sum() == 0, "no letter reaches into the picture"


def test_the_font_is_the_one_that_lacks_least(caplog: pytest.LogCaptureFixture) -> None:
    _tell_once.cache_clear()
    assert family(font_for("plain words", 13)) == family(FONT)
    assert not caplog.records
    assert family(font_for("größer \U0010fffe", 13)) == family(font_for("größer", 13))
    font_for("\U0010fffe", 13)
    assert caplog.text.count("no font of this machine knows all letters of the labels") == 1


@pytest.mark.parametrize(
    ("count", "columns", "labels", "message"),
    [
        (0, 1, None, "at least one picture, got none"),
        (1, 0, None, "columns must be at least 1, got 0"),
        (2, 1, ["one"], "2 pictures need as many labels, got 1"),
    ],
)
def test_what_makes_no_sheet_is_refused(
    count: int, columns: int, labels: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        picture_grid([plain((0, 0, 0))] * count, columns=columns, labels=labels)


@pytest.mark.parametrize("has_original", [True, False])
def test_completions_stand_between_what_was_given_and_the_original(has_original: bool) -> None:
    """Five in rows of three: the second row has a gap, and both begin and end alike."""
    drawn = [generated((0, 40 * (number + 1), 0)) for number in range(5)]
    given, original = plain((128, 128, 128)), plain((200, 0, 0)) if has_original else None
    sheet = completion_sheet(drawn, columns=3, given=given, original=original)
    cell = 128 + GAP_PX
    columns = 5 if has_original else 4
    assert sheet.width == columns * cell + GAP_PX
    cell_y = (sheet.height - GAP_PX) // 2
    shown = [
        [sheet.getpixel((GAP_PX + x * cell + 64, GAP_PX + y * cell_y + 64)) for x in range(columns)]
        for y in range(2)
    ]
    end = [(200, 0, 0)] if has_original else []
    grey, white = (128, 128, 128), (255, 255, 255)
    assert shown[0] == [grey, (0, 40, 0), (0, 80, 0), (0, 120, 0), *end]
    assert shown[1] == [grey, (0, 160, 0), (0, 200, 0), white, *end]


def generated(colour: tuple[int, int, int]) -> GeneratedImage:
    recipe = Recipe(
        caption="", seed=0, index=0, sampling=SamplingConfig(), batch=(1, 1), model="0" * 16
    )
    return GeneratedImage(
        image=plain(colour),
        tokens=np.zeros((1, 1), dtype=np.int64),
        log_likelihood=-1.0,
        score=None,
        ranker="none",
        recipe=recipe,
    )
