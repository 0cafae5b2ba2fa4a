"""A given picture made into an image prompt: cut or fitted, and a part of it left to be drawn.

Two layouts. `top-half` takes the picture for the model's own and keeps its upper rows, so that the
model completes it, or all of it but a region, which the model fills. `place-on-top` fits the whole
picture into the upper rows, so that the model draws another version below: the two-panel pictures
of training, which `dalle.transforms` words.

Sizes are (height, width), boxes (left, top, right, bottom) with right and bottom just outside, both
in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from dalle.config.ranges import check_region
from dalle.data.images import scaled
from dalle.ground import Box, Rgb, find_ground

Layout = Literal["top-half", "place-on-top"]
CropMode = Literal["center", "top", "pad"]
Region = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, as parts of its width and height."""

UNDRAWN: Rgb = (128, 128, 128)
"""What stands where the model has yet to draw."""

_ROUNDING = 1e-6
"""By how much of a token a region may miss a border and still end there: a third is not exact."""
# A panel's drawing is 14 units long in a half that is 16 units high (dalle.data.emoji.grammar).
_PANEL_SHARE = 14 / 16
_PREVIEW_PX = 256
_DARK, _LIGHT = (20, 20, 24), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class PreparedPrompt:
    """What the model is given of a picture."""

    image: Image.Image
    """The model's canvas as a person should see it, RGB: the undrawn part is `UNDRAWN`."""
    whole: Image.Image
    """The canvas with nothing hidden: below the kept part the picture goes on, or its ground does.

    The dVAE should be given this one: through its convolutions the last kept row of tokens also
    depends on the pixels below, and there training never had grey.
    """
    rows: int
    """Whole token rows that are kept at the top."""
    region: Box | None
    """The cells of the token grid that are drawn where only a region is; None where all rows below
    the kept ones are."""
    drawn_box: Box
    """The part of `image` that is drawn."""
    notes: tuple[str, ...]
    """What was rounded, cut off or filled in, each a clause for the person."""

    @property
    def outline(self) -> Box:
        """What a person should see a line around: the kept rows, or the region that is drawn."""
        _, top, right, _ = self.drawn_box
        return (0, 0, right, top) if self.region is None else self.drawn_box


def keep_rows(requested: float | int | None, *, grid_h: int) -> int:
    """How many token rows are kept, 0 to `grid_h` - 1.

    A fraction is rounded to the nearest row, a half up, and to `grid_h` - 1 at most: 0.5 of 16 is
    8, 0.4 is 6, 0.99 is 15.

    Args:
        requested: A fraction of the height (a float in [0, 1)), a number of rows (an int from 0 to
            `grid_h` - 1), or None for half.
        grid_h: Rows of the token grid.

    Raises:
        TypeError: `requested` is no number.
        ValueError: It is negative, not finite, or would keep the whole picture.
    """
    if requested is None:
        requested = 0.5
    is_fraction = isinstance(requested, float | np.floating)
    if isinstance(requested, bool) or not (is_fraction or isinstance(requested, int | np.integer)):
        raise TypeError(f"keep_rows must be a number, got {requested!r}")
    limit = 1 if is_fraction else grid_h
    if not 0 <= requested < limit:  # NaN is not either
        remedy = "; keep less, so that something is left to draw" if requested >= limit else ""
        raise ValueError(
            "keep_rows must be a fraction from 0 to under 1, such as 0.5, or a whole number of "
            f"rows from 0 to {grid_h - 1}, got {requested}{remedy}"
        )
    if is_fraction:
        return min(grid_h - 1, math.floor(requested * grid_h + 0.5))
    return int(requested)


def region_cells(region: Sequence[float], *, grid: tuple[int, int]) -> Box:
    """The cells of the token grid that a region touches, however little of them.

    Args:
        region: Left, top, right and bottom, as parts of the picture's width and height.
        grid: Rows and columns of the token grid.

    Raises:
        TypeError: `region` is not four numbers.
        ValueError: It reaches outside, holds nothing, or leaves nothing to keep.
    """
    check_region(region)
    left, top, right, bottom = map(float, region)
    height, width = grid
    first_x = min(math.floor(left * width + _ROUNDING), width - 1)
    first_y = min(math.floor(top * height + _ROUNDING), height - 1)
    cells = (
        first_x,
        first_y,
        max(math.ceil(right * width - _ROUNDING), first_x + 1),
        max(math.ceil(bottom * height - _ROUNDING), first_y + 1),
    )
    if cells == (0, 0, width, height):
        raise ValueError(
            "region is the whole picture, so that nothing of it is kept; make it smaller, or leave "
            "the picture out"
        )
    return cells


