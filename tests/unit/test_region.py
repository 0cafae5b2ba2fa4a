"""A region of a picture that is drawn while all else is kept: cells, tokens, likelihood, recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dalle import TextToImage
from dalle.checkpoint import load_model
from dalle.config import SamplingConfig
from dalle.image_prompt import UNDRAWN, prepare, region_cells
from dalle.model_config import TO_DRAW, SequenceConfig, TransformerConfig
from dalle.picture import Recipe, read_recipe
from dalle.previews import UNDRAWN as UNSEEN
from dalle.sampling import Drawn, sample_tokens
from dalle.sequence import kept_first, pad_caption
from dalle.transformer import JointTransformer
from vae.pixels import to_pixels

SEQUENCE = SequenceConfig(text_len=4, text_vocab=9, grid_h=3, grid_w=4, image_vocab=13)
MIDDLE = (0.25, 0.25, 0.75, 0.75)
FOX = "a fox on a blue background"

# ------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("region", "cells"),
    [
        ((0, 0, 0.5, 1), (0, 0, 2, 3)),
        ((0.5, 0, 1, 1), (2, 0, 4, 3)),
        ((0, 1 / 3, 1, 2 / 3), (0, 1, 4, 2)),  # thirds are not exact in binary
        ((0.26, 0.4, 0.49, 0.6), (1, 1, 2, 2)),
        ((0.24, 0.3, 0.51, 0.7), (0, 0, 3, 3)),
        ((0.999, 0.999, 1, 1), (3, 2, 4, 3)),
        (np.array([0, 0, 0.5, 1]).tolist(), (0, 0, 2, 3)),
        # Bug: a sliver beside a border was no cell at all.
        ((0.5, 0, 0.5 + 1e-9, 1), (2, 0, 3, 3)),
        ((1 - 1e-12, 1 - 1e-12, 1, 1), (3, 2, 4, 3)),
        ((1e-300, 0, 2e-300, 1), (0, 0, 1, 3)),
    ],
)
def test_a_region_is_every_cell_that_it_touches(region: Any, cells: tuple[int, ...]) -> None:
    assert region_cells(region, grid=(3, 4)) == cells


@pytest.mark.parametrize(
    ("region", "error", "message"),
    [
        ((0, 0, 1, 1), ValueError, "region is the whole picture"),
        ((0.01, 0, 1, 0.99), ValueError, "region is the whole picture"),
        ((0.5, 0, 0.5, 1), ValueError, "the first two less than the others, .* got 0.5 0 0.5 1"),
        ((0, 0.5, 1, 0.2), ValueError, "the first two less"),
        ((-0.1, 0, 0.5, 1), ValueError, "each from 0 to 1"),
        ((0, 0, 16, 8), ValueError, "each from 0 to 1"),
        ((0, 0, float("nan"), 1), ValueError, "each from 0 to 1"),
        ((0, 0, 1, 10**400), ValueError, "each from 0 to 1"),  # bug: an overflow
        ((0, 0, 0.5), TypeError, "four numbers"),
        ((0, 0, True, 1), TypeError, "four numbers"),
        ("0001", TypeError, "four numbers"),
        (7, TypeError, "four numbers"),
    ],
)
def test_what_is_no_region_is_refused(region: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        region_cells(region, grid=(3, 4))


def test_the_region_is_shown_in_grey_and_the_model_sees_all_of_the_picture() -> None:
    image = Image.effect_noise((32, 32), 80).convert("RGB")
    found = prepare(
        image, image_px=(32, 32), layout="top-half", crop="center", rows=None, stride=8,
        region=(0.5, 0.25, 1, 0.5),
    )  # fmt: skip
    assert (found.rows, found.region, found.notes) == (1, (2, 1, 4, 2), ())
    assert found.outline == found.drawn_box == (16, 8, 32, 16)
    shown, whole = np.array(found.image), np.array(found.whole)
    assert (shown[8:16, 16:32] == UNDRAWN).all()
    shown[8:16, 16:32] = whole[8:16, 16:32]
    assert np.array_equal(shown, whole)
    with pytest.raises(ValueError, match="use top-half"):
        prepare(
            image, image_px=(32, 32), layout="place-on-top", crop="center", rows=None, stride=8,
            region=MIDDLE,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------ tokens


def transformer() -> JointTransformer:
    torch.manual_seed(0)
    made = JointTransformer(SEQUENCE, TransformerConfig(width=16, heads=2, layers=2))
    with torch.no_grad():  # strong enough that what is drawn depends on what stands before it
        for name, parameter in made.named_parameters():
            parameter.mul_(1 if "norm" in name else 8)
    return made


def drawn(model: JointTransformer, prompt: Tensor, sampling: SamplingConfig, n: int = 3) -> Drawn:
    text_ids = torch.stack([pad_caption([1, 5], SEQUENCE), pad_caption([7], SEQUENCE)])
    *_, last = sample_tokens(
        model, text_ids, candidates=range(n), seed=4, sampling=sampling,
        image_prompt=prompt.expand(2, -1),
    )  # fmt: skip
    return last


PROMPT = torch.tensor([3, 1, 4, 1, 5, TO_DRAW, TO_DRAW, 2, 6, TO_DRAW, TO_DRAW, 5])


@torch.inference_mode()
def test_drawn_tokens_follow_kept_ones_on_all_sides_before_them() -> None:
    """Greedy tokens, against the model without a cache, token after token."""
    model = transformer()
    found = drawn(model, PROMPT, SamplingConfig(temperature=0), n=1)
    for row, ids in enumerate(([1, 5], [7])):
        text_ids = pad_caption(ids, SEQUENCE)[None]
        expected = PROMPT.clone()
        scored = []
        for place in range(12):
            filled = expected.clamp_min(0)[None]  # what comes later changes nothing before it
            log_probabilities = model(text_ids, filled).image[0, place].log_softmax(-1)
            if expected[place] == TO_DRAW:
                expected[place] = log_probabilities.argmax()
            if place >= 5:  # from the first drawn one on, kept ones too
                scored.append(float(log_probabilities[expected[place]]))
        assert torch.equal(found.tokens[row, 0], expected)
        assert float(found.log_probability[row, 0]) == pytest.approx(np.mean(scored), abs=1e-4)


def test_candidates_differ_in_the_region_alone() -> None:
    tokens = drawn(transformer(), PROMPT, SamplingConfig(guidance_scale=1.5), n=8).tokens
    kept = PROMPT != TO_DRAW
    assert (tokens[..., kept] == PROMPT[kept]).all()
    assert len({one.numpy().tobytes() for one in tokens[0]}) > 4


def test_a_region_at_the_end_is_drawn_as_without_it() -> None:
    """The same streams of noise, whether the rows below are asked for or left."""
    model = transformer()
    rows = drawn(model, PROMPT[:4], SamplingConfig())
    region = drawn(model, torch.cat([PROMPT[:4], torch.full((8,), TO_DRAW)]), SamplingConfig())
    assert torch.equal(rows.tokens, region.tokens)
    assert torch.equal(rows.log_probability, region.log_probability)


def test_regions_that_differ_between_captions_are_refused() -> None:
    text_ids = torch.stack([pad_caption([1], SEQUENCE)] * 2)
    with pytest.raises(ValueError, match="the same places of all captions"):
        sample_tokens(
            transformer(), text_ids, candidates=[0], seed=0, sampling=SamplingConfig(),
            image_prompt=torch.tensor([[1, TO_DRAW, 2], [1, 2, 2]]),
        )  # fmt: skip


def test_what_comes_first_is_counted() -> None:
    assert kept_first(PROMPT) == 5
    assert kept_first(PROMPT[:3]) == 3
    assert kept_first(torch.empty(0, dtype=torch.int64)) == 0


# ---------------------------------------------------------------------------------------- pipeline


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    generator = torch.Generator().manual_seed(4)
    noise = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(noise.numpy())


def test_all_but_the_region_is_the_given_picture(
    picture: Image.Image, tiny_pipeline: TextToImage, tiny_model: Path
) -> None:
    grid = load_model(tiny_model).vae.encode(to_pixels(torch.from_numpy(np.array(picture))[None]))
    (result,) = tiny_pipeline.generate(FOX, image=picture, region=MIDDLE, candidates=6).results
    inside = np.zeros((4, 4), dtype=bool)
    inside[1:3, 1:3] = True
    for image in result.images:
        assert np.array_equal(image.tokens[~inside], grid[0].numpy()[~inside])
    assert len({image.tokens.tobytes() for image in result.images}) == 6
    assert result.prompt is not None
    assert (result.prompt.region, result.prompt.rows) == ((4, 4, 12, 12), 1)
    assert result.prompt.whole is not None
    assert (np.array(result.prompt.image)[4:12, 4:12] == UNDRAWN).all()


def test_a_stream_shows_the_rows_from_the_region_on(
    picture: Image.Image, tiny_pipeline: TextToImage
) -> None:
    prompt = tiny_pipeline.read_image(picture, region=(0, 0.5, 0.5, 1))
    frames = list(tiny_pipeline.stream(FOX, image=prompt, candidates=2))
    assert [frame.rows_done for frame in frames] == [3, 4]
    assert tiny_pipeline.frames(2, prompt) == 2
    assert prompt.shown is not None
    last, seen = np.array(frames[0].preview)[12:], np.array(prompt.shown.seen)[12:]
    assert np.array_equal(last, seen), "what is kept is there from the beginning"
    assert (last[:, :8] == UNSEEN).all()
    assert not (last[:, 8:] == UNSEEN).all()


def test_the_picture_is_drawn_again_from_its_file_alone(
    picture: Image.Image, tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    drawn = tiny_pipeline.generate(FOX, image=picture, region=MIDDLE, candidates=3, seed=8)
    image = drawn.images[-1]
    image.save(tmp_path / "a.png")
    recipe = read_recipe(tmp_path / "a.png")
    assert recipe == image.recipe
    assert recipe.drawn_cells((4, 4), codes=32) == (1, 1, 3, 3)
    assert tiny_pipeline.redraw(recipe).image.tobytes() == image.image.tobytes()
    again = tiny_pipeline.generate(
        FOX, image=tiny_pipeline.given_rows(recipe), candidates=3, seed=8
    )
    assert {one.image.tobytes() for one in again.images} == {
        one.image.tobytes() for one in drawn.images
    }


def test_a_region_of_ones_own_picture_is_drawn_anew(tiny_pipeline: TextToImage) -> None:
    first = tiny_pipeline.generate(FOX, candidates=1).images[0]
    prompt = tiny_pipeline.all_but(first, (0.5, 0, 1, 1))
    (other,) = tiny_pipeline.generate("two apples", image=prompt, candidates=1, seed=5).images
    assert np.array_equal(other.tokens[:, :2], first.tokens[:, :2])
    assert not np.array_equal(other.tokens[:, 2:], first.tokens[:, 2:])


def test_two_ways_to_say_what_is_drawn_are_refused(
    picture: Image.Image, tiny_pipeline: TextToImage
) -> None:
    with pytest.raises(ValueError, match="both say what is drawn; give one"):
        tiny_pipeline.generate(FOX, image=picture, region=MIDDLE, keep_rows=2)
    with pytest.raises(ValueError, match="region: that is how a given picture is read, and none"):
        tiny_pipeline.generate(FOX, region=MIDDLE)


# ------------------------------------------------------------------------------------------ recipe


@pytest.mark.parametrize(
    ("to_draw", "cells"),
    [
        ([5, 6, 9, 10], (1, 1, 3, 3)),
        ([0], (0, 0, 1, 1)),
        ([15], (3, 3, 4, 4)),
        (range(4, 16), (0, 1, 4, 4)),
        ([2, 6, 10, 14], (2, 0, 3, 4)),
        ([5, 10], None),
        ([5, 6, 9], None),
        ([], None),
        (range(16), None),
    ],
)
def test_a_recipe_leaves_a_rectangle_to_draw(
    to_draw: Any, cells: tuple[int, ...] | None, tiny_pipeline: TextToImage
) -> None:
    recipe: Recipe = tiny_pipeline.generate(FOX, candidates=1).images[0].recipe
    prompt = tuple(TO_DRAW if place in to_draw else place for place in range(16))
    forged = replace(recipe, prompt=prompt)
    if cells is not None:
        assert forged.drawn_cells((4, 4), codes=32) == cells
        return
    with pytest.raises(ValueError, match="or the whole grid with -1 for each token of a rectangle"):
        forged.drawn_cells((4, 4), codes=32)
