"""Distances and agreement of pictures, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dalle.evaluate.closeness import edge_distance, pixel_distance, token_agreement


def test_pixel_distance_is_the_root_of_the_mean_square() -> None:
    truth = np.zeros((2, 2, 3), dtype=np.uint8)
    white = np.full((2, 2, 3), 255, dtype=np.uint8)
    corner = truth.copy()
    corner[0, 0] = 255  # a quarter of the pixels is off by 1
    found = pixel_distance(np.stack([truth, white, corner]), truth)
    np.testing.assert_allclose(found, [0, 1, 0.5])


def test_edge_distance_sees_outlines_and_not_flat_colour() -> None:
    step = np.zeros((4, 4, 3), dtype=np.uint8)
    step[:, 2:] = 255  # both columns at the step are half as steep as a whole one
    flat = np.zeros((4, 4, 3), dtype=np.uint8)
    grey = np.full((4, 4, 3), 128, dtype=np.uint8)
    found = edge_distance(np.stack([step, flat, grey]), flat)
    np.testing.assert_allclose(found, [np.sqrt(0.5 * 0.25), 0, 0])
    upright = np.swapaxes(step, 0, 1)
    assert edge_distance(upright[None], step)[0] == pytest.approx(np.sqrt(0.125))


def test_token_agreement_leaves_blank_paper_out() -> None:
    blank = np.zeros((2, 3), dtype=np.int64)
    truth = np.array([[0, 7, 8], [0, 0, 9]])
    drawn = np.stack(
        [truth, blank, np.array([[5, 7, 1], [5, 5, 9]])]  # two of three, and dirt on the paper
    )
    np.testing.assert_allclose(token_agreement(drawn, truth, blank), [1, 0, 2 / 3])


def test_agreement_with_an_empty_truth_is_all_or_nothing() -> None:
    blank = np.ones((2, 2), dtype=np.int64)
    drawn = np.stack([blank, blank + np.array([[0, 0], [0, 1]])])
    np.testing.assert_allclose(token_agreement(drawn, blank, blank), [1, 0])
