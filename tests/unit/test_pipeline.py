"""Captions in, pictures out: what a picture depends on, and what it does not."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dalle import CaptionFailure, CaptionResult, DalleError, GeneratedImage, TextToImage
from dalle.attention import KVCache
from dalle.checkpoint import load_model
from dalle.drawing import UNDRAWN
from dalle.engine import MICROBATCH
from dalle.model_config import TransformerConfig
from dalle.sequence import pad_caption
from dalle.transformer import JointTransformer
from vae.pixels import to_image_u8

FOX, APPLES, ROBOT = "a fox on a blue background", "two apples", "a robot above a car"
MANY = [f"a fox no. {number}" for number in range(40)]


@pytest.fixture(scope="module")
def wide_pipeline(tiny_model: Path) -> TextToImage:
    """The tiny model with a wider transformer: products of this width round by their batch size."""
    parts = load_model(tiny_model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = TransformerConfig(width=256, layers=1, heads=4)
        wide = JointTransformer(parts.transformer.sequence, config)
    return TextToImage(dataclasses.replace(parts, transformer=wide), device="cpu")


def by_index(images: Iterable[GeneratedImage]) -> dict[int, tuple[list[int], bytes, float]]:
    """Tokens, pixels and score of each candidate; the score tells the smallest rounding."""
    return {
        image.recipe.index: (
            image.tokens.ravel().tolist(),
            image.image.tobytes(),
            image.log_likelihood,
        )
        for image in images
    }


def tokens_of(outcome: CaptionResult | CaptionFailure) -> list[list[int]]:
    assert isinstance(outcome, CaptionResult), outcome
    return [image.tokens.ravel().tolist() for image in outcome.images]


# --------------------------------------------------------------------------------- what comes back


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


def test_candidates_that_tie_stay_in_order(tiny_pipeline: TextToImage) -> None:
    images = tiny_pipeline.generate(FOX, candidates=6, temperature=0).images
    assert len({image.tokens.tobytes() for image in images}) == 1
    assert [image.recipe.index for image in images] == list(range(6))


# ------------------------------------------------------------------------ what a picture depends on


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


# ------------------------------------------------------------------------------------ many captions


class Counted:
    """Captions that count how many have been taken."""

    def __init__(self, captions: Iterable[str]) -> None:
        self.captions = captions
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        for caption in self.captions:
            self.taken += 1
            yield caption


@pytest.mark.parametrize(("candidates", "ahead"), [(1, 16), (4, 4), (5, 3), (16, 1), (20, 1)])
def test_captions_are_taken_as_they_are_needed(
    candidates: int, ahead: int, tiny_pipeline: TextToImage
) -> None:
    captions = Counted(MANY)
    results = tiny_pipeline.generate_many(captions, candidates=candidates)
    assert captions.taken == 0
    for done, _ in enumerate(results, start=1):
        assert done <= captions.taken <= done + ahead - 1
        if done == 9:
            break
    else:
        pytest.fail("there are more than nine captions")


def test_a_run_of_bad_captions_does_not_pile_up(tiny_pipeline: TextToImage) -> None:
    captions = Counted([""] * 1000)
    failure = next(tiny_pipeline.generate_many(captions))
    assert isinstance(failure, CaptionFailure)
    assert captions.taken <= 4 * MICROBATCH


@pytest.mark.parametrize("candidates", [1, 3, 17])
def test_many_captions_are_drawn_as_each_alone(candidates: int, tiny_pipeline: TextToImage) -> None:
    captions = MANY[:19]
    many = list(tiny_pipeline.generate_many(captions, candidates=candidates, seed=2))
    assert [outcome.caption for outcome in many] == captions
    for caption, outcome in zip(captions, many, strict=True):
        alone = tiny_pipeline.generate(caption, candidates=candidates, seed=2).results[0]
        assert tokens_of(outcome) == tokens_of(alone)


def test_a_bad_caption_harms_nobody(tiny_pipeline: TextToImage) -> None:
    mixed: list[Any] = [FOX, "", APPLES, 7, "\ud800", "x" * 100_000, None, ROBOT, " \n\x00 "]
    outcomes = list(tiny_pipeline.generate_many(mixed, seed=4))
    assert [outcome.caption for outcome in outcomes] == mixed
    good = list(tiny_pipeline.generate_many([FOX, APPLES, ROBOT], seed=4))
    assert [tokens_of(outcomes[number]) for number in (0, 2, 7)] == list(map(tokens_of, good))
    errors = [entry.error for entry in outcomes if isinstance(entry, CaptionFailure)]
    for error, part in zip(
        errors,
        ("must not be empty", "must be a string, got int", "lone surrogate U+D800",
         "at most 2,000 characters, got 100,000", "must be a string, got NoneType",
         "must not be empty"),
        strict=True,
    ):  # fmt: skip
        assert part in error


def test_one_string_is_one_caption(tiny_pipeline: TextToImage) -> None:
    """A string is iterable too: `generate_many("a fox")` once drew the letter a, then f, o, x."""
    assert [outcome.caption for outcome in tiny_pipeline.generate_many(FOX)] == [FOX]
    assert [outcome.caption for outcome in tiny_pipeline.generate(FOX, candidates=1).results] == [
        FOX
    ]


def test_no_captions_give_no_results(tiny_pipeline: TextToImage) -> None:
    assert tiny_pipeline.generate([]).results == ()
    assert list(tiny_pipeline.generate_many(iter([]))) == []


# ------------------------------------------------------------------------------------------- frames


def test_a_stream_shows_row_after_row_and_ends_with_the_pictures(
    tiny_pipeline: TextToImage,
) -> None:
    frames = list(tiny_pipeline.stream(FOX, candidates=18, keep=5, seed=6))
    assert len(frames) == tiny_pipeline.frames(18) == 8
    assert [frame.rows_done for frame in frames] == [1, 2, 3, 4] * 2
    assert [frame.first_candidate for frame in frames] == [0] * 4 + [16] * 4
    assert [len(frame.previews) for frame in frames] == [16] * 4 + [2] * 4
    assert all(frame.rows == 4 for frame in frames)
    assert all(frame.result is None for frame in frames[:-1])
    result = frames[-1].result
    assert result is not None
    generated = tiny_pipeline.generate(FOX, candidates=18, keep=5, seed=6).results[0]
    assert by_index(result.images) == by_index(generated.images)
    assert [image.recipe for image in result.images] == [image.recipe for image in generated.images]


def test_a_preview_is_grey_below_what_is_drawn(tiny_pipeline: TextToImage) -> None:
    frames = list(tiny_pipeline.stream(FOX, candidates=2))
    for frame in frames:
        edge = 4 * frame.rows_done
        for preview in frame.previews:
            assert preview.size == (16, 16)
            pixels = np.asarray(preview)
            assert (pixels[edge:] == UNDRAWN).all()
            assert len(np.unique(pixels[:edge].reshape(-1, 3), axis=0)) > 4, "a drawing, not grey"
    result = frames[-1].result
    assert result is not None
    finished = {image.recipe.index: image.image for image in result.images}
    assert [preview.tobytes() for preview in frames[-1].previews] == [
        finished[index].tobytes() for index in range(2)
    ]


def test_previews_can_be_left_out(tiny_pipeline: TextToImage) -> None:
    frames = list(tiny_pipeline.stream(FOX, candidates=2, previews=False))
    assert [frame.previews for frame in frames] == [()] * 4
    assert frames[-1].result is not None


def caches_alive() -> int:
    gc.collect()
    return sum(type(thing) is KVCache for thing in gc.get_objects())


def test_closing_a_stream_frees_its_memory(tiny_pipeline: TextToImage) -> None:
    assert caches_alive() == 0
    frames = tiny_pipeline.stream(FOX, candidates=16)
    next(frames)
    assert caches_alive() == 1
    assert inspect.isgenerator(frames)
    frames.close()
    assert caches_alive() == 0
    assert list(frames) == []


# ---------------------------------------------------------------------------------------- redrawing


@pytest.mark.parametrize(("candidates", "index"), [(1, 0), (3, 2), (16, 9), (21, 20)])
def test_a_recipe_gives_the_same_pixels_again(
    candidates: int, index: int, tiny_pipeline: TextToImage
) -> None:
    images = tiny_pipeline.generate(ROBOT, candidates=candidates, seed=-8, top_p=0.9).images
    wanted = next(image for image in images if image.recipe.index == index)
    again = tiny_pipeline.redraw(wanted.recipe)
    assert again.recipe == wanted.recipe
    assert by_index([again]) == by_index([wanted])


def test_a_recipe_from_a_batch_of_captions_gives_the_same_pixels_again(
    wide_pipeline: TextToImage,
) -> None:
    """Redrawing reads one caption 16 times, not 16 captions; the logits once rounded otherwise."""
    for outcome in wide_pipeline.generate_many(MANY[:20], seed=1):
        assert isinstance(outcome, CaptionResult)
        image = outcome.images[0]
        assert image.recipe.batch == (16, 1)
        again = wide_pipeline.redraw(image.recipe)
        assert by_index([again]) == by_index([image])


def test_another_models_recipe_is_refused(tiny_pipeline: TextToImage) -> None:
    recipe = tiny_pipeline.generate(FOX, candidates=1).images[0].recipe
    other = dataclasses.replace(recipe, model="0123456789abcdef")
    with pytest.raises(DalleError, match=r"drawn by model 0123456789abcdef, but this one is \w+"):
        tiny_pipeline.redraw(other)


# ------------------------------------------------------------------------------------ at the door


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
