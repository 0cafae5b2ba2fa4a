"""Whole pictures by every way to draw: what is chosen, what is remembered, what stays the same."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dalle import Recipe, TextToImage, read_recipe
from dalle.cli import main
from dalle.config import Dtype, WeightType
from dalle.drawing import DrawBatch, Drawer
from dalle.engine import COMPILED_MICROBATCH, GPU_MICROBATCH, Engine, Engines
from dalle.graph_decoder import GraphDecoder
from dalle.linear_layers import MICROBATCH
from dalle.native.build import load_library
from dalle.picture import GeneratedImage, _recipe
from dalle.sampling import Drawn

CAPTIONS = ["a fox on a blue background", "two apples", "a pizza"]


def same(left: GeneratedImage, right: GeneratedImage) -> bool:
    return bool(
        np.array_equal(left.tokens, right.tokens)
        and left.log_likelihood == right.log_likelihood
        and left.image.tobytes() == right.image.tobytes()
    )


def engine_of(transformer: TextToImage, dtype: WeightType, *, compiled: bool) -> Engine:
    return transformer._drawer.engines.exactly(dtype, compiled=compiled)


def test_microbatches_of_torch_have_one_size(tiny_pipeline: TextToImage) -> None:
    engine = engine_of(tiny_pipeline, "fp32", compiled=False)
    assert engine.microbatches(5) == [range(5)]
    assert engine.microbatches(20) == [range(16), range(16, 32)]
    assert [engine.together(n) for n in (1, 5, 16, 20)] == [MICROBATCH, 3, 1, 1]


@pytest.mark.usefixtures("library")
def test_what_stands_beside_a_caption_leaves_no_mark_in_its_picture(tiny_model: Path) -> None:
    """Bug: with another line in the file, the same pictures came under other names."""
    model = TextToImage.from_pretrained(tiny_model, device="cpu")
    alone = model.generate(CAPTIONS[0], candidates=2).images
    beside = model.generate(CAPTIONS, candidates=2).results[0].images
    assert [image.png() for image in beside] == [image.png() for image in alone]


@pytest.mark.usefixtures("library")
def test_compiled_microbatches_are_large_and_even(tiny_pipeline: TextToImage) -> None:
    engine = engine_of(tiny_pipeline, "fp32", compiled=True)
    for candidates in (1, 64, 65, 100, 512, 4096):
        batches = engine.microbatches(candidates)
        assert {len(batch) for batch in batches} == {len(batches[0])}
        assert len(batches) == -(-candidates // COMPILED_MICROBATCH), "no more than needed"
        assert candidates <= batches[-1].stop < candidates + len(batches)


@pytest.mark.parametrize("dtype", ["auto", "fp32", "bf16", "int8"])
def test_without_a_compiled_step_torch_draws(dtype: Dtype, tiny_pipeline: TextToImage) -> None:
    assert load_library() is None
    chosen = tiny_pipeline._drawer.engines.preferred(dtype, compile=False)
    assert not chosen.compiled
    if dtype != "auto":
        assert chosen.dtype == dtype


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_auto_without_a_compiled_step_is_bf16_where_the_processor_has_it(
    has_bf16: bool, dtype: Dtype, tiny_pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    chosen = tiny_pipeline._drawer.engines.preferred("auto", compile=False)
    assert (chosen.dtype, chosen.compiled) == (dtype, False)


@pytest.mark.usefixtures("library")
def test_where_it_is_compiled_it_draws_in_bf16(tiny_model: Path) -> None:
    model = TextToImage.from_pretrained(tiny_model, device="cpu")
    recipe = model.generate("a pizza", candidates=1).images[0].recipe
    assert (recipe.dtype, recipe.compiled) == ("bf16", True)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_a_recipe_brings_the_picture_back(
    dtype: WeightType, compiled: bool, tiny_model: Path, request: pytest.FixtureRequest
) -> None:
    """Also from a model that draws otherwise; and after a way through a file."""
    if compiled:
        request.getfixturevalue("library")
    model = TextToImage.from_pretrained(tiny_model, device="cpu", dtype=dtype)
    other = TextToImage.from_pretrained(tiny_model, device="cpu", dtype="fp32")
    for picture in model.generate(CAPTIONS[:2], candidates=18, keep=3, seed=5).images:
        assert (picture.recipe.dtype, picture.recipe.compiled) == (dtype, compiled)
        stored = read_recipe(picture.png())
        assert stored == picture.recipe
        assert same(other.redraw(stored), picture)


@pytest.mark.parametrize("compiled", [False, True])
def test_captions_of_one_call_are_drawn_together_where_none_sways_another(
    compiled: bool,
    tiny_model: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together: list[int] = []
    draw = Drawer.draw

    def noted(self: Drawer, batch: DrawBatch) -> Iterator[Drawn]:
        together.append(len(batch.captions))
        return draw(self, batch)

    monkeypatch.setattr(Drawer, "draw", noted)
    if compiled:
        request.getfixturevalue("library")
    model = TextToImage.from_pretrained(tiny_model, device="cpu")
    results = model.generate(CAPTIONS, candidates=2, seed=4).results
    assert [result.caption for result in results] == CAPTIONS
    assert together == ([3] if compiled else [1, 1, 1])
    for caption, result in zip(CAPTIONS, results, strict=True):
        for image, alone in zip(
            result.images, model.generate(caption, candidates=2, seed=4).images, strict=True
        ):
            assert same(image, alone)
            assert image.recipe == alone.recipe


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_compiled_tokens_depend_on_nothing_beside_them(dtype: WeightType, tiny_model: Path) -> None:
    """Other than torch's, whose rounding depends on the size of a batch."""
    model = TextToImage.from_pretrained(tiny_model, device="cpu", dtype=dtype)
    many = {
        (caption, image.recipe.index): image
        for caption in CAPTIONS
        for image in model.generate(caption, candidates=70, seed=3, ranker="none").images
    }
    for candidates in (1, 5, 33):
        for result in model.generate_many(CAPTIONS, candidates=candidates, seed=3, ranker="none"):
            for image in result.images:  # type: ignore[union-attr]
                expected = many[image.recipe.caption, image.recipe.index]
                assert np.array_equal(image.tokens, expected.tokens)
                assert image.log_likelihood == expected.log_likelihood


