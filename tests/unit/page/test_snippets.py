"""Code to copy: it runs, and it draws the same pictures, whatever the caption says."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from dalle import GeneratedImage, TextToImage, flags, read_recipe
from dalle.cli import main
from dalle.config import Generate, SamplingConfig, WeightType
from dalle.page.settings import DrawSettings
from dalle.page.snippets import as_command_line, as_python
from dalle.prompts import normalise

NASTY = (
    "it's a \"fox\"", "a fox\\", "$(touch x) `touch x` ${HOME}", "--out=/tmp", "-rf", '"""', "{x}",
    "a\nfox\t\x1b[31m\x00", "🦊 狐 \u202e\u2028", "'; import os; os.abort() #", "%s {} \\N{BULLET}",
)  # fmt: skip
DTYPE: WeightType = "int8"
"""Not what any machine would choose by itself."""


def settings(**changes: Any) -> DrawSettings:
    sampling = SamplingConfig(temperature=0.7, top_k=9, top_p=0.9, guidance_scale=2.0)
    values: dict[str, Any] = {
        "caption": "a fox", "candidates": 3, "keep": 2, "seed": -7, "sampling": sampling,
    }  # fmt: skip
    return DrawSettings(**(values | changes))


def typed(command: str) -> Generate:
    """What `dalle generate` understands of a command line."""
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("dalle", "generate")
    return flags.parse(Generate, words, prog="dalle generate", positional="captions")


# ------------------------------------------------------------------------------------ commands


@hypothesis_settings(max_examples=25)
@given(st.text(max_size=40).filter(lambda text: bool(text.isprintable() and text.strip())))
def test_any_caption_survives_the_shell_and_python(caption: str) -> None:
    one = settings(caption=caption)
    assert typed(as_command_line(one, DTYPE)).captions == (caption,)
    compile(as_python(one, DTYPE), "snippet", "exec")


@pytest.mark.parametrize("caption", NASTY)
def test_a_command_is_one_line_that_means_the_caption(caption: str) -> None:
    command = as_command_line(settings(caption=caption), DTYPE)
    assert normalise(typed(command).captions[0]) == normalise(caption)
    assert not any(ord(character) < 32 for character in command), "nothing steers a terminal"


def test_a_real_shell_reads_the_same(tmp_path: Path) -> None:
    """`echo` stands for `dalle`; nothing in a caption runs."""
    for caption in NASTY:
        command = as_command_line(settings(caption=caption), DTYPE)
        script = 'dalle() { for word; do printf "%s\\0" "$word"; done; }; ' + command
        run = subprocess.run(["sh", "-c", script], capture_output=True, cwd=tmp_path, check=True)
        assert run.stdout.decode().split("\0")[:-1] == shlex.split(command)[1:]
    assert not list(tmp_path.iterdir())


def test_a_command_holds_every_setting() -> None:
    one = settings(ranker="likelihood", model="my models/x")
    found = typed(as_command_line(one, DTYPE))
    assert found == Generate(
        captions=("a fox",), model="my models/x", candidates=3, keep=2, seed=-7, temperature=0.7,
        top_k=9, top_p=0.9, guidance_scale=2.0, ranker="likelihood", dtype=DTYPE,
    )  # fmt: skip
    one = settings(sampling=SamplingConfig())
    assert typed(as_command_line(one, DTYPE)).top_k == 0, "not the model's"


@pytest.mark.parametrize(("keep_rows", "rows"), [(0.25, 0.25), (3, 3), (0, 0)])
def test_a_command_names_the_given_picture(keep_rows: float | int, rows: float | int) -> None:
    one = settings(
        caption=None, image="-my fox's.png", keep_rows=keep_rows, layout="top-half", crop="pad"
    )
    found = typed(as_command_line(one, DTYPE))
    assert (found.captions, found.image, found.crop) == ((), Path("-my fox's.png"), "pad")
    assert (found.rows, type(found.rows)) == (rows, type(rows))
    assert found.prompt_layout == "top-half"
    found = typed(as_command_line(settings(vary="own.png", keep_rows=keep_rows), DTYPE))
    assert (found.vary, found.rows, found.captions) == (Path("own.png"), rows, ())


