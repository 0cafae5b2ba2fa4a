"""From pictures to tokens to a trained transformer, on the committed scenes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dalle.checkpoint import load_model, load_vae, save_model
from dalle.config import Tokenize, TrainTransformer, TrainVae
from dalle.data.images import centre_crop, open_rgb
from dalle.data.samples import open_samples
from dalle.data.tokens import TokenFolder
from dalle.errors import DalleError, DataError
from dalle.train.metrics import read_metrics
from dalle.train.runs import train_transformer, train_vae
from dalle.train.tokenize import tokenize
from dalle.train.transformer_task import TransformerTask
from tests.paths import ROOT, SCENES
from vae.pixels import to_pixels

VaeSettings = Callable[..., TrainVae]
TransformerSettings = Callable[..., TrainTransformer]

pytestmark = pytest.mark.usefixtures("log_reaches_caplog")


def test_tokens_are_what_the_dvae_says(tokens: Path, trained_vae: Path) -> None:
    folder, samples = TokenFolder(tokens), open_samples(SCENES)
    assert len(folder) == len(samples) == 24
    vae = load_vae(trained_vae / "model")
    differing = 0
    for index in (0, 7, 23):
        assert folder.caption(index) == samples[index].caption.lower()
        image = np.array(centre_crop(open_rgb(samples[index].image), (32, 32)))
        plain = vae.encode(to_pixels(torch.from_numpy(image)[None]))[0]
        assert np.array_equal(folder.grid(index, 0), plain.numpy())
        differing += not np.array_equal(folder.grid(index, 1), plain.numpy())
    assert differing, "the second version is a random crop"
    assert (folder.meta.crops, folder.meta.grid_h, folder.meta.grid_w) == (2, 8, 8)
    assert folder.meta.source == samples.fingerprint
    assert not (tokens.parent / "tokens.partial").exists()


def test_tokenizing_again_gives_the_same_tokens(
    tokens: Path, trained_vae: Path, tmp_path: Path
) -> None:
    settings = Tokenize(
        data=SCENES, vae=trained_vae / "model", out=tmp_path / "again", image_px=32, crops=2,
        vocab_size=300, batch=64,
    )  # fmt: skip
    tokenize(settings)
    assert TokenFolder(tmp_path / "again").fingerprint == TokenFolder(tokens).fingerprint
    name = "captions.txt"
    assert (tmp_path / "again" / name).read_bytes() == (tokens / name).read_bytes()
    # At another batch size a rounding may tip a code that was almost even; hardly ever, though.
    one, two = (
        np.fromfile(folder / "tokens.u16", "<u2") for folder in (tokens, tmp_path / "again")
    )
    assert (one != two).mean() < 0.01


def test_a_transformer_is_trained_on_tokens_and_published_whole(
    tokens: Path, transformer_settings: TransformerSettings, tmp_path: Path
) -> None:
    settings = transformer_settings(
        tmp_path / "run", tokens, publish_dtype="fp16",
        loop_changes={"steps": 60, "batch": 8, "accumulate": 1, "log_every": 10, "save_every": 60},
    )  # fmt: skip
    assert train_transformer(settings) == 0
    lines = [line for line in read_metrics(settings.out / "metrics.jsonl") if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    first = lines[0]
    assert first["loss"] == pytest.approx(
        0.125 * first["text_loss"] + 0.875 * first["image_loss"], abs=0.02
    )
    held = [
        line for line in read_metrics(settings.out / "metrics.jsonl") if "heldout_text_loss" in line
    ]
    assert held[-1]["heldout_image_loss"] < math.log(32) + 0.5
    parts = load_model(settings.out / "model")
    assert parts.transformer.sequence.text_len == 12
    assert parts.tokenizer.vocab_size == TokenFolder(tokens).tokenizer().vocab_size
    assert "| sequence | 12 caption tokens" in (settings.out / "model" / "README.md").read_text()
    with Image.open(settings.out / "samples" / "step-00000060.png") as sheet:
        assert sheet.width > 4 * 32


def test_held_out_tokens_of_another_dvae_are_refused(
    tokens: Path,
    vae_settings: VaeSettings,
    transformer_settings: TransformerSettings,
    tmp_path: Path,
) -> None:
    other = vae_settings(tmp_path / "other", "nearest", steps=1)
    train_vae(replace(other, loop=replace(other.loop, seed=9)))
    tokenize(Tokenize(data=SCENES, vae=tmp_path / "other", out=tmp_path / "foreign", image_px=32))
    settings = transformer_settings(tmp_path / "run", tokens, heldout_tokens=tmp_path / "foreign")
    with pytest.raises(DataError, match=r"foreign has vae .*tokenize both with the same dVAE"):
        train_transformer(settings)


def test_held_out_captions_are_read_with_the_models_own_vocabulary(
    tokens: Path, trained_vae: Path, transformer_settings: TransformerSettings, tmp_path: Path
) -> None:
    """A held-out folder once brought its own tokenizer, whose numbers mean other words."""
    tokenize(
        Tokenize(
            data=SCENES, vae=trained_vae, out=tmp_path / "heldout", image_px=32, vocab_size=280
        )
    )
    task = TransformerTask(
        transformer_settings(tmp_path / "run", tokens, heldout_tokens=tmp_path / "heldout")
    )
    own = task.tokenizer
    ids, _ = own.fit(own.encode(TokenFolder(tokens).caption(0)), 12)
    assert task.heldout.tensors["text_ids"][0, : len(ids)].tolist() == ids


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image_px": 30}, ValueError, r"image_px \(30\) must be divisible by the stride .*\(4\)"),
        ({"vae": SCENES}, DalleError, "is not a model folder"),
        ({"data": ROOT / "nowhere"}, DataError, "nowhere is not a folder"),
        ({"tokenizer": ROOT / "nowhere"}, DalleError, "cannot read the caption tokenizer"),
    ],
)
def test_tokenizing_with_bad_settings_writes_nothing(
    changes: dict[str, Any], error: type[Exception], message: str, trained_vae: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"data": SCENES, "vae": trained_vae, "image_px": 32}
    with pytest.raises(error, match=message):
        tokenize(Tokenize(out=tmp_path / "out", **(settings | changes)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("bad", "allowed"), [(1, True), (4, False)])
def test_bad_pictures_are_left_out_until_they_are_too_many(
    bad: int, allowed: bool, trained_vae: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(20):
        Image.new("RGB", (32, 32), (12 * number, 0, 0)).save(pictures / f"{number:02}.png")
        (pictures / f"{number:02}.txt").write_text(f"shade {number}")
    for number in range(bad):
        (pictures / f"{number:02}.png").write_bytes(b"torn")
    settings = Tokenize(data=pictures, vae=trained_vae, out=tmp_path / "out", image_px=32)
    if not allowed:
        with pytest.raises(DataError, match=r"at least 2 of 20 samples cannot be used, more than"):
            tokenize(settings)
        assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
        return
    assert tokenize(settings) == 0
    folder = TokenFolder(tmp_path / "out")
    assert (len(folder), folder.meta.skipped) == (19, 1)
    assert folder.caption(0) == "shade 1"
    assert "skipped 00.png: the picture is damaged" in caplog.text
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["skipped"] == 1


def test_captions_of_one_picture_are_set_aside_together(
    trained_vae: Path, tmp_path: Path, transformer_settings: TransformerSettings
) -> None:
    """Bug: a held-out caption could be of a picture that was trained on."""
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png,shade {number} in words {word}" for word in "abc" for number in range(6)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,caption", *rows, ""]))
    tokens = tmp_path / "tokens"
    assert tokenize(Tokenize(data=tmp_path, vae=trained_vae, out=tokens, image_px=32)) == 0
    assert TokenFolder(tokens).picture_numbers() == 3 * [0, 1, 2, 3, 4, 5]
    run = transformer_settings(
        tokens=tokens, out=tmp_path / "run", heldout_fraction=0.34, sample_captions=()
    )
    task = TransformerTask(run)
    trained = {TokenFolder(tokens).caption(index)[:7] for index in task.train_set.indices}
    aside = {caption[:7] for caption in task.sheet_captions}
    assert (len(trained), len(aside), len(task.heldout.keys)) == (4, 2, 6)
    assert not trained & aside


# ------------------------------------------------------------------------------------- fine-tuning


def test_a_run_starts_from_a_published_model(
    tokens: Path, transformer_settings: TransformerSettings, tmp_path: Path
) -> None:
    """Its first loss is the published model's, and it goes down from there."""
    first = transformer_settings(tmp_path / "first", tokens, loop_changes={"ema_decay": 0.0})
    assert train_transformer(first) == 0
    second = replace(first, out=tmp_path / "second", init=tmp_path / "first")
    task = TransformerTask(second)
    published = load_model(tmp_path / "first" / "model").transformer
    for name, tensor in published.state_dict().items():
        assert torch.equal(tensor, task.model.state_dict()[name]), name
    assert train_transformer(second) == 0
    losses = [
        line["heldout_image_loss"]
        for run in (first, second)
        for line in read_metrics(run.out / "metrics.jsonl")
        if "heldout_image_loss" in line
    ]
    assert losses[-1] < losses[1]


def test_a_model_of_another_shape_or_dvae_is_no_start(
    tokens: Path, tiny_model: Path, transformer_settings: TransformerSettings, tmp_path: Path
) -> None:
    with pytest.raises(DalleError, match="was made with another encoder of the dVAE than"):
        TransformerTask(transformer_settings(tmp_path / "run", tokens, init=tiny_model))
    first = transformer_settings(tmp_path / "first", tokens, loop_changes={"steps": 1})
    assert train_transformer(first) == 0
    model = tmp_path / "first" / "model"
    with pytest.raises(DalleError, match="has text_len 12, not 13; set these as it has them"):
        TransformerTask(replace(first, text_len=13, init=model))
    parts = load_model(model)
    with torch.no_grad():
        next(parts.vae.parameters()).add_(1)
    save_model(tmp_path / "other", parts, card="")
    with pytest.raises(DalleError, match="was made with another encoder of the dVAE than"):
        TransformerTask(replace(first, init=tmp_path / "other"))
