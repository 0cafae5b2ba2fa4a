"""Pictures that are no squares, from training to completing, ranking and evaluating."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle import TextToImage
from dalle.cli import main
from dalle.config import DataConfig, Pack, Tokenize, TrainClip, TrainTransformer, TrainVae
from dalle.data.samples import open_samples
from dalle.data.tokens import TokenFolder
from dalle.model_config import TO_DRAW
from dalle.pack_command import run as pack
from dalle.train.runs import train_clip, train_transformer, train_vae
from dalle.train.tokenize import tokenize

HEIGHT, WIDTH = 16, 24
PICTURES = 30


@pytest.fixture(scope="module")
def landscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of half red, half blue, of several sizes: "red left", "blue left"."""
    folder = tmp_path_factory.mktemp("landscapes")
    for number in range(PICTURES):
        colours = ((220 - number, 20, 20), (20, 20, 220 - number))[:: 1 if number % 2 else -1]
        pixels = np.zeros((40 + number % 3, 66, 3), dtype=np.uint8)
        pixels[:, :33], pixels[:, 33:] = colours
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        caption = f"{'red' if number % 2 else 'blue'} left, number {number}"
        (folder / f"{number:02}.txt").write_text(caption)
    return folder


@pytest.fixture(scope="module")
def model(
    landscapes: Path,
    tmp_path_factory: pytest.TempPathFactory,
    vae_settings: Callable[..., TrainVae],
    transformer_settings: Callable[..., TrainTransformer],
    clip_settings: Callable[..., TrainClip],
) -> Path:
    """A model folder, trained on them through all stages."""
    base = tmp_path_factory.mktemp("rectangles")
    data = DataConfig(
        train=landscapes, image_px=HEIGHT, width_px=WIDTH, heldout_fraction=0.2, augment="paper"
    )
    vae = replace(vae_settings(base / "vae", "nearest", steps=12), data=data)
    assert train_vae(vae) == 0
    settings = Tokenize(
        data=landscapes, vae=vae.out, out=base / "tokens", image_px=HEIGHT, width_px=WIDTH,
        crops=2, vocab_size=300,
    )  # fmt: skip
    assert tokenize(settings) == 0
    drawing = transformer_settings(base / "joint", settings.out, loop_changes={"steps": 12})
    assert train_transformer(replace(drawing, model=replace(drawing.model, attention="paper"))) == 0
    shape = clip_settings(base / "clip").model
    ranking = clip_settings(
        base / "clip", data=data, vae=vae.out, tokenizer=settings.out / "tokenizer.json",
        model=replace(shape, image_px=HEIGHT, width_px=WIDTH, patch_px=4),
        loop_changes={"steps": 4},
    )  # fmt: skip
    assert train_clip(ranking) == 0
    packed = base / "packed"
    assert pack(Pack(model=drawing.out, clip=ranking.out, out=packed)) == 0
    return packed


def test_tokens_have_the_proportions_of_the_pictures(model: Path) -> None:
    meta = TokenFolder(model.with_name("tokens")).meta
    assert (meta.grid_h, meta.grid_w, meta.pictures) == (HEIGHT // 4, WIDTH // 4, PICTURES)
    assert "| pictures | 24 x 16 px |" in (model.with_name("joint") / "model/README.md").read_text()


def test_a_model_of_rectangles_draws_completes_and_ranks(model: Path, landscapes: Path) -> None:
    pipeline = TextToImage.from_pretrained(model, device="cpu")
    drawn = pipeline.generate("red left", candidates=6, seed=1).results[0].images
    assert {image.image.size for image in drawn} == {(WIDTH, HEIGHT)}
    assert {image.ranker for image in drawn} == {"clip"}
    given = Image.open(landscapes / "01.png")
    for kept in ({"keep_rows": 0.5}, {"region": (0.5, 0.0, 1.0, 1.0)}):
        prompt = pipeline.read_image(given, **kept)
        assert prompt.shown is not None
        assert prompt.shown.image.size == (WIDTH, HEIGHT)
        result = pipeline.generate("red left", image=prompt, candidates=1, seed=1).results[0]
        wanted = prompt.tokens.numpy()
        tokens = result.images[0].tokens.ravel()[: len(wanted)]
        assert (tokens == wanted)[wanted != TO_DRAW].all()


def test_a_model_of_rectangles_is_evaluated_on_pictures_but_not_on_scenes(
    model: Path, landscapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(model), "--captions", "4", "--candidates", "2", "--json"]
    out = str(tmp_path / "report")
    assert main(["eval", *words, "--set", str(landscapes), "--out", out]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reconstruction"]["pictures"] == 4
    assert main(["eval", *words, "--out", str(tmp_path / "scenes")]) == 2
    assert "which pictures of 24 x 16 px are not" in capsys.readouterr().err
    vae, size = str(model.with_name("vae")), ["--image_px", str(HEIGHT), "--width_px", str(WIDTH)]
    assert main(["eval", "vae", "--vae", vae, "--data", str(landscapes), *size, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == len(open_samples(landscapes))


def test_sizes_of_several_stages_must_agree(
    landscapes: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "run"), "--data.train", str(landscapes)]
    assert main(["train", "vae", *out, "--data.width_px", "30", "--model.groups", "3"]) == 2
    assert "data.width_px (30) must be divisible by the dVAE's stride" in capsys.readouterr().err
    assert main(["train", "clip", *out, "--data.width_px", "96"]) == 2
    assert "data.width_px (96) must be model.width_px (64), " in capsys.readouterr().err
    assert main(["data", "check", str(landscapes), "--width_px", "0"]) == 2
    assert "width_px must be greater than 0" in capsys.readouterr().err