def test_a_command_names_the_region_that_is_drawn() -> None:
    region = (0.0, 0.25, 0.5, 1.0)
    found = typed(as_command_line(settings(image="fox.png", region=region, crop="pad"), DTYPE))
    assert (found.image, found.region, found.crop) == (Path("fox.png"), region, "pad")
    found = typed(as_command_line(settings(vary="own.png", region=region), DTYPE))
    assert (found.vary, found.region, found.rows) == (Path("own.png"), region, None)
    program = as_python(settings(vary="own.png", region=region), DTYPE)
    assert "kept = model.all_but(earlier, (0.0, 0.25, 0.5, 1.0))" in program
    assert "region=(0.0, 0.25, 0.5, 1.0)" in as_python(
        settings(image="a.png", region=region), DTYPE
    )


# ------------------------------------------------------------------------------- what they draw


def drawn(folder: Path) -> dict[tuple[str, int], bytes]:
    """Pixels of every picture in a folder that knows its settings, by caption and number."""
    found = {}
    for path in folder.glob("*.png"):
        if path.name.startswith(("sheet-", "prompt-", "given", "own")):
            continue
        recipe = read_recipe(path)
        with Image.open(path) as image:
            found[normalise(recipe.caption), recipe.index] = image.tobytes()
    return found


def expected(images: tuple[GeneratedImage, ...]) -> dict[tuple[str, int], bytes]:
    return {
        (normalise(image.recipe.caption), image.recipe.index): image.image.tobytes()
        for image in images
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, as a person would run a snippet in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_both(
    one: DrawSettings, folder: Path, dtype: WeightType = "fp32"
) -> tuple[dict[Any, bytes], dict[Any, bytes]]:
    """What the program and the command draw."""
    exec(compile(as_python(one, dtype), "snippet", "exec"), {"__name__": "__main__"})
    by_python = drawn(folder)
    _, verb, *words = shlex.split(as_command_line(one, dtype))
    assert main([verb, "--out=by-command", *words]) == 0
    return by_python, drawn(folder / "by-command")


@pytest.mark.parametrize("caption", ["a fox", NASTY[2], NASTY[7], NASTY[9]])
def test_both_draw_the_pictures_of_the_page(
    tiny_model: Path, tiny_pipeline: TextToImage, folder: Path, caption: str
) -> None:
    one = settings(caption=caption, model=str(tiny_model))
    wanted = expected(tiny_pipeline.generate(one.caption, **one.options()).images)
    assert len(wanted) == 2
    assert run_both(one, folder) == (wanted, wanted)


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_both_draw_in_the_type_of_weights_that_drew_the_pictures(
    tiny_model: Path, folder: Path, dtype: WeightType
) -> None:
    """They once named none, so a machine that chose another by itself drew other pictures."""
    one = settings(model=str(tiny_model))
    model = TextToImage.from_pretrained(tiny_model, dtype=dtype)
    wanted = expected(model.generate(one.caption, **one.options()).images)
    assert run_both(one, folder, dtype) == (wanted, wanted)
    assert {read_recipe(path).dtype for path in folder.rglob("picture-*.png")} == {dtype}
    assert {read_recipe(path).dtype for path in folder.glob("by-command/a-fox*.png")} == {dtype}


@pytest.mark.parametrize("layout", ["top-half", "place-on-top"])
def test_both_go_on_from_a_given_picture(
    tiny_model: Path, tiny_pipeline: TextToImage, folder: Path, layout: Any
) -> None:
    Image.effect_noise((64, 40), 90).convert("RGB").save(folder / "given fox.png")
    one = settings(
        caption=None, image="given fox.png", keep_rows=2, layout=layout, model=str(tiny_model)
    )
    wanted = expected(
        tiny_pipeline.generate(None, image=folder / "given fox.png", **one.options()).images
    )
    assert run_both(one, folder) == (wanted, wanted)


def test_both_vary_one_of_the_models_own_pictures(
    tiny_model: Path, tiny_pipeline: TextToImage, folder: Path
) -> None:
    own = tiny_pipeline.generate("two apples", candidates=1, seed=3).images[0]
    own.save(folder / "own.png")
    one = settings(caption="two apples", vary="own.png", keep_rows=0.25, model=str(tiny_model))
    rows = tiny_pipeline.first_rows(own, 0.25)
    wanted = expected(tiny_pipeline.generate("two apples", image=rows, **one.options()).images)
    assert run_both(one, folder) == (wanted, wanted)
