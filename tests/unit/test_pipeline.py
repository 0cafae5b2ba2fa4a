"""Captions in, pictures out: what a picture depends on, and what it does not."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dalle import TextToImage, read_recipe
from dalle.checkpoint import load_model
from dalle.sequence import pad_caption
from tests.unit.comparing import APPLES, FOX, ROBOT, by_index, tokens_of
from vae.pixels import to_image_u8

# ---------------------------------------------------------------------------------- what comes back


def test_every_caption_has_its_result_best_first(tiny_pipeline: TextToImage) -> None:
    everything = tiny_pipeline.generate([FOX, APPLES], candidates=9)
    best = tiny_pipeline.generate([FOX, APPLES], candidates=9, keep=3)
    assert [result.caption for result in best.results] == [FOX, APPLES]
    for all_of_it, kept in zip(everything.results, best.results, strict=True):
        assert sorted(image.recipe.index for image in all_of_it.images) == list(range(9))
        scores = [image.log_likelihood for image in all_of_it.images]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) > 1
        assert by_index(kept.images) == by_index(all_of_it.images[:3])
    assert best.images == best.results[0].images + best.results[1].images


def test_a_picture_is_what_the_dvae_makes_of_its_tokens(
    tiny_pipeline: TextToImage, tiny_model: Path
) -> None:
    vae = load_model(tiny_model).vae
    for image in tiny_pipeline.generate(FOX, candidates=3).images:
        assert image.tokens.shape == (4, 4)
        with torch.inference_mode():
            expected = to_image_u8(vae.decode(torch.from_numpy(image.tokens)[None]))[0]
        assert image.image.size == (16, 16) == tiny_pipeline.image_px
        assert image.image.mode == "RGB"
        # One picture and a batch of three may round differently, by one level at most.
        assert np.abs(np.asarray(image.image).astype(int) - expected).max() <= 1


def test_the_score_is_the_mean_log_probability_of_the_tokens(
    tiny_pipeline: TextToImage, tiny_model: Path
) -> None:
    """By one plain forward pass, at temperature 1 and without guidance, whatever was drawn with."""
    parts = load_model(tiny_model)
    sequence = parts.transformer.sequence
    ids, was_cut = parts.tokenizer.fit(parts.tokenizer.encode(FOX), sequence.text_len)
    assert not was_cut
    text_ids = pad_caption(ids, sequence)[None]
    images = tiny_pipeline.generate(FOX, candidates=4, temperature=0.5, guidance_scale=3).images
    for image in images:
        tokens = torch.from_numpy(image.tokens).reshape(1, -1)
        with torch.inference_mode():
            logits = parts.transformer(text_ids, tokens).image
        chosen = logits.log_softmax(-1).gather(-1, tokens[..., None])
        assert image.score == image.log_likelihood == pytest.approx(float(chosen.mean()), abs=1e-4)
        assert image.ranker == "likelihood"


def test_what_the_model_recommends_holds_unless_changed(tiny_pipeline: TextToImage) -> None:
    assert tiny_pipeline.sampling.temperature == 0.9
    image = tiny_pipeline.generate(FOX, candidates=1, top_p=0.5).images[0]
    assert image.recipe.sampling == dataclasses.replace(tiny_pipeline.sampling, top_p=0.5)


def test_results_can_be_compared_counted_and_looked_up(tiny_pipeline: TextToImage) -> None:
    """Comparing two equal pictures once ended in numpy's word on arrays without a truth value."""
    one, other = (tiny_pipeline.generate(FOX, candidates=2, seed=1) for _ in range(2))
    assert one.images[1] in one.images
    assert one.images.index(one.images[1]) == 1
    assert len({*one.images, *other.images}) == 4
    assert one == one
    begun = tiny_pipeline.generate(FOX, image=one.images[0].image, keep_rows=1, candidates=1)
    assert {begun, begun.results[0], begun.results[0].prompt} >= {begun}
    assert one != other, "another drawing, though of the same pixels"
    assert tiny_pipeline.first_rows(one.images[0]) != tiny_pipeline.first_rows(one.images[0])


def test_no_candidate_has_no_frames(tiny_pipeline: TextToImage) -> None:
    with pytest.raises(ValueError, match="candidates must be at least 1, got 0"):
        tiny_pipeline.frames(0)


def test_candidates_that_tie_stay_in_order(tiny_pipeline: TextToImage) -> None:
    images = tiny_pipeline.generate(FOX, candidates=6, temperature=0).images
    assert len({image.tokens.tobytes() for image in images}) == 1
    assert [image.recipe.index for image in images] == list(range(6))


# ------------------------------------------------------------------------ what a picture depends on


def test_numbers_of_numpy_are_numbers(tiny_pipeline: TextToImage) -> None:
    """They were once refused as "no whole number", and candidates and seed were not."""
    options: dict[str, Any] = {
        "candidates": np.int64(2), "seed": np.int32(3), "temperature": np.float32(0.5),
        "top_k": np.int64(5), "top_p": np.float64(0.9), "guidance_scale": np.int8(2),
    }  # fmt: skip
    plain = {"candidates": 2, "seed": 3, "temperature": 0.5, "top_k": 5, "top_p": 0.9}
    found = tiny_pipeline.generate(FOX, **options)
    assert by_index(found.images) == by_index(
        tiny_pipeline.generate(FOX, **plain, guidance_scale=2).images  # type: ignore[arg-type]
    )
    assert read_recipe(found.images[0].png()) == found.images[0].recipe


