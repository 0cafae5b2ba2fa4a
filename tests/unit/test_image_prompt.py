"""From a person's picture to the model's canvas, measured pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import Cell, Placed, Scene
from dalle.data.emoji.subjects import list_subjects
from dalle.image_prompt import (
    UNDRAWN,
    CropMode,
    Layout,
    PreparedPrompt,
    keep_rows,
    prepare,
    seam_preview,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def stripes(*, upright: bool) -> Image.Image:
    """Red, green and blue fields of 50 px, one above the other or side by side."""
    image = Image.new("RGB", (50, 150) if upright else (150, 50))
    for number, colour in enumerate((RED, GREEN, BLUE)):
        corner = (0, 50 * number) if upright else (50 * number, 0)
        image.paste(colour, (*corner, corner[0] + 50, corner[1] + 50))
    return image


def made(image: Image.Image, **changes: Any) -> PreparedPrompt:
    """`image` as a prompt for pictures of 64 px with 16 token rows."""
    request: dict[str, Any] = {
        "image_px": (64, 64), "layout": "top-half", "crop": "center", "rows": 0.5, "stride": 4,
    }  # fmt: skip
    return prepare(image, **{**request, **changes})


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# ------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("requested", "grid_h", "rows"),
    [
        (None, 16, 8), (None, 15, 8), (None, 1, 0),
        (0.5, 16, 8), (0.4, 16, 6), (0.41, 16, 7), (0.0, 16, 0), (0.03, 16, 0), (0.04, 16, 1),
        (0.5, 15, 8), (0.4375, 32, 14), (0.99, 16, 15), (0.999999, 2, 1), (0.9, 1, 0),
        (0, 16, 0), (1, 16, 1), (15, 16, 15), (15, 32, 15),
        (np.int64(3), 16, 3), (np.float32(0.25), 16, 4), (np.float64(0.25), 16, 4),
    ],
)  # fmt: skip
def test_rows_are_rounded_to_the_grid(
    requested: float | int | None, grid_h: int, rows: int
) -> None:
    found = keep_rows(requested, grid_h=grid_h)
    assert (found, type(found)) == (rows, int)


@pytest.mark.parametrize("requested", [1.0, 1.5, 8.0, 16, 17, float("inf")])
def test_keeping_the_whole_picture_is_refused(requested: float | int) -> None:
    with pytest.raises(ValueError, match=rf"0 to 15, got {requested}; keep less, so that some"):
        keep_rows(requested, grid_h=16)


@pytest.mark.parametrize("requested", [-1, -0.1, float("nan"), float("-inf")])
def test_rows_out_of_range_are_refused(requested: float | int) -> None:
    with pytest.raises(ValueError, match=rf"a fraction from 0 to under 1, .*got {requested}$"):
        keep_rows(requested, grid_h=16)


@pytest.mark.parametrize("requested", [True, False, np.True_, "0.5", [8], 1j])
def test_rows_that_are_no_number_are_refused(requested: Any) -> None:
    with pytest.raises(TypeError, match="keep_rows must be a number, got "):
        keep_rows(requested, grid_h=16)


# --------------------------------------------------------------------------------- top-half


def test_a_picture_of_the_models_size_is_taken_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    found = made(Image.fromarray(noise), rows=5)
    assert (found.rows, found.drawn_box[1]) == (5, 20)
    assert found.outline == (0, 0, 64, 20)
    assert (array(found.whole) == noise).all()
    assert (array(found.image)[:20] == noise[:20]).all()
    assert (array(found.image)[20:] == UNDRAWN).all()
    assert found.notes == ()


def test_the_centre_or_the_top_is_cut_out() -> None:
    wide, high = stripes(upright=False), stripes(upright=True)
    cases: list[tuple[Image.Image, CropMode, tuple[int, int, int]]] = [
        (wide, "center", GREEN),
        (wide, "top", GREEN),
        (high, "center", GREEN),
        (high, "top", RED),
    ]
    for image, crop, colour in cases:
        found = made(image, crop=crop)
        # Resampling blends a little of what was cut off into the edge, as `centre_crop` does.
        assert np.allclose(array(found.whole), colour, atol=24), (image.size, crop)
    assert made(wide).notes == ("the central 50x50 of 150x50 pixels are used",)
    assert made(wide, crop="top").notes == ("the central 50x50 of 150x50 pixels are used",)
    assert made(high, crop="top").notes == ("the upper 50x50 of 50x150 pixels are used",)


def test_padding_takes_the_rims_colour_where_that_is_even() -> None:
    image = Image.new("RGB", (128, 64), (72, 138, 226))
    image.paste("black", (48, 16, 80, 48))
    found = made(image, crop="pad", rows=10)
    whole = array(found.whole)
    assert (whole[[0, 15, 48, 63]] == (72, 138, 226)).all()
    dark = np.flatnonzero((whole.max(2) < 60).any(1))
    assert (dark[0], dark[-1]) == (24, 39)  # 16 + 16 / 2 to 16 + 48 / 2
    assert found.notes == ("the picture is padded with the colour of its rim",)


def test_padding_is_white_where_the_rim_is_not_even() -> None:
    found = made(stripes(upright=True), crop="pad")
    whole = array(found.whole)
    assert (whole[:, :21] == 255).all()
    assert (whole[:, -21:] == 255).all()
    assert (whole[2, 32] == RED).all()
    assert (whole[-2, 32] == BLUE).all()
    assert found.notes == ("the picture is padded with white",)


def test_canvases_need_not_be_square() -> None:
    found = made(stripes(upright=False), image_px=(32, 96), stride=8, rows=0.3)
    assert (found.rows, found.drawn_box[1], found.image.size) == (1, 8, (96, 32))
    assert found.notes == ("0.3 of 4 rows is 1 row",)
    assert (array(found.whole)[16, [5, 48, 90]] == [RED, GREEN, BLUE]).all()


def test_the_answer_says_what_was_rounded() -> None:
    image = Image.new("RGB", (64, 64))
    assert made(image, rows=0.4).notes == ("0.4 of 16 rows is 6 rows",)
    assert made(image, rows=0.01).notes == ("0.01 of 16 rows is 0 rows",)
    assert made(image, rows=0.25).notes == made(image, rows=7).notes == ()
    assert made(image, rows=None, stride=12, image_px=(60, 60)).notes == (
        "0.5 of 5 rows is 3 rows",
    )


# ----------------------------------------------------------------------------- place-on-top


@settings(max_examples=30)
@given(
    side=st.integers(12, 90), left=st.integers(10, 60), top=st.integers(10, 60),
    right=st.integers(10, 60), bottom=st.integers(10, 60),
)  # fmt: skip
def test_a_subject_comes_out_alike_wherever_it_stood(
    side: int, left: int, top: int, right: int, bottom: int
) -> None:
    """In 1/32 of the side, a panel's cell is 14 long, 9 from the left and 1 from the top."""
    image = Image.new("RGB", (left + side + right, top + side + bottom), (250, 222, 84))
    image.paste("black", (left, top, left + side, top + side))
    found = made(image, layout="place-on-top")
    expected = np.full((64, 64, 3), (250, 222, 84))
    expected[2:30, 18:46] = 0
    assert (array(found.whole) == expected).all()
    expected[32:] = UNDRAWN
    assert (array(found.image) == expected).all()


