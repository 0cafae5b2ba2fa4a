"""Whole pictures by every way to draw: what is chosen, what is remembered, what stays the same."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import logging
import os
import platform
import shlex
import shutil
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
from dalle.native import build
from dalle.native.build import BuildError, compile_library, load_library
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


def test_without_a_home_drawing_goes_on_without_the_compiled_step(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """Bug: nothing was drawn where a container's user is nobody."""
    for name in ("HOME", "XDG_CACHE_HOME", "DALLE_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: int) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    load_library.cache_clear()
    try:
        assert load_library() is None
        assert TextToImage.from_pretrained(tiny_model, device="cpu").generate("a fox").images
        with pytest.raises(BuildError, match=r"no home folder .*DALLE_CACHE"):
            compile_library()
    finally:
        load_library.cache_clear()


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


# -------------------------------------------------------------------------------------- compiling


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DALLE_CACHE", str(tmp_path / "cache"))
    load_library.cache_clear()
    return tmp_path / "cache"


def test_a_missing_compiler_is_named(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="CXX names 'no-such-compiler', which is none here"):
        compile_library()
    monkeypatch.setenv("CXX", "g++ 'never closed")
    with pytest.raises(BuildError, match="CXX names"):
        compile_library()
    assert load_library() is None
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(empty_cache))
    if importlib.util.find_spec("ziglang") is None:
        with pytest.raises(BuildError, match="compiler and there is none; install one"):
            compile_library()


def test_pips_compiler_serves_where_the_system_has_none(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    systems = shutil.which("g++") or shutil.which("c++")
    if systems is None:
        pytest.skip("there is no C++ compiler to stand behind pip's")
    package = tmp_path / "ziglang"
    package.mkdir()
    (package / "__init__.py").touch()
    # Its two commands that are used, as Zig spells them; "zig c++" keeps caches where it is told.
    # What is compiled is not the matter here, so that it need not be fast.
    (package / "zig").write_text(
        f"""#!/bin/sh
        test -d "$ZIG_GLOBAL_CACHE_DIR" && test -d "$ZIG_LOCAL_CACHE_DIR" || exit 3
        case "$1" in c++|ld.lld) shift; PATH={os.environ["PATH"]} exec {systems} "$@" -O0;; esac
        exit 4""",
        encoding="utf-8",
    )
    (package / "zig").chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert load_library() is None
    library = compile_library()
    assert library.parent == empty_cache
    assert load_library() is not None
    assert sorted(file.suffix for file in empty_cache.iterdir()) == [".sha256", ".so"]
    load_library.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="matrix units of x86")
def test_matrix_units_that_the_system_forbids_are_left_out(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bug: it was told to delete the library and compile again, which made the same one.

    A processor without such units forbids them as a sandbox does.
    """
    if (systems := shutil.which("g++")) is None:
        pytest.skip("there is no g++")
    wrapper = tmp_path / "g++-for-amx"
    # As -march=native is on processors that have them, until it is said not to be.
    has = "-mamx-tile -mamx-int8 -mamx-bf16 -mavx512f -mavx512bw -mavx512vl -mavx512bf16"
    units = f'case "$*" in *-mno-amx*) ;; *) set -- "$@" {has} -mavx512vnni;; esac'
    wrapper.write_text(f'#!/bin/sh\n{units}\nexec {systems} "$@" -O0\n', encoding="utf-8")
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    assert compile_library().parent == empty_cache
    assert load_library() is not None
    load_library.cache_clear()


def test_a_change_of_any_header_compiles_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "native"
    shutil.copytree(build.SOURCE.parent, folder)
    monkeypatch.setattr(build, "SOURCE", folder / "decode.cpp")
    names = {build._fingerprint.__wrapped__()}
    sources = [build.SOURCE, *folder.glob("*.h")]
    assert len(sources) > 5
    for source in sources:
        source.write_text(source.read_text(encoding="utf-8") + "// changed\n", encoding="utf-8")
        names.add(build._fingerprint.__wrapped__())
    assert len(names) == 1 + len(sources)


def test_a_failing_compiler_leaves_nothing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BuildError, match="compiling the decode step failed"):
        compile_library()
    assert list(empty_cache.iterdir()) == []


@pytest.fixture
def remembering(compiled_cache: str, tmp_path: Path) -> str:
    """A compiler that hands out what another made of the same source, as ccache does."""
    (made,) = Path(compiled_cache).glob("*.so")
    program = tmp_path / "remembering"
    last = "for word; do :; done"  # the file to write is named last
    program.write_text(f'#!/bin/sh\n{last}\nexec cp "{made}" "$word"\n', encoding="utf-8")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("damage", ["cut", "longer", "no sum", "no text for a sum"])
def test_a_damaged_library_is_left_aside_and_made_anew(
    remembering: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, damage: str,
) -> None:  # fmt: skip
    """Compiling once found that there was one already, so that nothing ever repaired it."""
    monkeypatch.setenv("CXX", remembering)
    library = compile_library()
    digest = library.with_suffix(".sha256")
    if damage == "no sum":
        digest.unlink()
    elif damage == "no text for a sum":
        digest.write_bytes(b"\xff")
    else:
        content = library.read_bytes()
        library.write_bytes(content[:1000] if damage == "cut" else content + b"x")
    load_library.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert load_library() is None
    assert "is damaged; `python -m dalle.native` or --compile true makes it anew" in caplog.text
    assert compile_library() == library
    assert load_library() is not None
    load_library.cache_clear()


@pytest.mark.parametrize("later", ["", "no-such-compiler"])
def test_what_was_compiled_is_used_without_its_compiler(
    compiled_cache: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, later: str
) -> None:
    """A slim image, or another CXX, once meant drawing slowly without a word."""
    monkeypatch.setenv("DALLE_CACHE", compiled_cache)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", later)
    load_library.cache_clear()
    assert load_library() is not None
    monkeypatch.setattr(build, "_fingerprint", lambda: "0" * 16)  # of another source or processor
    load_library.cache_clear()
    assert load_library() is None
    load_library.cache_clear()


def test_a_compiler_may_be_named_with_arguments(
    compiled_cache: str, remembering: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "ccache g++" was taken for the name of one program, which there is not."""
    monkeypatch.setenv("CXX", f"env DALLE_TEST=1 {shlex.quote(remembering)} -DNDEBUG")
    library = compile_library()
    assert library.parent == empty_cache
    (other,) = Path(compiled_cache).glob("*.so")
    assert library.name != other.name, "another command, other code"
    shutil.copy(other, empty_cache)
    shutil.copy(other.with_suffix(".sha256"), empty_cache)
    found = load_library()
    assert found is not None
    assert found._name == str(library), "its own comes first"
    load_library.cache_clear()


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
