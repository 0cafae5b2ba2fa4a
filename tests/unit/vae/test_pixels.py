"""8-bit images and model pixels: nothing is lost on the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vae.pixels import squeeze, to_image_u8, to_pixels, unsqueeze


def test_every_level_comes_back() -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert np.array_equal(to_image_u8(to_pixels(image)), image.numpy())


def test_channels_move_first_and_levels_span_minus_one_to_one() -> None:
    image = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    image[0, 1, 2, 0] = 255  # red, last pixel
    pixels = to_pixels(image)
    assert pixels.shape == (1, 3, 2, 3)
    assert pixels.dtype == torch.float32
    assert pixels[0, 0, 1, 2] == 1
    assert pixels.sum() == 1 - 17


def test_pixels_beyond_the_range_are_clipped_and_levels_rounded() -> None:
    pixels = torch.tensor([-7.0, -1.0, 0.0, 0.9, 1.0, 7.0]).reshape(1, 1, 1, 6).expand(1, 3, 1, 6)
    # 0 lies midway between 127 and 128 and rounds to the even one; 0.9 is level 242.25.
    assert to_image_u8(pixels)[0, 0, :, 0].tolist() == [0, 0, 128, 242, 255, 255]


def test_squeezed_pixels_span_a_tenth_to_nine_tenths() -> None:
    """Paper, appendix A.3: phi(x) = 0.8 x + 0.1 over 0...1."""
    squeezed = squeeze(torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(squeezed, torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(unsqueeze(squeezed), torch.tensor([-1.0, 0.0, 1.0]))
    assert unsqueeze(torch.tensor([0.01, 0.99])).tolist() == [-1, 1]


def test_other_types_and_shapes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"image_u8 must be uint8, got torch\.float32"):
        to_pixels(torch.zeros(1, 4, 4, 3))
    with pytest.raises(ValueError, match=r"shape \(b, y, x, 3\), got \(1, 3, 4, 4\)"):
        to_pixels(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"shape \(b, y, x, 3\), got \(4, 4, 3\)"):
        to_pixels(torch.zeros(4, 4, 3, dtype=torch.uint8))
