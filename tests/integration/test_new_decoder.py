"""A new decoder for old codes: what is trained, what is refused, and a model that draws with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from dalle import TextToImage
from dalle.checkpoint import load_model, load_vae, save_vae
from dalle.config import Pack, TrainVae
from dalle.errors import ModelFormatError
from dalle.pack_command import run as pack
from dalle.train.metrics import read_metrics
from dalle.train.runs import train_vae
from vae import DiscreteVAE

VaeSettings = Callable[..., TrainVae]

pytestmark = pytest.mark.usefixtures("log_reaches_caplog")


def for_codes_of(folder: Path, settings: TrainVae) -> TrainVae:
    """`settings` for a wider decoder of the dVAE in `folder`."""
    shape = replace(load_vae(folder).config, decoder_channels=16, decoder_blocks=2)
    return replace(settings, codes_of=folder, model=shape)


@pytest.mark.parametrize("quantizer", ["gumbel", "nearest"])
def test_only_the_decoder_learns(
    quantizer: Literal["gumbel", "nearest"], tmp_path: Path, vae_settings: VaeSettings
) -> None:
    first = vae_settings(tmp_path / "first", quantizer, steps=4)
    assert train_vae(first) == 0
    old = load_vae(first.out / "model")
    rare = {"eval_every": 40, "sample_every": 40, "save_every": 40}
    settings = vae_settings(tmp_path / "second", quantizer, steps=40, workers=0, **rare)
    assert train_vae(for_codes_of(first.out / "model", settings)) == 0
    new = load_vae(settings.out / "model")
    for part in ("encoder", "quantizer"):
        ours, theirs = (getattr(vae, part).state_dict() for vae in (old, new))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), part
    assert sum(weight.numel() for weight in new.decoder.parameters()) > 4 * sum(
        weight.numel() for weight in old.decoder.parameters()
    )
    lines = [line for line in read_metrics(settings.out / "metrics.jsonl") if "lr" in line]
    assert lines[-1]["reconstruction"] < lines[0]["reconstruction"] - 0.1
    assert lines[-1]["loss"] == pytest.approx(lines[-1]["reconstruction"])
    assert lines[-1]["codebook_usage"] > 0


def test_an_encoder_of_another_shape_is_refused(tmp_path: Path, vae_settings: VaeSettings) -> None:
    settings = vae_settings(tmp_path / "run")
    save_vae(tmp_path / "given", DiscreteVAE(replace(settings.model, codebook_size=16)))
    message = r"has another encoder: its model.codebook_size is 16, and this run's is 32; make"
    with pytest.raises(ModelFormatError, match=message):
        train_vae(replace(settings, codes_of=tmp_path / "given"))


def test_a_packed_model_draws_the_same_tokens_with_its_new_decoder(
    tiny_model: Path, tmp_path: Path
) -> None:
    given = load_model(tiny_model).vae
    wider = DiscreteVAE(replace(given.config, decoder_channels=16))
    wider.encoder.load_state_dict(given.encoder.state_dict())
    wider.quantizer.load_state_dict(given.quantizer.state_dict())
    save_vae(tmp_path / "vae", wider)
    assert pack(Pack(model=tiny_model, vae=tmp_path / "vae", out=tmp_path / "model")) == 0
    old, new = (
        TextToImage.from_pretrained(folder, device="cpu", dtype="fp32").generate(
            "a fox", candidates=2, seed=3
        )
        for folder in (tiny_model, tmp_path / "model")
    )
    for before, after in zip(old.images, new.images, strict=True):
        assert np.array_equal(before.tokens, after.tokens)
        assert before.image.tobytes() != after.image.tobytes()


def test_a_dvae_with_other_codes_is_not_packed(tiny_model: Path, tmp_path: Path) -> None:
    given = load_model(tiny_model).vae
    torch.manual_seed(1)
    save_vae(tmp_path / "vae", DiscreteVAE(given.config))
    with pytest.raises(ModelFormatError, match=r"has another encoder than the model's, .*codes_of"):
        pack(Pack(model=tiny_model, vae=tmp_path / "vae", out=tmp_path / "model"))
    assert not (tmp_path / "model").exists()
