"""Model folders: saved whole and read back equal."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dalle.checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    TRANSFORMER_FILE,
    VAE_FILE,
    load_model,
    load_vae,
    save_model,
    save_vae,
)
from dalle.checksums import SUMS_FILE, write_sums
from dalle.model_config import TransformerConfig
from dalle.weights import save_tensors
from tests.unit.small_models import TRANSFORMER, VAE, WEIGHTS, same_weights, tiny_parts
from vae import VaeConfig


@pytest.mark.parametrize(
    ("vae", "transformer"),
    [
        (VAE, TRANSFORMER),
        (
            dataclasses.replace(VAE, quantizer="nearest", likelihood="l1"),
            dataclasses.replace(
                TRANSFORMER, attention="paper", conv_kernel=3, qk_norm=True, tie_embeddings=True
            ),
        ),
    ],
)
def test_a_model_comes_back_as_it_was(
    tmp_path: Path, vae: VaeConfig, transformer: TransformerConfig
) -> None:
    parts = tiny_parts(vae, transformer)
    save_model(tmp_path / "model", parts, card="# A card\n")
    found = load_model(tmp_path / "model")
    assert same_weights(found.vae, parts.vae)
    assert same_weights(found.transformer, parts.transformer)
    assert (found.vae.config, found.transformer.config) == (vae, transformer)
    assert found.transformer.sequence == parts.transformer.sequence
    assert found.sampling == parts.sampling
    assert found.tokenizer.encode("a blue fox") == parts.tokenizer.encode("a blue fox")
    save_model(tmp_path / "other card", parts, card="# Another card\n")
    assert found.fingerprint == load_model(tmp_path / "other card").fingerprint
    assert not found.vae.training
    assert not found.transformer.training
    assert (tmp_path / "model" / CARD_FILE).read_text() == "# A card\n"
    text_ids, image_tokens = torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 6).long()
    assert torch.equal(
        found.transformer(text_ids, image_tokens).image,
        parts.transformer(text_ids, image_tokens).image,
    ), "buffers that are not stored, such as masks, must be there too"


def test_a_dvae_comes_back_from_either_kind_of_folder(tmp_path: Path, saved: Path) -> None:
    save_vae(tmp_path / "vae", tiny_parts().vae)
    assert same_weights(load_vae(tmp_path / "vae"), tiny_parts().vae)
    assert same_weights(load_vae(saved), tiny_parts().vae)


def test_loading_leaves_the_global_random_stream_alone(saved: Path) -> None:
    before = torch.random.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fp16_halves_the_files_and_rounds_the_weights(tmp_path: Path, saved: Path) -> None:
    parts = tiny_parts()
    save_model(tmp_path / "half", parts, card="", dtype="fp16")
    for name in WEIGHTS:
        ratio = (tmp_path / "half" / name).stat().st_size / (saved / name).stat().st_size
        assert ratio < 0.75  # headers weigh much at this size
    found = load_model(tmp_path / "half")
    for name, tensor in found.transformer.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, parts.transformer.state_dict()[name].half().float())


def test_what_sixteen_bits_cannot_hold_stays_whole(tmp_path: Path) -> None:
    """A running sum of a large batch can pass 65,504, the largest number fp16 has."""
    parts = tiny_parts(dataclasses.replace(VAE, quantizer="nearest"))
    parts.vae.quantizer.get_buffer("sums").fill_(70_000.0)
    save_model(tmp_path / "model", parts, card="", dtype="fp16")
    stored = load_file(tmp_path / "model" / VAE_FILE)
    assert stored["quantizer.sums"].dtype == torch.float32
    assert stored["quantizer.codebook"].dtype == torch.float16
    assert float(load_model(tmp_path / "model").vae.quantizer.get_buffer("sums").max()) == 70_000


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o777])
def test_who_may_use_a_folder_may_use_its_weights(tmp_path: Path, mode: int) -> None:
    """They were readable for their owner alone, and no server of another user could load them."""
    tmp_path.chmod(mode)
    save_tensors({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == (mode & 0o444) | 0o600


def test_weights_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    """Bug: a full disk was "not expected", by safetensors' own kind of error, and nameless."""
    target = tmp_path / "gone" / "vae.safetensors"
    with pytest.raises(OSError, match=rf"{target} cannot be written: .*; make room"):
        save_tensors({"a": torch.zeros(1)}, target)


def test_equal_models_make_equal_files(tmp_path: Path, saved: Path) -> None:
    save_model(tmp_path / "again", tiny_parts(), card="# A card\n")
    assert (tmp_path / "again" / SUMS_FILE).read_bytes() == (saved / SUMS_FILE).read_bytes()
    assert sorted(path.name for path in saved.iterdir()) == [
        CARD_FILE, SUMS_FILE, CONFIG_FILE, TOKENIZER_FILE, TRANSFORMER_FILE, VAE_FILE,
    ]  # fmt: skip


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, saved: Path) -> None:
    (saved / "notes.txt").write_text("of the old model")
    write_sums(saved)
    save_model(saved, tiny_parts(seed=1), card="")
    assert same_weights(load_model(saved).transformer, tiny_parts(seed=1).transformer)
    assert not (saved / "notes.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_no_model_is_not_replaced(tmp_path: Path, saved: Path) -> None:
    """`dalle pack --out RUN` once put the model where the run's checkpoints had been."""
    (saved / "mine.txt").write_text("not of the model")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "file").write_text("a file")
    for out, text in (
        (saved, "holds 'mine.txt', which is no part of a model and would be lost"),
        (tmp_path / "run", "holds 'checkpoints'"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(ValueError, match=text):
            save_model(out, tiny_parts(seed=1), card="")
    assert (saved / "mine.txt").read_text() == "not of the model"
    assert (tmp_path / "file").read_text() == "a file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model", "run"]


def test_an_empty_folder_and_what_a_link_leads_to_are_filled(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for seed in (0, 1):
        save_model(tmp_path / "link", tiny_parts(seed=seed), card="")
        load_model(tmp_path / "real")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_card_may_be_edited(saved: Path) -> None:
    before = load_model(saved).fingerprint
    (saved / CARD_FILE).write_text("# What I found out about it\n")
    assert load_model(saved).fingerprint == before


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        save_model(saved, tiny_parts(seed=1), card="a lone surrogate: \ud800")
    assert same_weights(load_model(saved).transformer, tiny_parts(seed=0).transformer)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_swap_that_fails_puts_the_old_folder_back(
    tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if source.name == "model.partial":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(saved, tiny_parts(seed=1), card="")
    assert same_weights(load_model(saved).transformer, tiny_parts(seed=0).transformer)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_an_earlier_crash_left_is_no_obstacle(tmp_path: Path, saved: Path) -> None:
    """An `.old` folder may hold the only copy of a model, or be somebody else's."""
    for name in ("model.partial", "model.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rest").write_text("")
    save_model(saved, tiny_parts(seed=1), card="")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.old"]
    load_model(saved)
