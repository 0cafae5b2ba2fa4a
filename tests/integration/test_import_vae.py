"""`dalle import vae`: OpenAI's files become a folder of ours that says the same of every picture.

The published files cannot be had here. Modules of their classes, names and arithmetic stand for
them (openai/DALL-E, commit 5be4b23), small, written anew, and pickled whole as those were.
"""

from __future__ import annotations

import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dalle.checkpoint import load_vae
from dalle.cli import main
from dalle.config import TrainVae
from dalle.train.runs import train_vae
from vae import DiscreteVAE, VaeConfig
from vae.model import DiscreteVAE as Whole

HIDDEN, GROUPS, BLOCKS, CODES, FIRST = 8, 3, 2, 24, 6


class Conv2d(nn.Module):
    """Theirs keeps its weights as `w` and `b`."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) / inputs**0.5 / kernel)
        self.b = nn.Parameter(torch.randn(outputs) / 20)
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.w, self.b, padding=(self.kernel - 1) // 2)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernels: list[int], layers: int) -> None:
        super().__init__()
        hidden = outputs // 4
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        sizes = [inputs, hidden, hidden, hidden, outputs]
        for number, kernel in enumerate(kernels):
            parts[f"relu_{number + 1}"] = nn.ReLU()
            parts[f"conv_{number + 1}"] = Conv2d(sizes[number], sizes[number + 1], kernel)
        self.id_path = Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.res_path = nn.Sequential(parts)
        self.post_gain = 1 / layers**2

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.id_path(x) + self.post_gain * self.res_path(x))


class Half(nn.Module):
    """Encoder and decoder, as `decodes` says."""

    def __init__(self, *, decodes: bool) -> None:
        super().__init__()
        widths = [HIDDEN * 2**group for group in range(GROUPS)]
        groups: list[tuple[str, nn.Module]] = []
        inputs = FIRST if decodes else HIDDEN
        for number, width in enumerate(reversed(widths) if decodes else widths):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(BLOCKS):
                kernels = [1, 3, 3, 3] if decodes else [3, 3, 3, 1]
                blocks[f"block_{block + 1}"] = Block(inputs, width, kernels, GROUPS * BLOCKS)
                inputs = width
            if number < GROUPS - 1:
                scale = nn.Upsample(scale_factor=2, mode="nearest") if decodes else nn.MaxPool2d(2)
                blocks["upsample" if decodes else "pool"] = scale
            groups.append((f"group_{number + 1}", nn.Sequential(blocks)))
        first = Conv2d(CODES, FIRST, 1) if decodes else Conv2d(3, HIDDEN, 7)
        last = Conv2d(inputs, 6 if decodes else CODES, 1)
        output = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=last))
        self.blocks = nn.Sequential(OrderedDict([("input", first), *groups, ("output", output)]))
        self.device = torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.blocks(x))


@pytest.fixture(scope="module")
def theirs() -> Iterator[tuple[Half, Half]]:
    """Encoder and decoder whose classes live in a package that is gone when they are read."""
    package = types.ModuleType("dall_e_of_tests")
    sys.modules[package.__name__] = package
    for cls in (Conv2d, Block, Half):
        cls.__module__ = package.__name__
        setattr(package, cls.__name__, cls)
    torch.manual_seed(3)
    yield Half(decodes=False), Half(decodes=True)
    sys.modules.pop(package.__name__, None)


@pytest.fixture(scope="module")
def files(theirs: tuple[Half, Half], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """encoder.pkl and decoder.pkl, which no class of this process can be found for any more."""
    folder = tmp_path_factory.mktemp("openai")
    for name, module in zip(("encoder", "decoder"), theirs, strict=True):
        torch.save(module, folder / f"{name}.pkl")
    del sys.modules["dall_e_of_tests"]
    with pytest.raises(ModuleNotFoundError, match="dall_e_of_tests"):
        torch.load(folder / "encoder.pkl", weights_only=False)
    return folder


def command(encoder: Path, decoder: Path, out: Path) -> int:
    words = ["--encoder", str(encoder), "--decoder", str(decoder), "--out", str(out)]
    return main(["import", "vae", *words])


@torch.no_grad()
def test_tokens_and_pictures_are_theirs(
    theirs: tuple[Half, Half], files: Path, tmp_path: Path
) -> None:
    assert command(files / "encoder.pkl", files / "decoder.pkl", tmp_path / "vae") == 0
    vae = load_vae(tmp_path / "vae")
    assert (vae.config.stride, vae.config.codebook_size) == (4, CODES)
    torch.manual_seed(4)
    colours, noise = torch.rand(20, 3, 1, 1), torch.randn(20, 3, 24, 32)
    zero_to_one = (colours + noise / 5).clamp(0, 1)
    logits = theirs[0](0.8 * zero_to_one + 0.1)
    tokens = vae.encode(2 * zero_to_one - 1)
    assert tokens.shape == (20, 6, 8)
    assert torch.equal(tokens, logits.argmax(dim=1)), "at the rim, too"
    assert len(tokens.unique()) > 5
    one_hot = functional.one_hot(tokens, CODES).permute(0, 3, 1, 2).float()
    wanted = ((theirs[1](one_hot)[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1)
    torch.testing.assert_close((vae.decode(tokens) + 1) / 2, wanted, rtol=0, atol=1e-5)
    card = (tmp_path / "vae" / "README.md").read_text()
    assert "| encoder.pkl | SHA-256 " in card


def test_state_dicts_and_older_files_do_as_well(
    theirs: tuple[Half, Half], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy: dict[str, Any] = {"_use_new_zipfile_serialization": False}
    torch.save(theirs[0].state_dict(), tmp_path / "encoder.pt", **legacy)
    save_file(theirs[1].state_dict(), tmp_path / "decoder.safetensors")
    out = tmp_path / "other"
    assert command(tmp_path / "encoder.pt", tmp_path / "decoder.safetensors", out) == 0
    assert command(files / "encoder.pkl", files / "decoder.pkl", tmp_path / "vae") == 0
    one, other = (load_vae(folder).state_dict() for folder in (out, tmp_path / "vae"))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_the_published_sizes_are_the_papers() -> None:
    """As many weights as OpenAI's files have (53,786,240 and 43,829,766)."""
    with torch.device("meta"):
        vae = Whole(VaeConfig())
    counts = [
        sum(parameter.numel() for parameter in part.parameters())
        for part in (vae.encoder, vae.quantizer.head, vae.decoder)
    ]
    assert counts[0] + counts[1] == 53_786_240
    # Theirs has a bias beside the codes, which ours has in them.
    assert counts[2] + vae.quantizer.codebook.numel() + 128 == 43_829_766


