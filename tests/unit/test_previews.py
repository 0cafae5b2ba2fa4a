"""Previews are painted strip by strip, and look like the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle import TextToImage
from dalle.previews import UNDRAWN, Previews

FOX = Path(__file__).parents[2] / "dalle" / "page" / "examples" / "fox.png"


def difference(left: Image.Image, right: Image.Image, *, rows_px: int) -> float:
    """Mean difference of the upper rows, of 255."""
    first, second = (np.asarray(one)[:rows_px].astype(int) for one in (left, right))
    return float(np.abs(first - second).mean())


@pytest.fixture(scope="module")
def bundled() -> TextToImage:
    return TextToImage.from_pretrained("emoji", device="cpu")


def test_what_is_drawn_looks_like_the_finished_picture(bundled: TextToImage) -> None:
    frames = list(bundled.stream("a fox on a blue background", candidates=3, seed=4))
    finished = frames[-1].previews
    for frame in frames[:-1]:
        for preview, whole in zip(frame.previews, finished, strict=True):
            assert difference(preview, whole, rows_px=4 * frame.rows_done) < 8
            assert (np.asarray(preview)[4 * frame.rows_done :] == UNDRAWN).all()


def test_the_first_preview_shows_all_rows_that_were_given(bundled: TextToImage) -> None:
    with Image.open(FOX) as fox:
        prompt = bundled.read_image(fox.convert("RGB"))
    first, *_ = bundled.stream("a fox", image=prompt, candidates=2, seed=1)
    assert prompt.shown is not None
    assert first.rows_done == 9
    for preview in first.previews:
        assert difference(preview, prompt.shown.seen, rows_px=28) < 2


def test_no_more_than_three_rows_are_decoded_for_a_new_one(
    bundled: TextToImage, decoded: list[tuple[int, ...]]
) -> None:
    """Bug: all rows were decoded again after each, which took as long as drawing them."""
    previews = Previews(bundled._drawer.image_tokenizer, torch.device("cpu"))
    tokens = torch.arange(2 * 256).reshape(2, 256)
    shown = [previews.after(tokens[:, : 16 * rows]) for rows in (8, 9, 10)]
    assert decoded == [(2, 8, 16), (2, 3, 16), (2, 3, 16)]
    before, after = np.asarray(shown[0][0]), np.asarray(shown[1][0])
    assert (before[:28] == after[:28]).all(), "only the row above is painted again"
    assert (before[32:] == UNDRAWN).all(), "what was handed out stays as it was"


def test_candidates_that_were_not_looked_at_are_painted_from_the_top(bundled: TextToImage) -> None:
    previews = Previews(bundled._drawer.image_tokenizer, torch.device("cpu"))
    tokens = torch.arange(3 * 256).reshape(3, 256)
    (first,) = previews.after(tokens[:, : 16 * 6], slice(1))
    both = previews.after(tokens[:, : 16 * 8], slice(2))
    at_once = Previews(bundled._drawer.image_tokenizer, torch.device("cpu"))
    assert len(both) == 2
    for preview, whole in zip(both, at_once.after(tokens[:, : 16 * 8], slice(2)), strict=True):
        assert preview.tobytes() == whole.tobytes()
    assert (np.asarray(first)[4 * 6 :] == UNDRAWN).all(), "what was handed out stays as it was"


def test_an_earlier_row_is_shown_without_those_below_it(bundled: TextToImage) -> None:
    previews = Previews(bundled._drawer.image_tokenizer, torch.device("cpu"))
    tokens = torch.arange(2 * 256).reshape(2, 256)
    before = previews.after(tokens[:, : 16 * 5])
    previews.after(tokens[:, : 16 * 9])
    again = previews.after(tokens[:, : 16 * 5])
    assert [image.tobytes() for image in again] == [image.tobytes() for image in before]
