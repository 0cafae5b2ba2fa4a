"""Pictures that go on from a given one: what is kept, what is drawn, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle import DataError, TextToImage
from dalle.checkpoint import load_model
from dalle.picture import read_recipe
from dalle.previews import UNDRAWN
from dalle.rerank import rank
from vae.pixels import to_image_u8, to_pixels

FOX = "a fox on a blue background"


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A picture of the tiny model's size, 16 px, of many colours."""
    generator = torch.Generator().manual_seed(4)
    noise = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(noise.numpy())


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_the_kept_tokens_are_exactly_the_pictures(
    rows: int, picture: Image.Image, tiny_pipeline: TextToImage, tiny_model: Path
) -> None:
    """Whatever number of rows; and the first row drawn follows from them."""
    vae = load_model(tiny_model).vae
    grid = vae.encode(to_pixels(torch.from_numpy(np.array(picture))[None]))[0].numpy()
    result = tiny_pipeline.generate(FOX, image=picture, keep_rows=rows, candidates=3).results[0]
    assert result.prompt is not None
    assert (result.prompt.rows, result.prompt.rows_in_all) == (rows, 4)
    for image in result.images:
        assert np.array_equal(image.tokens[:rows], grid[:rows])
    drawn = {image.tokens[rows:].tobytes() for image in result.images}
    assert len(drawn) == 3


def test_the_model_sees_the_picture_through_its_dvae(
    picture: Image.Image, tiny_pipeline: TextToImage, tiny_model: Path
) -> None:
    prompt = tiny_pipeline.read_image(picture, keep_rows=2)
    assert prompt.shown is not None
    vae = load_model(tiny_model).vae
    grid = vae.encode(to_pixels(torch.from_numpy(np.array(picture))[None]))[:, :2]
    seen = np.array(prompt.shown.seen)
    assert np.array_equal(seen[:8], to_image_u8(vae.decode(grid))[0])
    assert (seen[8:] == UNDRAWN).all()


def test_likelihood_is_that_of_what_was_drawn(
    picture: Image.Image, tiny_pipeline: TextToImage, tiny_model: Path
) -> None:
    """The mean is over drawn tokens: kept ones say nothing of a candidate."""
    image = tiny_pipeline.generate(FOX, image=picture, keep_rows=3, candidates=1).images[0]
    parts = load_model(tiny_model)
    ids = tiny_pipeline._drawer.prepare(FOX).text_ids[None]
    tokens = torch.from_numpy(image.tokens.reshape(1, -1))
    with torch.inference_mode():
        log_probabilities = parts.transformer(ids, tokens).image.log_softmax(-1)[0]
    chosen = log_probabilities.gather(1, tokens[0][:, None])[12:]
    assert image.log_likelihood == pytest.approx(float(chosen.mean()), abs=1e-4)


def test_a_completed_picture_can_be_redrawn_without_the_given_one(
    picture: Image.Image, tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    first = tiny_pipeline.generate(None, image=picture, candidates=3, seed=5).images[1]
    assert (first.recipe.caption, len(first.recipe.prompt)) == ("", 8)
    first.save(tmp_path / "completed.png")
    again = tiny_pipeline.redraw(read_recipe(tmp_path / "completed.png"))
    assert again.image.tobytes() == first.image.tobytes()


def test_without_caption_the_null_caption_is_drawn_and_ranked_by_likelihood(
    tiny_pipeline: TextToImage,
) -> None:
    result = tiny_pipeline.generate(None, candidates=4).results[0]
    assert result.caption == ""
    scores = [image.log_likelihood for image in result.images]
    assert rank(scores) == [0, 1, 2, 3]
    assert {image.ranker for image in result.images} == {"likelihood"}


def test_variations_keep_the_first_rows_and_differ_below(tiny_pipeline: TextToImage) -> None:
    first = tiny_pipeline.generate(FOX, candidates=1).images[0]
    prompt = tiny_pipeline.first_rows(first, 0.25)
    others = tiny_pipeline.generate(FOX, image=prompt, candidates=4, seed=9).images
    for image in others:
        assert np.array_equal(image.tokens[:1], first.tokens[:1])
    assert len({image.tokens[1:].tobytes() for image in others}) == 4


def test_a_stream_begins_below_the_kept_rows(
    picture: Image.Image, tiny_pipeline: TextToImage
) -> None:
    prompt = tiny_pipeline.read_image(picture, keep_rows=1)
    frames = list(tiny_pipeline.stream(FOX, image=prompt, candidates=2))
    assert [frame.rows_done for frame in frames] == [2, 3, 4]
    assert tiny_pipeline.frames(2, prompt) == 3
    assert frames[-1].result is not None
    whole = tiny_pipeline.generate(FOX, image=prompt, candidates=2).images
    assert [one.image.tobytes() for one in frames[-1].result.images] == [
        one.image.tobytes() for one in whole
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_rows": 4}, "keep_rows"),
        ({"keep_rows": 1.0}, "keep_rows"),
        ({"keep_rows": -1}, "keep_rows"),
        ({"layout": "bottom-half"}, "layout must be top-half or place-on-top"),
        ({"crop": "left"}, "crop must be center or top or pad"),
        ({"keep_row": 2}, "unknown sampling option 'keep_row'"),
    ],
)
def test_bad_settings_are_refused(
    options: dict[str, object], message: str, picture: Image.Image, tiny_pipeline: TextToImage
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tiny_pipeline.generate(FOX, image=picture, **options)  # type: ignore[arg-type]


def test_settings_of_a_picture_without_one_are_refused(tiny_pipeline: TextToImage) -> None:
    message = "keep_rows: that is how a given picture is read, and "
    with pytest.raises(ValueError, match=f"{message}none was given; pass image"):
        tiny_pipeline.generate(FOX, keep_rows=2)
    prompt = tiny_pipeline.read_image(Image.new("RGB", (16, 16)))
    with pytest.raises(ValueError, match=f"{message}this one has been read already; pass them to"):
        tiny_pipeline.generate(FOX, image=prompt, keep_rows=2)


def test_a_large_picture_has_the_same_tokens_by_whatever_way(tiny_pipeline: TextToImage) -> None:
    """Bug: looked at by itself it was not first reduced as a picture to go on from is."""
    noise = np.random.default_rng(2).integers(256, size=(1300, 1300, 3), dtype=np.uint8)
    large = Image.fromarray(noise)
    seen = tiny_pipeline.image_tokenizer.see(large).tokens
    kept = tiny_pipeline.read_image(large, keep_rows=3).tokens
    assert seen[:3].ravel().tolist() == kept.tolist()


def test_what_is_no_picture_is_refused(tiny_pipeline: TextToImage, tmp_path: Path) -> None:
    bad = tmp_path / "not-a-picture.png"
    bad.write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="is a GIF, not PNG, JPEG or WebP"):
        tiny_pipeline.generate(FOX, image=bad)
    with pytest.raises(DataError, match=r"missing\.png"):
        tiny_pipeline.generate(FOX, image=tmp_path / "missing.png")
