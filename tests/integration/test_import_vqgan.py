"""`dalle import vae --checkpoint`: a VQGAN's file becomes a folder that says the same of a picture.

The published files cannot be had here. Their tensors' names and arithmetic (taming-transformers,
commit 3ba01b2) are written out anew below, for models of test size.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dalle.checkpoint import load_vae
from dalle.cli import main
from vae import DiscreteVAE, VaeConfig

CHANNELS, CODES, WIDTH, BLOCKS = 32, 40, 6, 2
MULTIPLES = (1, 1, 2)
Kind = Literal["nearest", "gumbel"]
State = dict[str, Tensor]


# ------------------------------------------------------------------ their layout and arithmetic


class Named:
    """Random weights under their names."""

    def __init__(self) -> None:
        self.state: State = {}

    def conv(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        scale = (inputs * kernel**2) ** -0.5
        self.state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * scale
        self.state[f"{name}.bias"] = torch.randn(outputs) / 10

    def norm(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"] = 1 + torch.randn(width) / 10
        self.state[f"{name}.bias"] = torch.randn(width) / 10

    def block(self, name: str, inputs: int, outputs: int) -> None:
        self.norm(f"{name}.norm1", inputs)
        self.conv(f"{name}.conv1", inputs, outputs, 3)
        self.norm(f"{name}.norm2", outputs)
        self.conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            self.conv(f"{name}.nin_shortcut", inputs, outputs, 1)

    def attention(self, name: str, width: int) -> None:
        self.norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            self.conv(f"{name}.{part}", width, width, 1)

    def middle(self, half: str, width: int) -> None:
        self.block(f"{half}.mid.block_1", width, width)
        self.attention(f"{half}.mid.attn_1", width)
        self.block(f"{half}.mid.block_2", width, width)

    def encoder(self, widths: list[int]) -> None:
        self.conv("encoder.conv_in", 3, CHANNELS, 3)
        width = CHANNELS
        for level, outputs in enumerate(widths):
            for number in range(BLOCKS):
                self.block(f"encoder.down.{level}.block.{number}", width, outputs)
                width = outputs
                if level == len(widths) - 1:
                    self.attention(f"encoder.down.{level}.attn.{number}", width)
            if level != len(widths) - 1:
                self.conv(f"encoder.down.{level}.downsample.conv", width, width, 3)
        self.middle("encoder", width)
        self.norm("encoder.norm_out", width)
        self.conv("encoder.conv_out", width, WIDTH, 3)

    def decoder(self, widths: list[int]) -> None:
        width = widths[-1]
        self.conv("decoder.conv_in", WIDTH, width, 3)
        self.middle("decoder", width)
        for level in reversed(range(len(widths))):
            for number in range(BLOCKS + 1):
                self.block(f"decoder.up.{level}.block.{number}", width, widths[level])
                width = widths[level]
                if level == len(widths) - 1:
                    self.attention(f"decoder.up.{level}.attn.{number}", width)
            if level:
                self.conv(f"decoder.up.{level}.upsample.conv", width, width, 3)
        self.norm("decoder.norm_out", width)
        self.conv("decoder.conv_out", width, 3, 3)


def named_tensors(kind: Kind) -> State:
    """All weights of a VQGAN."""
    torch.manual_seed(5)
    named, widths = Named(), [CHANNELS * multiple for multiple in MULTIPLES]
    named.encoder(widths)
    named.decoder(widths)
    named.conv("quant_conv", WIDTH, WIDTH, 1)
    named.conv("post_quant_conv", WIDTH, WIDTH, 1)
    if kind == "gumbel":
        named.conv("quantize.proj", WIDTH, CODES, 1)
    codes = "embedding" if kind == "nearest" else "embed"
    named.state[f"quantize.{codes}.weight"] = torch.randn(CODES, WIDTH) / 2
    return named.state


class Theirs:
    """Runs tensors by their names."""

    def __init__(self, state: State) -> None:
        self.state = state

    def conv(self, name: str, x: Tensor, *, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = 0 if stride == 2 else weight.shape[-1] // 2
        return functional.conv2d(x, weight, self.state[f"{name}.bias"], stride, padding)

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return functional.group_norm(x, 32, weight, bias, eps=1e-6)

    def block(self, name: str, x: Tensor) -> Tensor:
        h = x
        for number in (1, 2):
            h = self.norm(f"{name}.norm{number}", h)
            h = self.conv(f"{name}.conv{number}", h * torch.sigmoid(h))
        if f"{name}.nin_shortcut.weight" in self.state:
            x = self.conv(f"{name}.nin_shortcut", x)
        return x + h

    def attention(self, name: str, x: Tensor) -> Tensor:
        h = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", h).flatten(2) for part in "qkv")  # b c (h w)
        weights = torch.softmax(q.transpose(1, 2) @ k * q.shape[1] ** -0.5, dim=2)
        seen = (v @ weights.transpose(1, 2)).reshape(x.shape)
        return x + self.conv(f"{name}.proj_out", seen)

    def middle(self, half: str, x: Tensor) -> Tensor:
        x = self.block(f"{half}.mid.block_1", x)
        return self.block(f"{half}.mid.block_2", self.attention(f"{half}.mid.attn_1", x))

    def out(self, half: str, x: Tensor) -> Tensor:
        x = self.norm(f"{half}.norm_out", x)
        return self.conv(f"{half}.conv_out", x * torch.sigmoid(x))

    def encode(self, x: Tensor) -> Tensor:
        x = self.conv("encoder.conv_in", x)
        last = len(MULTIPLES) - 1
        for level in range(len(MULTIPLES)):
            for number in range(BLOCKS):
                x = self.block(f"encoder.down.{level}.block.{number}", x)
                if level == last:
                    x = self.attention(f"encoder.down.{level}.attn.{number}", x)
            if level != last:
                padded = functional.pad(x, (0, 1, 0, 1))
                x = self.conv(f"encoder.down.{level}.downsample.conv", padded, stride=2)
        x = self.conv("quant_conv", self.out("encoder", self.middle("encoder", x)))
        if "quantize.proj.weight" in self.state:
            return self.conv("quantize.proj", x).argmax(dim=1)
        codes = self.state["quantize.embedding.weight"]
        return (
            torch.cdist(x.permute(0, 2, 3, 1).reshape(-1, WIDTH), codes)
            .argmin(dim=1)
            .reshape(len(x), *x.shape[2:])
        )

    def decode(self, tokens: Tensor) -> Tensor:
        name = "embed" if "quantize.embed.weight" in self.state else "embedding"
        x = self.state[f"quantize.{name}.weight"][tokens].permute(0, 3, 1, 2)
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", x))
        x = self.middle("decoder", x)
        for level in reversed(range(len(MULTIPLES))):
            for number in range(BLOCKS + 1):
                x = self.block(f"decoder.up.{level}.block.{number}", x)
                if level == len(MULTIPLES) - 1:
                    x = self.attention(f"decoder.up.{level}.attn.{number}", x)
            if level:
                larger = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(f"decoder.up.{level}.upsample.conv", larger)
        return self.out("decoder", x).clamp(-1, 1)


# ---------------------------------------------------------------------------------------- the tests


def lightning(state: State, path: Path) -> Path:
    """A file as Lightning leaves it: weights, the losses' nets, and objects of gone classes."""
    package = types.ModuleType("lightning_of_tests")
    callback = type("ModelCheckpoint", (), {"__module__": package.__name__})
    package.ModelCheckpoint = callback  # type: ignore[attr-defined]
    sys.modules[package.__name__] = package
    try:
        tree = {
            "epoch": 3,
            "state_dict": state | {"loss.discriminator.main.0.weight": torch.ones(4, 3, 4, 4)},
            "callbacks": {callback: {"best_model_score": torch.tensor(0.1)}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        }
        torch.save(tree, path)
    finally:
        del sys.modules[package.__name__]
    return path


@torch.no_grad()
@pytest.mark.parametrize("kind", ["nearest", "gumbel"])
def test_tokens_and_pictures_are_theirs(kind: Kind, tmp_path: Path) -> None:
    state = named_tensors(kind)
    file = lightning(state, tmp_path / "last.ckpt")
    out = tmp_path / "vae"
    assert main(["import", "vae", "--checkpoint", str(file), "--out", str(out)]) == 0
    vae = load_vae(out)
    assert (vae.config.stride, vae.config.quantizer, vae.config.multiples) == (4, kind, MULTIPLES)
    colours = torch.rand(12, 3, 1, 1) * 2 - 1
    pixels = (colours + torch.randn(12, 3, 16, 24) / 3).clamp(-1, 1)
    theirs = Theirs(state)
    tokens = vae.encode(pixels)
    assert tokens.shape == (12, 4, 6)
    assert len(tokens.unique()) > 8
    assert torch.equal(tokens, theirs.encode(pixels))
    torch.testing.assert_close(vae.decode(tokens), theirs.decode(tokens), rtol=0, atol=1e-4)


def test_files_of_other_shapes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, file, out = named_tensors("nearest"), tmp_path / "last.ckpt", tmp_path / "vae"

    def said(change: State, *, without: str = "nothing") -> str:
        kept = {name: one for name, one in state.items() if without not in name}
        lightning(kept | change, file)
        assert main(["import", "vae", "--checkpoint", str(file), "--out", str(out)]) == 1
        assert not out.exists()
        return capsys.readouterr().err

    assert "has no tensor quantize.embedding.weight" in said({}, without="quantize")
    assert "decoder.up.0.block.2.conv1.weight of" in said({}, without="up.0.block.2")
    assert "more of" in said({"more": torch.ones(1)})
    assert "post_quant_conv.bias of" in said({"post_quant_conv.bias": torch.ones(7)})
    nan = torch.full((WIDTH,), torch.nan)
    assert "holds values that are not finite" in said({"quant_conv.bias": nan})
    assert "is of no shape of a VQGAN" in said({"encoder.conv_in.weight": torch.ones(20, 3, 3, 3)})
    assert "is of no shape of a VQGAN" in said({}, without="encoder.down")


@pytest.mark.parametrize("words", ["", "--encoder a.pkl", "--encoder a --decoder b --checkpoint c"])
def test_one_kind_of_file_is_asked_for(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "vae", "--out", "x", *words.split()]) == 2
    assert "give --encoder and --decoder (OpenAI's dVAE), or" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("groups", "multiples", "codes", "quantizer", "weights"),
    [
        (5, (1, 1, 2, 2, 4), 1024, "nearest", 72_141_699),
        (5, (1, 1, 2, 2, 4), 16384, "nearest", 76_073_859),
        (4, (1, 1, 2, 4), 8192, "gumbel", 68_995_971),
    ],
)
def test_published_sizes_have_as_many_weights_as_the_published_files(
    groups: int, multiples: tuple[int, ...], codes: int, quantizer: Kind, weights: int
) -> None:
    config = VaeConfig(
        family="vqgan", channels=128, groups=groups, multiples=multiples, codebook_size=codes,
        codebook_dim=256, quantizer=quantizer, likelihood="l1",
    )  # fmt: skip
    with torch.device("meta"):
        vae = DiscreteVAE(config)
    halves = sum(one.numel() for half in (vae.encoder, vae.decoder) for one in half.parameters())
    # Their Gumbel quantiser has two convolutions where ours has their product.
    logits = 256 * codes + codes if quantizer == "gumbel" else 0
    assert halves + 256 * 256 + 256 + logits + vae.quantizer.codebook.numel() == weights
