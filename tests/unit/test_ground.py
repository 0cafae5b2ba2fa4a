"""Where a subject ends and its even ground begins."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dalle.ground import clip_box, find_ground

Box = tuple[int, int, int, int]


def scene(
    size: tuple[int, int], box: Box, *, ground: str = "white", subject: str = "black"
) -> Image.Image:
    """A filled rectangle on a ground of one colour; `size` is (width, height)."""
    image = Image.new("RGB", size, ground)
    image.paste(subject, box)
    return image


@pytest.mark.parametrize("ground", ["white", "#48a", "black", "#fefdfc"])
@pytest.mark.parametrize("size", [(64, 64), (90, 40), (33, 200)])
def test_an_even_ground_is_found_to_the_pixel(ground: str, size: tuple[int, int]) -> None:
    box = (7, 5, 21, 30)
    found = find_ground(scene(size, box, ground=ground, subject="#c30"))
    assert found.is_even
    assert found.subject == box
    assert found.colour == Image.new("RGB", (1, 1), ground).getpixel((0, 0))


def test_large_pictures_are_measured_within_a_few_pixels() -> None:
    found = find_ground(scene((3000, 2000), (613, 407, 1777, 1201)))
    assert np.allclose(found.subject, (613, 407, 1777, 1201), atol=6)  # 3,000 / 512, rounded up
    left, top, right, bottom = found.subject
    assert left <= 613
    assert top <= 407
    assert right >= 1777
    assert bottom >= 1201


def test_a_noisy_ground_is_even() -> None:
    """The grain of photographed paper is no subject."""
    noise = np.random.default_rng(0).normal(0, 8, (400, 400, 3))
    clean = np.asarray(scene((400, 400), (100, 120, 300, 280), ground="#e6e6e6"), dtype=float)
    found = find_ground(Image.fromarray((clean + noise).clip(0, 255).astype(np.uint8)))
    assert found.is_even
    assert np.allclose(found.subject, (100, 120, 300, 280), atol=2)
    assert np.allclose(found.colour, 230, atol=2)


def test_dust_is_no_subject() -> None:
    image = scene((400, 400), (100, 100, 300, 300))
    image.putpixel((3, 390), (0, 0, 0))
    assert find_ground(image).subject == (100, 100, 300, 300)


def test_thin_lines_are_a_subject() -> None:
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((10, 12, 50, 40), outline="black")
    assert find_ground(image).subject == (10, 12, 51, 41)


def test_a_subject_may_reach_the_rim() -> None:
    found = find_ground(scene((100, 100), (30, 40, 70, 100), ground="yellow"))
    assert (found.is_even, found.colour, found.subject) == (True, (255, 255, 0), (30, 40, 70, 100))


def test_a_gradient_is_not_even_and_nothing_is_trimmed() -> None:
    ramp = np.linspace(0, 255, 80)[None, :, None] * np.ones((60, 1, 3))
    found = find_ground(Image.fromarray(ramp.astype(np.uint8)))
    assert (found.is_even, found.colour) == (False, (255, 255, 255))
    assert found.subject == (0, 0, 80, 60)


def test_a_hairline_frame_is_not_taken_for_the_ground() -> None:
    image = scene((600, 600), (200, 200, 400, 400), ground="#dfd", subject="red")
    ImageDraw.Draw(image).rectangle((0, 0, 599, 599), outline="black")
    assert find_ground(image).colour == (0xDD, 0xFF, 0xDD)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (50, 90)])
def test_of_a_blank_picture_nothing_is_trimmed(size: tuple[int, int]) -> None:
    found = find_ground(Image.new("RGB", size, (1, 2, 3)))
    assert (found.is_even, found.colour, found.subject) == (True, (1, 2, 3), (0, 0, *size))


def test_boxes_are_rounded_and_clipped() -> None:
    assert clip_box((-3.2, 0.6, 9.4, 99.0), (8, 50)) == (0, 1, 8, 50)
    assert clip_box((-9.0, -9.0, -1.0, -1.0), (8, 50)) == (0, 0, 0, 0)