def test_the_whole_picture_is_used_where_it_has_no_margins() -> None:
    found = made(stripes(upright=False), layout="place-on-top", crop="top")
    whole = array(found.whole)
    seen = (whole != 255).any(2)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    # 28 x 9.33 px about the middle of the upper half
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (11, 19, 18, 45)
    assert (whole[15, [20, 32, 44]] == [RED, GREEN, BLUE]).all()
    assert found.notes == ("the picture takes up 28x9 of 64x64 pixels",)


def test_the_panel_grows_with_the_rows() -> None:
    sizes = []
    for rows in range(1, 16):
        found = made(Image.new("RGB", (9, 9), "red"), layout="place-on-top", rows=rows)
        sizes.append(int(found.notes[-1].split("x")[1].split()[0]))
    assert sizes == [round(rows * 4 * 14 / 16) for rows in range(1, 16)]


def test_left_out_margins_are_told() -> None:
    image = Image.new("RGB", (100, 80), "white")
    image.paste("red", (30, 20, 70, 40))
    assert made(image, layout="place-on-top", rows=0.3).notes == (
        "0.3 of 16 rows is 5 rows",
        "margins are left out: 40x20 of 100x80 pixels are used",
        "the picture takes up 18x9 of 64x64 pixels",
    )


@pytest.mark.parametrize("px", [64, 128])
def test_prepared_pictures_look_like_training_panels(px: int, font: EmojiFont) -> None:
    """One subject alone on white, made a prompt, against the top of a true two-panel scene."""
    apart, blank = [], []
    for subject in list_subjects(font, "core")[::16]:
        alone = Scene(
            kind="plain",
            placed=(Placed(subject=subject, cell=Cell(4, 6, 20)),),
            background="white",
        )
        both = Scene(
            kind="panels",
            placed=(
                Placed(subject=subject, cell=Cell(9, 1, 14), panel="top"),
                Placed(subject=subject, cell=Cell(9, 17, 14), panel="bottom", look="sketch"),
            ),
            background="white",
            look="sketch",
        )
        given = Painter(font, 400).paint(alone).image
        prompt = made(given, layout="place-on-top", image_px=(px, px))
        panel = array(Painter(font, px).paint(both).image)[: px // 2]
        apart.append(np.abs(array(prompt.image)[: px // 2] - panel).mean())
        blank.append(np.abs(255 - panel).mean())
    assert len(apart) > 20
    assert np.mean(blank) > 15
    # Resampled twice, and where a side rounds the other way moved by half a pixel.
    assert np.mean(apart) < 1.2
    assert max(apart) < 6


# ------------------------------------------------------------------------------- both layouts


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    grid=st.tuples(st.integers(2, 9), st.integers(1, 9)),
    stride=st.sampled_from([1, 4, 8]),
    layout=st.sampled_from(["top-half", "place-on-top"]),
    crop=st.sampled_from(["center", "top", "pad"]),
    data=st.data(),
)
def test_any_picture_fits_any_model(
    size: tuple[int, int],
    grid: tuple[int, int],
    stride: int,
    layout: Layout,
    crop: CropMode,
    data: st.DataObject,
) -> None:
    """Among these sizes are some whose crop edges float rounding puts outside the picture."""
    rows = data.draw(st.integers(layout == "place-on-top", grid[0] - 1))
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    found = made(
        Image.fromarray(noise),
        image_px=(grid[0] * stride, grid[1] * stride),
        stride=stride, layout=layout, crop=crop, rows=rows,
    )  # fmt: skip
    assert found.image.size == found.whole.size == (grid[1] * stride, grid[0] * stride)
    assert (found.rows, found.drawn_box[1]) == (rows, rows * stride)
    assert (array(found.image)[found.drawn_box[1] :] == UNDRAWN).all()
    assert (
        array(found.image)[: found.drawn_box[1]] == array(found.whole)[: found.drawn_box[1]]
    ).all()


def test_the_given_picture_is_left_alone() -> None:
    image = stripes(upright=True)
    for layout in ("top-half", "place-on-top"):
        made(image, layout=layout)
    assert (array(image) == array(stripes(upright=True))).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "bottom"}, "layout must be top-half or place-on-top, got 'bottom'"),
        ({"crop": "left"}, "crop must be center or top or pad, got 'left'"),
        ({"rows": 1.0}, "0 to 15, got 1.0; keep less"),
        ({"layout": "place-on-top", "rows": 0}, "at least 1 of 16 rows, got 0; keep more"),
        ({"layout": "place-on-top", "rows": 0.01}, "at least 1 of 16 rows, got 0.01; keep more"),
    ],
)
def test_requests_without_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(Image.new("RGB", (64, 64)), **changes)


