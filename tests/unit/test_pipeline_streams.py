"""Many captions one after another, pictures that appear row by row, pictures drawn again."""

from __future__ import annotations

import dataclasses
import gc
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from dalle import CaptionFailure, CaptionResult, DalleError, TextToImage
from dalle.bag_cache import BagCache
from dalle.kv_cache import KVCache
from dalle.linear_layers import MICROBATCH
from dalle.previews import UNDRAWN
from tests.unit.comparing import APPLES, FOX, MANY, ROBOT, by_index, tokens_of

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


def test_captions_that_fail_midway_have_been_drawn_as_far_as_they_came(
    tiny_pipeline: TextToImage,
) -> None:
    """All captions that waited for others to be decoded with were lost with the error."""

    def source() -> Iterator[str]:
        yield FOX
        yield APPLES
        raise ConnectionError("the queue is gone")

    outcomes = tiny_pipeline.generate_many(source())
    assert [next(outcomes).caption for _ in range(2)] == [FOX, APPLES]
    with pytest.raises(ConnectionError, match="the queue is gone"):
        next(outcomes)


def test_a_run_of_bad_captions_does_not_pile_up(tiny_pipeline: TextToImage) -> None:
    captions = Counted([""] * 1000)
    failure = next(tiny_pipeline.generate_many(captions))
    assert isinstance(failure, CaptionFailure)
    assert captions.taken <= 4 * MICROBATCH


@pytest.mark.parametrize(("candidates", "count"), [(1, 19), (3, 7), (17, 3)])
def test_many_captions_are_drawn_as_each_alone(
    candidates: int, count: int, tiny_pipeline: TextToImage
) -> None:
    captions = MANY[:count]
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


def test_what_nobody_looks_at_is_not_decoded(
    tiny_pipeline: TextToImage, decoded: list[tuple[int, ...]]
) -> None:
    """Bug: all candidates were decoded after every row, though the page shows some rows of one."""
    frames = list(tiny_pipeline.stream(FOX, candidates=3))
    assert [shape[:2] for shape in decoded] == [(3, 4)], "the finished pictures"
    first, again = frames[1].preview, frames[1].preview
    assert first is again
    assert [shape[:2] for shape in decoded[1:]] == [(1, 2)]


def caches_alive() -> int:
    """How many caches there are among what was made since `gc.freeze`."""
    gc.collect()
    return sum(type(thing) in {KVCache, BagCache} for thing in gc.get_objects())


def test_closing_a_stream_frees_its_memory(tiny_pipeline: TextToImage) -> None:
    gc.freeze()  # looking through all that other tests have left takes seconds
    try:
        frames = tiny_pipeline.stream(FOX, candidates=16)
        next(frames)
        assert caches_alive() == 1
        assert inspect.isgenerator(frames)
        frames.close()
        assert caches_alive() == 0
        assert list(frames) == []
    finally:
        gc.unfreeze()


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