def prepare(
    image: Image.Image,
    *,
    image_px: tuple[int, int],
    layout: Layout,
    crop: CropMode,
    rows: float | int | None,
    stride: int,
    region: Sequence[float] | None = None,
) -> PreparedPrompt:
    """The prompt that a picture becomes.

    `top-half` cuts the picture to the model's proportions (`center`, or `top`, which keeps its
    upper edge) or pads it (`pad`, with the colour of its rim where that is even, otherwise white),
    resizes it and keeps the upper rows, or all but `region`.

    `place-on-top` never cuts. Even margins are trimmed, so that a subject is as large as in the
    training's panels however much room its picture leaves around it; the rest is fitted, centred,
    into a square of 14/16 of the kept height, on the trimmed margin's colour, otherwise on white.

    Args:
        image: RGB picture of any size, as `dalle.given_picture.read_picture` returns it.
        image_px: Height and width of the model's pictures.
        layout: What of the model's canvas the picture takes.
        crop: How it gets the canvas's proportions; read by `top-half` only.
        rows: How much is kept, as `keep_rows` takes it.
        stride: Pixels per token, along each side.
        region: What is drawn, as `region_cells` takes it, all else being kept; with `top-half`
            only, and `rows` is not read then.

    Raises:
        TypeError: `rows` is no number, or `region` not four.
        ValueError: `image` is not RGB, `layout` or `crop` unknown, `rows` or `region` out of range,
            or nothing is kept in `place-on-top`.
    """
    _check("layout", layout, get_args(Layout))
    _check("crop", crop, get_args(CropMode))
    if image.mode != "RGB":
        raise ValueError(f"image must be RGB, got mode {image.mode}; open it with read_picture")
    grid_h, grid_w = image_px[0] // stride, image_px[1] // stride
    cells: Box | None = None
    if region is not None:
        if layout == "place-on-top":
            raise ValueError("region is drawn in a picture as it is, not below one: use top-half")
        cells = region_cells(region, grid=(grid_h, grid_w))
    kept = keep_rows(rows, grid_h=grid_h) if cells is None else cells[1]
    if layout == "place-on-top":
        if kept == 0:
            raise ValueError(
                f"place-on-top must keep at least 1 of {grid_h} rows, got {rows}; keep more, such "
                "as 0.5, or leave the picture out"
            )
        whole, notes = _place_on_top(image, image_px, kept_px=kept * stride)
    else:
        whole, notes = _fill(image, image_px, crop=crop)
    left, top, right, bottom = cells or (0, kept, grid_w, grid_h)
    drawn_box = (left * stride, top * stride, right * stride, bottom * stride)
    shown = whole.copy()
    shown.paste(UNDRAWN, drawn_box)
    return PreparedPrompt(
        image=shown,
        whole=whole,
        rows=kept,
        region=cells,
        drawn_box=drawn_box,
        notes=(*(_rounding(rows, kept, grid_h) if cells is None else ()), *notes),
    )


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(known)}, got {value!r}")


def _rounding(requested: float | int | None, rows: int, grid_h: int) -> tuple[str, ...]:
    share = 0.5 if requested is None else requested
    if isinstance(share, int | np.integer) or share * grid_h == rows:
        return ()
    return (f"{share:g} of {grid_h} rows is {rows} row{'' if rows == 1 else 's'}",)


def _fill(
    image: Image.Image, image_px: tuple[int, int], *, crop: CropMode
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture as the whole canvas, and what was done to it."""
    height, width = image_px
    scales = (width / image.width, height / image.height)
    scale = min(scales) if crop == "pad" else max(scales)
    # The canvas in the picture's pixels; it reaches beyond the picture where that is padded.
    across, down = width / scale, height / scale
    left, top = (image.width - across) / 2, (image.height - down) / 2
    if crop == "top":
        top = 0.0
    notes: tuple[str, ...] = ()
    if crop == "pad":
        ground = find_ground(image)
        whole = Image.new("RGB", (width, height), ground.colour)
        fitted = image.resize(scaled(image.size, scale), Image.Resampling.LANCZOS)
        whole.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
        if fitted.size != whole.size:
            with_what = "the colour of its rim" if ground.is_even else "white"
            notes = (f"the picture is padded with {with_what}",)
    else:
        # Rounding must not put an edge outside, which Pillow refuses.
        frame = (
            *(max(0.0, left), max(0.0, top)),
            *(min(left + across, image.width), min(top + down, image.height)),
        )
        whole = image.resize((width, height), Image.Resampling.LANCZOS, box=frame)
        if (cut := (round(across), round(down))) != image.size:
            part = "upper" if crop == "top" and cut[1] < image.height else "central"
            notes = (f"the {part} {_by(cut)} of {_by(image.size)} pixels are used",)
    return whole, notes


def _place_on_top(
    image: Image.Image, image_px: tuple[int, int], *, kept_px: int
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture as the canvas's top panel, and what was done to it."""
    height, width = image_px
    ground = find_ground(image)
    # Cropped first: with `box`, resizing would blend the margins into the subject's outline.
    subject = image.crop(ground.subject)
    size = subject.size
    side = round(_PANEL_SHARE * min(kept_px, width))
    fitted = subject.resize(scaled(size, side / max(size)), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (width, height), ground.colour)
    whole.paste(fitted, ((width - fitted.width) // 2, (kept_px - fitted.height) // 2))
    notes = [f"the picture takes up {_by(fitted.size)} of {_by(whole.size)} pixels"]
    if size != image.size:
        notes.insert(0, f"margins are left out: {_by(size)} of {_by(image.size)} pixels are used")
    return whole, tuple(notes)


def seam_preview(image: Image.Image, box: Box) -> Image.Image:
    """`image`, enlarged to a legible size, with a thin line around `box`.

    The line is dark outside and light inside, so that it shows on any ground.

    Args:
        image: RGB picture, such as a prompt's, a finished one, or the one a person gave.
        box: The part to outline, such as `PreparedPrompt.outline`; nothing if it is empty.
    """
    zoom = math.ceil(_PREVIEW_PX / max(image.size))
    # Nearest keeps pixels honest: the preview must not look smoother than the picture.
    shown = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    left, top, right, bottom = (zoom * edge for edge in box)
    line = max(1, round(max(shown.size) / _PREVIEW_PX))
    pen = ImageDraw.Draw(shown)
    for inset, colour in ((0, _DARK), (line, _LIGHT)):
        if min(right - left, bottom - top) > 2 * inset:
            pen.rectangle(
                (left + inset, top + inset, right - inset - 1, bottom - inset - 1),
                outline=colour, width=line,
            )  # fmt: skip
    return shown


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