def test_a_picture_is_the_same_for_17_and_for_32_candidates(wide_pipeline: TextToImage) -> None:
    few = by_index(wide_pipeline.generate(FOX, candidates=17, seed=3).images)
    many = by_index(wide_pipeline.generate(FOX, candidates=32, seed=3).images)
    assert sorted(few) == list(range(17))
    assert few == {index: many[index] for index in range(17)}
    assert len({tuple(tokens) for tokens, *_ in many.values()}) > 16, "candidates differ"


def test_a_caption_is_drawn_alike_alone_and_in_any_list(tiny_pipeline: TextToImage) -> None:
    alone = by_index(tiny_pipeline.generate(FOX, candidates=5).images)
    for captions in ([FOX, APPLES, ROBOT], [ROBOT, APPLES, FOX], [FOX, FOX]):
        results = tiny_pipeline.generate(captions, candidates=5).results
        assert [result.caption for result in results] == captions
        assert by_index(results[captions.index(FOX)].images) == alone


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"temperature": 2.0}, {"top_k": 1}, {"top_p": 0.1}, {"guidance_scale": 0.0}],
    ids=str,
)
def test_seed_and_settings_change_the_picture(
    change: dict[str, Any], tiny_pipeline: TextToImage
) -> None:
    plain: dict[str, Any] = {"seed": 0, "temperature": 1.0, "guidance_scale": 1.0}
    before = by_index(tiny_pipeline.generate(FOX, candidates=4, **plain).images)
    after = by_index(tiny_pipeline.generate(FOX, candidates=4, **{**plain, **change}).images)
    assert before != after
    again = by_index(tiny_pipeline.generate(FOX, candidates=4, **{**plain, **change}).images)
    assert again == after


def test_the_caption_changes_the_picture_but_its_spelling_does_not(
    tiny_pipeline: TextToImage,
) -> None:
    fox = by_index(tiny_pipeline.generate(FOX, candidates=2, temperature=0).images)
    assert by_index(tiny_pipeline.generate(ROBOT, candidates=2, temperature=0).images) != fox
    shouted = tiny_pipeline.generate(f"  {FOX.upper()}\n", candidates=2, temperature=0)
    assert by_index(shouted.images) == fox


def test_the_state_of_torch_is_neither_read_nor_changed(tiny_pipeline: TextToImage) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = by_index(tiny_pipeline.generate(FOX, candidates=2).images)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert by_index(tiny_pipeline.generate(FOX, candidates=2).images) == first


def test_two_threads_draw_what_one_draws(tiny_pipeline: TextToImage) -> None:
    def work(caption: str, into: dict[str, object]) -> None:
        frames = list(tiny_pipeline.stream(caption, candidates=20, seed=5))
        assert frames[-1].result is not None
        into[caption] = by_index(frames[-1].result.images)

    one_after_the_other: dict[str, object] = {}
    for caption in (FOX, APPLES):
        work(caption, one_after_the_other)
    at_once: dict[str, object] = {}
    threads = [threading.Thread(target=work, args=(name, at_once)) for name in (FOX, APPLES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert at_once == one_after_the_other


# -------------------------------------------------------------------------------------- at the door


def test_wrong_settings_are_refused_at_the_call(tiny_pipeline: TextToImage) -> None:
    """Before the first result is asked for; test_request.py has the whole list."""
    for verb in (tiny_pipeline.generate, tiny_pipeline.generate_many, tiny_pipeline.stream):
        with pytest.raises(ValueError, match="candidates must be between 1 and 4,096, got 0"):
            verb(FOX, candidates=0)
        with pytest.raises(TypeError, match="unknown sampling option 'guidence'"):
            verb(FOX, guidence=2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("caption", "message"),
    [("", "empty"), ("\t\x00", "empty"), ("x" * 100_000, "100,000"), ("\udcff", "U\\+DCFF"),
     (b"a fox", "must be a string, got bytes")],
)  # fmt: skip
def test_wrong_captions_are_refused_at_the_call(
    caption: Any, message: str, tiny_pipeline: TextToImage
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tiny_pipeline.generate([FOX, caption])
    with pytest.raises((ValueError, TypeError), match=message):
        tiny_pipeline.stream(caption)


def test_only_none_by_itself_is_the_null_caption(tiny_pipeline: TextToImage) -> None:
    """Bug: a gap in a list of captions was drawn as whatever comes to mind."""
    with pytest.raises(TypeError, match="must be a string, got NoneType"):
        tiny_pipeline.generate([FOX, None])  # type: ignore[list-item]
    assert tiny_pipeline.generate(None, candidates=1).results[0].caption == ""


def test_a_long_caption_is_cut_with_a_notice(
    tiny_pipeline: TextToImage, caplog: pytest.LogCaptureFixture
) -> None:
    long = " ".join([FOX] * 20)
    with caplog.at_level(logging.WARNING, logger="dalle"):
        result = tiny_pipeline.generate(long, candidates=2, temperature=0).results[0]
    assert result.notice is not None
    assert result.notice.startswith("only the first 12 tokens of the caption are used: 'a fox on a")
    assert caplog.messages == [result.notice]
    assert result.caption == result.images[0].recipe.caption == long
    assert tiny_pipeline.generate(FOX, candidates=1).results[0].notice is None
    longer = tiny_pipeline.generate(f"{long} pizza", candidates=2, temperature=0).results[0]
    assert tokens_of(longer) == tokens_of(result), "what is cut off has no say"
