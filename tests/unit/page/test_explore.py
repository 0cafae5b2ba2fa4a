"""How the model sees: tokens, reconstruction and map agree with each other and with the dVAE."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from PIL import Image

from dalle import TextToImage
from dalle.page.explore import explore, token_colour, token_map
from vae.pixels import to_image_u8, to_pixels

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8))


def test_a_picture_is_what_the_dvae_makes_of_it(tiny_pipeline: TextToImage) -> None:
    seen = explore(tiny_pipeline, NOISE)
    vae = tiny_pipeline._drawer.vae
    with torch.inference_mode():
        pixels = to_pixels(torch.from_numpy(np.array(seen.picture))[None])
        tokens = vae.encode(pixels)
        decoded = to_image_u8(vae.decode(tokens))[0]
    assert seen.picture.size == (16, 16)
    assert (seen.token_grid == tokens[0].numpy()).all()
    assert seen.token_grid.shape == (4, 4)
    assert (np.asarray(seen.reconstruction) == decoded).all()


def test_the_whole_picture_is_seen(tiny_pipeline: TextToImage) -> None:
    """Nothing is greyed out, as in a picture to go on from."""
    flag = Image.new("RGB", (16, 16), "red")
    flag.paste((0, 0, 255), (0, 8, 16, 16))
    assert explore(tiny_pipeline, flag).picture.tobytes() == flag.tobytes()


def test_pictures_of_other_proportions_are_cut_as_asked(tiny_pipeline: TextToImage) -> None:
    wide = Image.new("RGB", (64, 16), "red")
    wide.paste((0, 0, 255), (24, 0, 40, 16))
    cut = np.asarray(explore(tiny_pipeline, wide).picture)
    assert (cut == (0, 0, 255)).all(), "the central square is blue"
    padded = np.asarray(explore(tiny_pipeline, wide, crop="pad").picture)
    assert (padded[:, 0] != (0, 0, 255)).any()
    with pytest.raises(ValueError, match="crop must be center or top or pad, got 'left'"):
        explore(tiny_pipeline, wide, crop="left")  # type: ignore[arg-type]


def test_codes_are_counted_most_used_first(tiny_pipeline: TextToImage) -> None:
    seen = explore(tiny_pipeline, NOISE, top=3)
    counted = collections.Counter(seen.token_grid.flatten().tolist())
    assert seen.distinct == len(counted)
    expected = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:3]
    assert [(use.code, use.count) for use in seen.codes] == expected
    for use in seen.codes:
        grid = np.full((1, 4, 4), use.code)
        (swatch,) = tiny_pipeline.image_tokenizer.decode(grid)
        assert use.swatch.tobytes() == swatch.tobytes()
        assert use.colour == token_colour(use.code)


def test_the_map_has_a_cell_of_the_codes_colour_for_each_token() -> None:
    grid = np.array([[1, 2, 3], [3, 2, 700]])
    sheet = np.asarray(token_map(grid))
    height, width = (
        round(side / count) for side, count in zip(sheet.shape, grid.shape, strict=False)
    )
    for (row, column), code in np.ndenumerate(grid):
        cell = sheet[
            row * height : (row + 1) * height - 1, column * width : (column + 1) * width - 1
        ]
        assert (cell[2, 2] == token_colour(int(code))).all()
        written = (cell != token_colour(int(code))).any(axis=2)
        assert written.sum() > 5, f"no number in the cell of {code}"


def contrast(first: float, second: float) -> float:
    """WCAG 2.2, contrast ratio of two relative luminances."""
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def linear(colour: tuple[int, int, int]) -> np.ndarray:
    """IEC 61966-2-1, decoding."""
    level = np.array(colour) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def test_numbers_can_be_read_on_their_colours() -> None:
    """Every code's number has the contrast that WCAG asks of text."""
    for code in range(0, 1024, 5):
        sheet = np.asarray(token_map(np.array([[code]])))
        ground = np.array(token_colour(code))
        ink = 0.0 if sheet.sum(axis=2).min() < ground.sum() else 1.0  # black, else white
        luminance = float(linear(token_colour(code)) @ (0.2126, 0.7152, 0.0722))
        assert contrast(luminance, ink) >= 4.5, code


# Linear RGB as people without red, and without green cones see it: Vienot, Brettel & Mollon 1999,
# by way of Machado, Oliveira & Fernandes 2009, table 1, severity 1.
PROTAN = np.array(
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]
)
DEUTAN = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear RGB."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175],
         [0.0193339, 0.119192, 0.9503041]]
    )  # fmt: skip
    xyz = to_xyz @ rgb.clip(0, 1) / (0.95047, 1.0, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", [np.eye(3), PROTAN, DEUTAN], ids=["all cones", "protan", "deutan"])
def test_colours_differ_to_every_eye(eye: np.ndarray) -> None:
    """Of pairs of codes nearly all differ by far more than the 2.3 that people just notice."""
    seen = np.array([lab(eye @ linear(token_colour(code))) for code in range(256)])
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(256, 1)]
    assert np.median(distance) > 25
    assert (distance < 2.3).mean() < 0.01
    neighbours = np.linalg.norm(np.diff(seen, axis=0), axis=1)
    assert neighbours.min() > 10, "codes that follow each other never look alike"


def test_colours_never_change() -> None:
    """A map of today is compared with one of last year."""
    assert [token_colour(code) for code in (0, 1, 500)] == [
        (0, 68, 141),
        (217, 195, 179),
        (193, 142, 164),
    ]
