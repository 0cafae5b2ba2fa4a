"""`dalle pack --mean_with`: the mean of two passes' weights, and what has no mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file

from dalle import TextToImage
from dalle.captions import CaptionTokenizer
from dalle.checkpoint import TRANSFORMER_FILE, ModelParts, load_model, save_model
from dalle.cli import main
from dalle.transformer import JointTransformer
from vae import DiscreteVAE


@pytest.fixture
def parts(tiny_model: Path) -> ModelParts:
    return load_model(tiny_model)


def next_pass(parts: ModelParts, folder: Path, *, dtype: Literal["fp32", "fp16"]) -> None:
    """A model whose weights are near those of `parts`."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in parts.transformer.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.01)
    save_model(folder, parts, card="The second pass.", dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "flags", "share"),
    [("fp32", (), 0.5), ("fp16", (), 0.5), ("fp16", ("--mean-share", "0.25"), 0.25)],
)
def test_the_published_weights_lie_in_between(
    parts: ModelParts,
    tmp_path: Path,
    dtype: Literal["fp32", "fp16"],
    flags: tuple[str, ...],
    share: float,
) -> None:
    first, second, out = (tmp_path / name for name in ("first", "second", "mean"))
    save_model(first, parts, card="The first pass.", dtype=dtype)
    next_pass(load_model(first), second, dtype=dtype)
    words = ["pack", "--model", str(second), "--mean-with", str(first), "--out", str(out)]
    assert main([*words, *flags]) == 0
    one, other, mean = (load_file(at / TRANSFORMER_FILE) for at in (second, first, out))
    assert one.keys() == mean.keys()
    for name, weight in mean.items():
        assert weight.dtype == one[name].dtype
        between = (1 - share) * one[name].double() + share * other[name].double()
        torch.testing.assert_close(weight.double(), between, rtol=1e-3, atol=1e-6)
    assert not all(torch.equal(mean[name], one[name]) for name in mean)
    assert TextToImage.from_pretrained(out).generate("a fox", candidates=1).images
    assert (out / "README.md").read_text(encoding="utf-8") == "The second pass."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mean-with", "b", "--mean-share", "1"], "mean_share must be over 0 and under 1"),
        (["--mean-share", "0.3"], "mean_share is the share of mean_with, which is not given"),
    ],
)
def test_a_share_of_all_or_of_nothing_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", "--model", "emoji", "--out", "c", *words]) == 2
    assert message in capsys.readouterr().err


def other_shape(parts: ModelParts) -> ModelParts:
    config = replace(parts.transformer.config, layers=1)
    return replace(parts, transformer=JointTransformer(parts.transformer.sequence, config))


def other_length(parts: ModelParts) -> ModelParts:
    sequence = replace(parts.transformer.sequence, text_len=9)
    return replace(parts, transformer=JointTransformer(sequence, parts.transformer.config))


def other_words(parts: ModelParts) -> ModelParts:
    captions = ["six green bottles on the wall, and if one should fall"] * 3
    return replace(parts, tokenizer=CaptionTokenizer.train(captions, parts.tokenizer.vocab_size))


def other_codes(parts: ModelParts) -> ModelParts:
    return replace(parts, vae=DiscreteVAE(parts.vae.config))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (other_shape, "transformer"),
        (other_length, "sequence"),
        (other_words, "tokenizer"),
        (other_codes, "dVAE"),
    ],
)
def test_what_is_no_other_pass_of_one_training_is_refused(
    tiny_model: Path,
    parts: ModelParts,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: object,
    part: str,
) -> None:
    assert callable(change)
    save_model(tmp_path / "other", change(parts), card="")
    words = ["--mean-with", str(tmp_path / "other"), "--out", str(tmp_path / "mean")]
    assert main(["pack", "--model", str(tiny_model), *words]) == 1
    error = capsys.readouterr().err
    assert f"has another {part} than {tiny_model}" in error
    assert error.endswith("train the second with --init at the first\n")
    assert not (tmp_path / "mean").exists()