def test_only_rgb_is_prepared() -> None:
    with pytest.raises(ValueError, match="image must be RGB, got mode RGBA; open it with read_"):
        made(Image.new("RGBA", (64, 64)))


# ----------------------------------------------------------------------------------- preview


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255), UNDRAWN])
def test_the_seam_shows_on_any_ground(ground: tuple[int, int, int]) -> None:
    found = array(seam_preview(Image.new("RGB", (64, 64), ground), (0, 0, 64, 24)))
    assert found.shape == (256, 256, 3)
    line = np.abs(found - ground).max(2) > 100
    # Four pixels for one, and at least one of the two lines along each edge of 0...96.
    for edge in (line[94:96, 2:-2], line[:2, 2:-2], line[2:94, :2].T, line[2:94, -2:].T):
        assert edge.any(0).all()
    assert not line[96:].any()
    assert not line[2:94, 2:-2].any()


def test_the_seam_hides_less_than_a_pixel_of_small_pictures() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    found = array(seam_preview(Image.fromarray(noise), (4, 0, 12, 8)))
    assert found.shape == (256, 256, 3)
    assert (found[8::16, 8::16] == noise).all()


def test_the_seam_is_as_legible_on_a_large_picture() -> None:
    found = array(seam_preview(Image.new("RGB", (1024, 512), "white"), (100, 100, 900, 300)))
    assert found.shape == (512, 1024, 3)
    dark = (found.max(2) < 50)[200]
    assert np.flatnonzero(dark).tolist() == [100, 101, 102, 103, 896, 897, 898, 899]


def test_where_nothing_is_kept_nothing_is_outlined() -> None:
    found = seam_preview(Image.new("RGB", (64, 64), RED), (0, 0, 64, 0))
    assert (array(found) == RED).all()
