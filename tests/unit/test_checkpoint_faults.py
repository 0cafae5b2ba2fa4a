"""Whatever is wrong with a model folder is refused, and named."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from dalle import checkpoint
from dalle.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    TRANSFORMER_FILE,
    VAE_FILE,
    load_model,
    save_model,
    save_vae,
)
from dalle.checksums import SUMS_FILE, write_sums
from dalle.errors import ModelFormatError
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.transformer import JointTransformer
from tests.unit.small_models import WEIGHTS, tiny_parts
from vae import DiscreteVAE, VaeConfig


def edit_config(saved: Path, section: str, **values: object) -> None:
    """Change the config as somebody who then renews the hashes would."""
    path = saved / CONFIG_FILE
    tree = json.loads(path.read_text())
    tree[section].update(values)
    path.write_text(json.dumps(tree))
    write_sums(saved)


# ---------------------------------------------------------------------------------- foreign folders


def test_what_is_no_model_folder_is_refused(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"model folder .*nowhere does not exist; check"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelFormatError, match=r"has no config\.json; give the folder that"):
        load_model(tmp_path)
    (saved / CONFIG_FILE).write_text("{}")
    with pytest.raises(ModelFormatError, match=r"format_version None, but this program reads 1"):
        load_model(saved)
    (saved / CONFIG_FILE).write_bytes(b"\x80\x04}q.")
    with pytest.raises(ModelFormatError, match=r"config\.json is not JSON"):
        load_model(saved)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt"])
def test_pickles_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(nn.Linear(1, 1).state_dict(), path)
    with pytest.raises(ModelFormatError, match=r"is a file, not a model folder; .*can run code"):
        load_model(path)


def test_a_folder_with_a_pickle_in_the_place_of_weights_is_refused(saved: Path) -> None:
    (saved / TRANSFORMER_FILE).rename(saved / "transformer.bin")
    with pytest.raises(ModelFormatError, match=r"lacks transformer\.safetensors.*never \.pt or"):
        load_model(saved)


@pytest.mark.parametrize("name", [VAE_FILE, TRANSFORMER_FILE, TOKENIZER_FILE, SUMS_FILE])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ModelFormatError, match=name):
        load_model(saved)


def test_a_dvae_folder_is_not_a_whole_model(tmp_path: Path) -> None:
    save_vae(tmp_path / "vae", tiny_parts().vae)
    with pytest.raises(ModelFormatError, match=r"lacks transformer\.safetensors, which a text-to"):
        load_model(tmp_path / "vae")


# ------------------------------------------------------------------------------------ damaged files


@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    saved = tmp_path_factory.getbasetemp() / "flipped"
    if not saved.exists():
        save_model(saved, tiny_parts(), card="# A card\n")
    names = (CONFIG_FILE, TOKENIZER_FILE, TRANSFORMER_FILE, VAE_FILE)
    path = saved / data.draw(st.sampled_from(names))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    try:
        with pytest.raises(ModelFormatError):
            load_model(saved)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("renewed", [False, True])
def test_truncated_weights_are_refused(saved: Path, name: str, share: float, renewed: bool) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(len(content) * share)])
    if renewed:
        write_sums(saved)
    message = "cannot be read as safetensors" if renewed else "is damaged"
    with pytest.raises(ModelFormatError, match=f"{name} {message}.*copy the file again"):
        load_model(saved)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(saved: Path, value: float) -> None:
    weights = load_file(saved / TRANSFORMER_FILE)
    weights["final_norm.bias"][3] = value
    save_file(weights, saved / TRANSFORMER_FILE)
    write_sums(saved)
    with pytest.raises(ModelFormatError, match=r"safetensors: final_norm\.bias holds values that"):
        load_model(saved)


def test_weights_that_do_not_fit_are_listed_together(saved: Path) -> None:
    weights = load_file(saved / TRANSFORMER_FILE)
    del weights["start"]
    weights["extra"] = torch.zeros(2)
    weights["final_norm.bias"] = torch.zeros(31)
    weights["final_norm.weight"] = torch.zeros(32, dtype=torch.int64)
    save_file(weights, saved / TRANSFORMER_FILE)
    write_sums(saved)
    with pytest.raises(ModelFormatError) as caught:
        load_model(saved)
    for part in (
        "4 differences",
        "missing start",
        "unexpected extra",
        "final_norm.bias has shape (31,) instead of (32,)",
        "final_norm.weight has type I64",
        "must come from the same training",
    ):
        assert part in str(caught.value)


# --------------------------------------------------------------------------- configs that tell lies


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("transformer", {"colour": 1}, "transformer has unknown keys: colour"),
        ("transformer", {"layers": "2"}, r"transformer\.layers must be an integer, got '2'"),
        ("transformer", {"layers": 2.5}, r"transformer\.layers must be an integer, got 2\.5"),
        ("transformer", {"heads": 5}, r"width \(32\) must be divisible by heads \(5\)"),
        ("transformer", {"attention": "sparse"}, 'attention must be "dense" or "paper"'),
        ("sampling", {"temperature": -1}, "temperature must be between 0 .* got -1"),
        ("sequence", {"grid_h": 0}, "grid_h must be at least 1, got 0"),
        ("vae", {"quantizer": "lookup"}, 'quantizer must be "gumbel" or "nearest"'),
        ("vae", {"channels": True}, r"vae\.channels must be an integer, got True"),
        ("sequence", {"image_vocab": 17}, r"image_vocab \(17\) must equal vae\.codebook_size"),
        ("sequence", {"text_vocab": 261}, r"has 260 entries, but the model was trained with 261"),
        ("sequence", {"text_vocab": 259}, r"has 260 entries, but the model was trained with 259"),
    ],
)
def test_configs_that_make_no_sense_are_refused(
    saved: Path, section: str, values: dict[str, Any], message: str
) -> None:
    edit_config(saved, section, **values)
    with pytest.raises(ModelFormatError, match=message):
        load_model(saved)


def test_a_missing_section_is_refused(saved: Path) -> None:
    tree = json.loads((saved / CONFIG_FILE).read_text())
    del tree["sequence"]
    (saved / CONFIG_FILE).write_text(json.dumps(tree))
    write_sums(saved)
    with pytest.raises(ModelFormatError, match="sequence is missing or not an object; get the"):
        load_model(saved)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("transformer", {"layers": 10**9}),
        ("transformer", {"layers": 10**400}),
        ("transformer", {"width": 10**9}),
        ("transformer", {"mlp_ratio": 10**12}),
        ("transformer", {"attention": "paper", "conv_kernel": 10**9 + 1}),
        ("sequence", {"text_len": 10**12}),
        ("sequence", {"grid_h": 10**9}),
        ("vae", {"groups": 10**9}),
        ("vae", {"groups": 12, "channels": 4096}),
        ("vae", {"blocks_per_group": 10**9}),
        ("vae", {"channels": 4 * 10**9}),
        ("vae", {"codebook_dim": 10**12}),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_built(
    saved: Path, section: str, values: dict[str, Any]
) -> None:
    edit_config(saved, section, **values)
    started = time.process_time()
    with pytest.raises(ModelFormatError, match=r"describes a model of|groups must be at most"):
        load_model(saved)
    assert time.process_time() - started < 1


def test_sizes_under_the_limit_are_compared_with_the_file_before_allocation(saved: Path) -> None:
    """Ten billion weights are believable, but not in a file of a few kilobytes."""
    edit_config(saved, "transformer", width=16384, heads=2)
    with pytest.raises(ModelFormatError, match="differences"):
        load_model(saved)


@pytest.mark.parametrize(
    ("vae", "transformer"),
    [
        (VaeConfig(), TransformerConfig()),
        (
            VaeConfig(channels=48, groups=3, blocks_per_group=1, quantizer="nearest"),
            TransformerConfig(width=768, layers=16, heads=8),
        ),
    ],
)
def test_estimates_are_near_the_truth(vae: VaeConfig, transformer: TransformerConfig) -> None:
    """So that the limit means what it says: within a third of the numbers that are stored."""
    sequence = SequenceConfig()
    with torch.device("meta"):
        pairs = [
            (DiscreteVAE(vae), checkpoint._vae_numbers(vae)),
            (
                JointTransformer(sequence, transformer),
                checkpoint._transformer_numbers(sequence, transformer),
            ),
        ]
    for module, estimate in pairs:
        true = sum(tensor.numel() for tensor in module.state_dict().values())
        assert estimate == pytest.approx(true, rel=1 / 3)
