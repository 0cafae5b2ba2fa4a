"""X/Y grids: what is typed, what is drawn, and the sheet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle.config import SamplingConfig
from dalle.page.faults import PageFault
from dalle.page.grid import Axis, join, plan, read_axis
from dalle.page.limits import Limits
from dalle.page.settings import DrawSettings
from dalle.sheets import GAP_PX, LINE_PX, ROW_LABEL_PX

LIMITS = Limits()


def settings(caption: str | None = "a fox", candidates: int = 2) -> DrawSettings:
    return DrawSettings(
        caption=caption, candidates=candidates, keep=2, seed=5,
        sampling=SamplingConfig(temperature=0.8, top_k=64, top_p=0.9, guidance_scale=1.5),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("caption", "captions"),
    [
        ("a fox", ("a fox",)),
        ("a [[red, blue]] fox", ("a red fox", "a blue fox")),
        ("[[a,two ,]] fox", ("a fox", "two fox")),
        (
            "[[a, the]] fox [[on, in]] it",
            ("a fox on it", "the fox on it", "a fox in it", "the fox in it"),
        ),
        ("a [red] fox]", ("a [red] fox]",)),
        (r"a [[\1, \g<0>]] fox", (r"a \1 fox", r"a \g<0> fox")),
    ],
)
def test_brackets_stand_for_several_captions(caption: str, captions: tuple[str, ...]) -> None:
    words, other = Axis(name="words", values=("?",)), Axis(name="top_k", values=(9,))
    axes = [words] * caption.count("[[") or [other]
    grid = plan(settings(caption), axes[0], axes[1] if len(axes) > 1 else None, limits=LIMITS)
    assert tuple(cell.settings.caption for cell in grid.cells) == captions


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a [[red, blue fox", "words to try are written as"),
        ("a red]] fox", "words to try are written as"),
        ("a [[red, [[light, dark]] blue]] fox", "not one within another"),
        ("a [[ , ]] fox", "write words to try between the brackets"),
        ("a [[]] fox", "write words to try between the brackets"),
    ],
)
def test_brackets_that_make_no_sense_are_refused(caption: str, message: str) -> None:
    with pytest.raises(PageFault, match=message):
        read_axis("words", "", caption=caption)


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("temperature", "0.6, .8,1", (0.6, 0.8, 1.0)),
        ("seed", "1-3, 9, -2", (1, 2, 3, 9, -2)),
        ("seed", "-2--1", (-2, -1)),
        ("top_k", "0, 16 - 17", (0, 16, 17)),
        ("guidance_scale", " 1 ,, 2 ", (1.0, 2.0)),
    ],
)
def test_axes_are_read_as_people_type_them(name: str, text: str, values: tuple[Any, ...]) -> None:
    found = read_axis(name, text)
    assert found == Axis(name=name, values=values)  # type: ignore[arg-type]
    assert [type(value) for value in found.values] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("colour", "1", "an axis must be one of seed, temperature, .*words; choose one"),
        (["seed"], "1", "an axis must be one of"),
        ("temperature", "", "write values for temperature, such as 0.6, 0.8, 1"),
        ("temperature", None, "write values for temperature"),
        ("temperature", "0.5; 1", r"temperature must be numbers with commas .*, got '0\.5; 1'"),
        ("temperature", "1-4", "temperature must be numbers"),
        ("top_k", "1.5", r"top-k must be numbers .*, got '1\.5'"),
        ("seed", "x" * 500, "seed must be numbers .*, got 'x{39}…'"),
        ("seed", "9" * 5000, "seed must be numbers"),
        ("seed", "4-1", "a range goes up, by less than 1,000, such as 1-4, got 4-1"),
        ("seed", "1-9999999999999", "a range goes up, by less than 1,000"),
        ("words", "red, blue", r"write words to try in the caption, such as a \[\[red, blue\]\]"),
    ],
)
def test_axes_that_are_none_are_refused(name: object, text: object, message: str) -> None:
    with pytest.raises(PageFault, match=message):
        read_axis(name, text, caption="a fox")


def test_cells_go_row_by_row_and_change_nothing_else() -> None:
    grid = plan(
        settings(), read_axis("temperature", "0.5, 1"), read_axis("seed", "1-3"), limits=LIMITS
    )
    seen = [
        (cell.row, cell.column, cell.settings.sampling.temperature, cell.settings.seed)
        for cell in grid.cells
    ]
    assert seen == [
        (0, 0, 0.5, 1), (0, 1, 1.0, 1),
        (1, 0, 0.5, 2), (1, 1, 1.0, 2),
        (2, 0, 0.5, 3), (2, 1, 1.0, 3),
    ]  # fmt: skip
    for cell in grid.cells:
        assert (cell.settings.caption, cell.settings.candidates) == ("a fox", 2)
        assert (cell.settings.sampling.top_p, cell.settings.keep) == (0.9, 1)


def test_one_axis_makes_one_row() -> None:
    grid = plan(settings(), read_axis("top_k", "0, 8"), None, limits=LIMITS)
    assert [(cell.row, cell.column) for cell in grid.cells] == [(0, 0), (0, 1)]
    assert [cell.settings.sampling.top_k for cell in grid.cells] == [None, 8]
    assert grid.x.labels == ("top-k 0", "top-k 8")


def test_words_fill_their_brackets() -> None:
    caption = "[[a, two]] fox [[asleep, awake, gone]]"
    words = read_axis("words", "", caption=caption)
    both = plan(settings(caption), words, words, limits=LIMITS)
    assert [cell.settings.caption for cell in both.cells] == [
        "a fox asleep", "two fox asleep", "a fox awake", "two fox awake", "a fox gone",
        "two fox gone",
    ]  # fmt: skip
    assert both.y is not None
    assert (both.x.labels, both.y.labels) == (("a", "two"), ("asleep", "awake", "gone"))
    down = plan(
        settings("a [[red, blue]] fox"), read_axis("seed", "1, 2"),
        read_axis("words", "", caption="a [[red, blue]] fox"), limits=LIMITS,
    )  # fmt: skip
    assert [cell.settings.caption for cell in down.cells] == ["a red fox"] * 2 + ["a blue fox"] * 2


@pytest.mark.parametrize(
    ("caption", "x", "y", "message"),
    [
        ("a fox", ("seed", "1-2"), ("seed", "3-4"), "both axes are seed; choose another for one"),
        ("a fox", ("seed", "1-7"), ("top_k", "1-6"), "has 42 cells, more than 36; use fewer"),
        ("a fox", ("temperature", "1, 101"), None, "temperature must be between 0"),
        ("a fox", ("temperature", "nan"), None, "temperature must be between 0"),
        ("a fox", ("top_p", "0"), None, r"top_p must be in \(0, 1\]"),
        ("a fox", ("top_k", "-1"), None, "top_k must be at least 1"),
        ("a fox", ("seed", str(1 << 63)), None, r"seed must be a whole number below 2\^63"),
        ("a [[b, c]] fox", ("seed", "1"), None, r"has 1 of \[\[...\]\], but 0 of the axes are"),
        ("a [[b, c]] fox", ("words", ""), ("words", ""), "has 1 of .*, but 2 of the axes"),
        ("[[ , fox]]" + "x" * 999, ("words", ""), None, "at most 1,000 characters"),
    ],
)
def test_grids_that_cannot_be_drawn_are_refused(
    caption: str, x: tuple[str, str], y: tuple[str, str] | None, message: str
) -> None:
    across = read_axis(*x, caption=caption)
    down = None if y is None else read_axis(*y, caption=caption)
    with pytest.raises(PageFault, match=message):
        plan(settings(caption), across, down, limits=LIMITS)


def test_a_grid_of_too_many_pictures_is_told_how_many_fit() -> None:
    with pytest.raises(PageFault, match=r"36 cells of 8 candidates .* than 256; draw 7 candidates"):
        plan(
            settings(candidates=8), read_axis("seed", "1-6"), read_axis("top_k", "1-6"),
            limits=LIMITS,
        )  # fmt: skip


def test_the_sheet_shows_every_cell_in_its_place() -> None:
    grid = plan(
        settings(), read_axis("temperature", "0.5, 1"), read_axis("seed", "1-3"), limits=LIMITS
    )
    colours = [(10 * number, 200, 255 - 10 * number) for number in range(6)]
    sheet = join(grid, [Image.new("RGB", (64, 64), colour) for colour in colours])
    cell, top = 128 + GAP_PX, LINE_PX + GAP_PX
    assert sheet.size == (ROW_LABEL_PX + 2 * cell + GAP_PX, top + 3 * cell + GAP_PX)
    pixels = np.asarray(sheet)
    for number, colour in enumerate(colours):
        row, column = divmod(number, 2)
        x, y = ROW_LABEL_PX + GAP_PX + column * cell, top + GAP_PX + row * cell
        assert (pixels[y : y + 128, x : x + 128] == colour).all()
    dark = pixels.min(axis=2) < 128
    for column in range(2):  # a label over each column, beside each row
        left = ROW_LABEL_PX + GAP_PX + column * cell
        assert dark[:top, left : left + 128].any()
    for row in range(3):
        assert dark[top + row * cell : top + (row + 1) * cell, :ROW_LABEL_PX].any()
    with pytest.raises(ValueError, match="a grid of 6 cells needs as many pictures, got 1"):
        join(grid, [Image.new("RGB", (64, 64))])


def test_a_single_row_has_no_room_at_the_left() -> None:
    grid = plan(settings(), read_axis("seed", "1-2"), None, limits=LIMITS)
    sheet = join(grid, [Image.new("RGB", (64, 64), "red")] * 2)
    assert sheet.size == (2 * 136 + 8, LINE_PX + GAP_PX + 136 + 8)
