"""Model folders: saved whole, read back equal, and whatever is wrong with one is refused."""

from __future__ import annotations

import dataclasses
import json
import os
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
from dalle.captions import CaptionTokenizer
from dalle.checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    TRANSFORMER_FILE,
    VAE_FILE,
    ModelParts,
    load_model,
    load_vae,
    save_model,
    save_vae,
)
from dalle.checksums import SUMS_FILE, write_sums
from dalle.config import SamplingConfig
from dalle.errors import ModelFormatError
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.transformer import JointTransformer
from vae import DiscreteVAE, VaeConfig

VAE = VaeConfig(channels=8, groups=2, blocks_per_group=1, codebook_size=16, codebook_dim=4)
TRANSFORMER = TransformerConfig(width=32, layers=2, heads=2)
WEIGHTS = (VAE_FILE, TRANSFORMER_FILE)


def tiny_parts(
    vae: VaeConfig = VAE, transformer: TransformerConfig = TRANSFORMER, seed: int = 0
) -> ModelParts:
    torch.manual_seed(seed)
    tokenizer = CaptionTokenizer.train(["a fox", "a fox on a blue background"], 260)
    sequence = SequenceConfig(
        text_len=8, text_vocab=tokenizer.vocab_size, grid_h=2, grid_w=3, image_vocab=16
    )
    return ModelParts(
        vae=DiscreteVAE(vae),
        transformer=JointTransformer(sequence, transformer),
        tokenizer=tokenizer,
        sampling=SamplingConfig(temperature=0.9, top_k=8, top_p=0.95, guidance_scale=2.0),
        fingerprint="",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", tiny_parts(), card="# A card\n")
    return tmp_path / "model"


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def edit_config(folder: Path, section: str, **values: object) -> None:
    """Change the config as somebody who then renews the hashes would."""
    path = folder / CONFIG_FILE
    tree = json.loads(path.read_text())
    tree[section].update(values)
    path.write_text(json.dumps(tree))
    write_sums(folder)


# ------------------------------------------------------------------------------ saving, loading


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


def test_a_dvae_comes_back_from_either_kind_of_folder(tmp_path: Path, folder: Path) -> None:
    save_vae(tmp_path / "vae", tiny_parts().vae)
    assert same_weights(load_vae(tmp_path / "vae"), tiny_parts().vae)
    assert same_weights(load_vae(folder), tiny_parts().vae)


def test_loading_leaves_the_global_random_stream_alone(folder: Path) -> None:
    before = torch.random.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fp16_halves_the_files_and_rounds_the_weights(tmp_path: Path, folder: Path) -> None:
    parts = tiny_parts()
    save_model(tmp_path / "half", parts, card="", dtype="fp16")
    for name in WEIGHTS:
        ratio = (tmp_path / "half" / name).stat().st_size / (folder / name).stat().st_size
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


def test_equal_models_make_equal_files(tmp_path: Path, folder: Path) -> None:
    save_model(tmp_path / "again", tiny_parts(), card="# A card\n")
    assert (tmp_path / "again" / SUMS_FILE).read_bytes() == (folder / SUMS_FILE).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [
        CARD_FILE, SUMS_FILE, CONFIG_FILE, TOKENIZER_FILE, TRANSFORMER_FILE, VAE_FILE,
    ]  # fmt: skip


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, folder: Path) -> None:
    (folder / "notes.txt").write_text("of the old model")
    save_model(folder, tiny_parts(seed=1), card="")
    assert same_weights(load_model(folder).transformer, tiny_parts(seed=1).transformer)
    assert not (folder / "notes.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        save_model(folder, tiny_parts(seed=1), card="a lone surrogate: \ud800")
    assert same_weights(load_model(folder).transformer, tiny_parts(seed=0).transformer)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_swap_that_fails_puts_the_old_folder_back(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if source.name == "model.partial":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(folder, tiny_parts(seed=1), card="")
    assert same_weights(load_model(folder).transformer, tiny_parts(seed=0).transformer)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_an_earlier_crash_left_is_no_obstacle(tmp_path: Path, folder: Path) -> None:
    for name in ("model.partial", "model.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rest").write_text("")
    save_model(folder, tiny_parts(seed=1), card="")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    load_model(folder)


# ------------------------------------------------------------------------------ foreign folders


def test_what_is_no_model_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"model folder .*nowhere does not exist; check"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelFormatError, match=r"has no config\.json; give the folder that"):
        load_model(tmp_path)
    (folder / CONFIG_FILE).write_text("{}")
    with pytest.raises(ModelFormatError, match=r"format_version None, but this program reads 1"):
        load_model(folder)
    (folder / CONFIG_FILE).write_bytes(b"\x80\x04}q.")
    with pytest.raises(ModelFormatError, match=r"config\.json is not JSON"):
        load_model(folder)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt"])
def test_pickles_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(nn.Linear(1, 1).state_dict(), path)
    with pytest.raises(ModelFormatError, match=r"is a file, not a model folder; .*can run code"):
        load_model(path)


def test_a_folder_with_a_pickle_in_the_place_of_weights_is_refused(folder: Path) -> None:
    (folder / TRANSFORMER_FILE).rename(folder / "transformer.bin")
    with pytest.raises(ModelFormatError, match=r"lacks transformer\.safetensors.*never \.pt or"):
        load_model(folder)


@pytest.mark.parametrize("name", [VAE_FILE, TRANSFORMER_FILE, TOKENIZER_FILE, SUMS_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFormatError, match=name):
        load_model(folder)


def test_a_dvae_folder_is_not_a_whole_model(tmp_path: Path) -> None:
    save_vae(tmp_path / "vae", tiny_parts().vae)
    with pytest.raises(ModelFormatError, match=r"lacks transformer\.safetensors, which a text-to"):
        load_model(tmp_path / "vae")


# ------------------------------------------------------------------------------------ damaged files


@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped"
    if not folder.exists():
        save_model(folder, tiny_parts(), card="# A card\n")
    names = (CARD_FILE, CONFIG_FILE, TOKENIZER_FILE, TRANSFORMER_FILE, VAE_FILE)
    path = folder / data.draw(st.sampled_from(names))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    try:
        with pytest.raises(ModelFormatError):
            load_model(folder)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("renewed", [False, True])
def test_truncated_weights_are_refused(
    folder: Path, name: str, share: float, renewed: bool
) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    if renewed:
        write_sums(folder)
    message = "cannot be read as safetensors" if renewed else "is damaged"
    with pytest.raises(ModelFormatError, match=f"{name} {message}.*copy the file again"):
        load_model(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    weights = load_file(folder / TRANSFORMER_FILE)
    weights["final_norm.bias"][3] = value
    save_file(weights, folder / TRANSFORMER_FILE)
    write_sums(folder)
    with pytest.raises(ModelFormatError, match=r"safetensors: final_norm\.bias holds values that"):
        load_model(folder)


def test_weights_that_do_not_fit_are_listed_together(folder: Path) -> None:
    weights = load_file(folder / TRANSFORMER_FILE)
    del weights["start"]
    weights["extra"] = torch.zeros(2)
    weights["final_norm.bias"] = torch.zeros(31)
    weights["final_norm.weight"] = torch.zeros(32, dtype=torch.int64)
    save_file(weights, folder / TRANSFORMER_FILE)
    write_sums(folder)
    with pytest.raises(ModelFormatError) as caught:
        load_model(folder)
    for part in (
        "4 differences",
        "missing start",
        "unexpected extra",
        "final_norm.bias has shape (31,) instead of (32,)",
        "final_norm.weight has type I64",
        "must come from the same training",
    ):
        assert part in str(caught.value)


# -------------------------------------------------------------------------- configs that tell lies


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
    folder: Path, section: str, values: dict[str, Any], message: str
) -> None:
    edit_config(folder, section, **values)
    with pytest.raises(ModelFormatError, match=message):
        load_model(folder)


def test_a_missing_section_is_refused(folder: Path) -> None:
    tree = json.loads((folder / CONFIG_FILE).read_text())
    del tree["sequence"]
    (folder / CONFIG_FILE).write_text(json.dumps(tree))
    write_sums(folder)
    with pytest.raises(ModelFormatError, match="sequence is missing or not an object; get the"):
        load_model(folder)


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
    folder: Path, section: str, values: dict[str, Any]
) -> None:
    edit_config(folder, section, **values)
    started = time.process_time()
    with pytest.raises(ModelFormatError, match=r"describes a model of|groups must be at most"):
        load_model(folder)
    assert time.process_time() - started < 1


def test_sizes_under_the_limit_are_compared_with_the_file_before_allocation(folder: Path) -> None:
    """Ten billion weights are believable, but not in a file of a few kilobytes."""
    edit_config(folder, "transformer", width=16384, heads=2)
    with pytest.raises(ModelFormatError, match="differences"):
        load_model(folder)


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