def test_files_of_other_kinds_are_refused(
    theirs: tuple[Half, Half], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, decoder, out = files / "encoder.pkl", files / "decoder.pkl", tmp_path / "vae"

    def said(one: Path, other: Path, status: int = 1) -> str:
        assert command(one, other, out) == status
        assert not out.exists()
        return capsys.readouterr().err

    assert "give OpenAI's encoder.pkl as encoder and decoder.pkl as" in said(decoder, encoder)
    assert "absent.pkl: No such file" in said(encoder, tmp_path / "absent.pkl")
    torn = tmp_path / "torn.pkl"
    torn.write_bytes(encoder.read_bytes()[:-2000])
    assert "cannot be read as a file of torch's" in said(torn, decoder)
    torn.write_text("<html>")
    assert "cannot be read as a file of torch's" in said(torn, decoder)
    torn.write_bytes(b"")
    assert "cannot be read as a file of torch's" in said(torn, decoder)
    with zipfile.ZipFile(torn, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 1000)
    assert "is compressed, which torch's files are not" in said(torn, decoder)
    torch.save([1, 2], torn)
    assert "holds neither a module nor a state dict" in said(torn, decoder)
    state = theirs[0].state_dict()
    torch.save(state | {"blocks.input.w": torch.ones(1).expand(HIDDEN, 3, 7, 7)}, torn)
    assert "it is larger than what is stored of it" in said(torn, decoder)
    torch.save(state | {"blocks.input.b": torch.ones(9), "more": torch.ones(1)}, torn)
    err = said(torn, decoder)
    assert "is no floats, or of shape (9,), not floats (8,)" in err
    assert "more of " in err
    torch.save({name: value for name, value in state.items() if "block_2" not in name}, torn)
    assert "differences from what is known): " in said(torn, decoder)
    torch.save(state | {"blocks.input.b": torch.full((HIDDEN,), torch.nan)}, torn)
    assert "holds values that are not finite" in said(torn, decoder)
    torch.save({"weights": torch.ones(2)}, torn)
    assert "has no tensor blocks.input.w; its first ones are weights" in said(torn, decoder)


def test_a_decoder_is_trained_on_their_codes(
    files: Path, tmp_path: Path, vae_settings: Callable[..., TrainVae]
) -> None:
    """`codes_of` an imported dVAE: encoder and codes stay, the decoder is another's."""
    assert command(files / "encoder.pkl", files / "decoder.pkl", tmp_path / "vae") == 0
    theirs = load_vae(tmp_path / "vae")
    run = replace(
        vae_settings(tmp_path / "run", steps=2),
        model=replace(theirs.config, decoder_channels=4),
        codes_of=tmp_path / "vae",
    )
    assert train_vae(run) == 0
    ours = load_vae(tmp_path / "run" / "model")
    assert ours.part_unlike(theirs) is None
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(ours.encode(pixels), theirs.encode(pixels))
    # The same weights that read other pixels are another encoder.
    plain = DiscreteVAE(replace(theirs.config, squeezed_input=False))
    plain.load_state_dict(theirs.state_dict())
    assert plain.part_unlike(theirs) == "encoder"