@pytest.mark.usefixtures("library")
def test_fp32_draws_the_pictures_of_torch(tiny_model: Path, tiny_pipeline: TextToImage) -> None:
    model = TextToImage.from_pretrained(tiny_model, device="cpu", dtype="fp32")
    options = {"candidates": 3, "seed": 9, "temperature": 0.0}
    fast = model.generate(CAPTIONS, **options)  # type: ignore[arg-type]
    plain = tiny_pipeline.generate(CAPTIONS, **options)  # type: ignore[arg-type]
    for left, right in zip(fast.images, plain.images, strict=True):
        assert np.array_equal(left.tokens, right.tokens)


def test_a_compiled_picture_without_the_step_is_drawn_with_a_warning(
    tiny_pipeline: TextToImage, caplog: pytest.LogCaptureFixture
) -> None:
    picture = tiny_pipeline.generate("a pizza", candidates=2, ranker="none").images[0]
    recipe = dataclasses.replace(picture.recipe, compiled=True)
    with caplog.at_level(logging.WARNING):
        redrawn = tiny_pipeline.redraw(recipe)
    assert "not at hand" in caplog.text
    assert not redrawn.recipe.compiled
    assert np.array_equal(redrawn.tokens, picture.tokens)


def parameters(recipe: Recipe) -> dict[str, object]:
    return {
        "format_version": 1,
        **json.loads(json.dumps(dataclasses.asdict(recipe))),
    }


def test_pictures_of_before_were_drawn_by_torch_in_fp32(tiny_pipeline: TextToImage) -> None:
    recipe = tiny_pipeline.generate("a pizza", candidates=1).images[0].recipe
    values = parameters(recipe)
    del values["dtype"], values["compiled"]
    assert _recipe(values) == recipe
    for change, message in (
        ({"dtype": "fp8"}, "dtype must be one of fp32, bf16, int8, got 'fp8'"),
        ({"compiled": 1}, "compiled must be true or false, got 1"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            _recipe(parameters(recipe) | change)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_a_gpu_records_its_steps(dtype: WeightType, tiny_pipeline: TextToImage) -> None:
    """Chosen without a GPU: "meta" stands for any device that is no processor."""
    transformer = copy.deepcopy(tiny_pipeline._drawer.transformer).to("meta")
    for compile in (False, True):
        engine = Engines(transformer, torch.device("meta")).preferred(dtype, compile=compile)
        assert (engine.dtype, engine.compiled) == (dtype, compile)
        assert isinstance(engine.decoder, GraphDecoder)
        assert [len(batch) for batch in engine.microbatches(100)] == [GPU_MICROBATCH] * 2


def test_the_command_line_chooses(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "a pizza", "--model", str(tiny_model), "--candidates", "1", "--json"]
    assert main(["--quiet", *words, "true", "--dtype", "int8", "--out", str(tmp_path)]) == 0
    (file,) = (
        Path(i["file"]) for i in json.loads(capsys.readouterr().out)["captions"][0]["images"]
    )
    assert read_recipe(file).dtype == "int8"
    assert main(["generate", "--like", str(file), "--dtype", "bf16"]) == 2
    assert "--dtype bf16 would change nothing" in capsys.readouterr().err
