"""OpenAI's published dVAE: which of its tensors is which of ours.

Source: the layout of openai/DALL-E, commit 5be4b23, whose encoder and decoder `vae.model` sizes by
config. Its encoder reads pixels of 0.1 to 0.9, and its codes are the columns of the decoder's first
convolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from einops import rearrange
from torch import nn

from dalle.checkpoint import check_vae_size
from dalle.errors import ModelFormatError
from dalle.foreign_tensors import ForeignTensors, filled_from
from vae import VaeConfig
from vae.model import DiscreteVAE, ResidualBlock

_FIRST, _LAST = "blocks.input", "blocks.output.conv"
_IN_BLOCK = {
    "shortcut": "id_path",
    **{f"residual.{2 * place + 1}": f"res_path.conv_{place + 1}" for place in range(4)},
}
"""Names of a residual block's convolutions: ours, and theirs."""


def openai_dvae(encoder: ForeignTensors, decoder: ForeignTensors) -> DiscreteVAE:
    """The dVAE that two files describe.

    Raises:
        ModelFormatError: They are no encoder and decoder of one dVAE of this kind.
    """
    config = _config(encoder, decoder)
    check_vae_size(config, encoder.path)
    with torch.device("meta"):  # shapes alone, until they are known to be those of the files
        vae = DiscreteVAE(config)
    wanted = {name: tensor.shape for name, tensor in vae.state_dict().items()}
    tensors = {}
    places = {"quantizer.head": (encoder, _LAST)}
    for part, half, file in (("encoder", vae.encoder, encoder), ("decoder", vae.decoder, decoder)):
        for ours, theirs in _convolutions(half.layers, config.blocks_per_group):
            places[f"{part}.{ours}"] = (file, theirs)
    for ours, (file, theirs) in places.items():
        tensors[f"{ours}.weight"] = file.take(f"{theirs}.w", wanted[f"{ours}.weight"])
        tensors[f"{ours}.bias"] = file.take(f"{theirs}.b", wanted[f"{ours}.bias"])
    size, width = wanted["quantizer.codebook"]
    columns = decoder.take(f"{_FIRST}.w", (width, size, 1, 1))
    bias = decoder.take(f"{_FIRST}.b", (width,))
    if not decoder.problems:
        # Of a one-hot code, a 1x1 convolution gives the code's column and its bias.
        tensors["quantizer.codebook"] = rearrange(columns, "e k 1 1 -> k e") + bias
    return filled_from(vae, tensors, (encoder, decoder))


def _config(encoder: ForeignTensors, decoder: ForeignTensors) -> VaeConfig:
    stem, head = encoder.shape(f"{_FIRST}.w"), encoder.shape(f"{_LAST}.w")
    codes, output = decoder.shape(f"{_FIRST}.w"), decoder.shape(f"{_LAST}.w")
    if stem[1:] != (3, 7, 7) or output[:1] != (6,) or not head or not codes:
        raise ModelFormatError(
            f"{encoder.path} must begin with a 7x7 convolution of 3 channels, got {tuple(stem)}, "
            f"and {decoder.path} give 6, got {tuple(output)}; give OpenAI's encoder.pkl as encoder "
            "and decoder.pkl as decoder"
        )
    every = " ".join(encoder.names)
    groups, blocks = (
        max((int(found) for found in re.findall(rf"\b{word}_(\d{{1,2}})\.", every)), default=0)
        for word in ("group", "block")
    )
    try:
        return VaeConfig(
            channels=stem[0],
            groups=groups,
            blocks_per_group=blocks,
            squeezed_input=True,
            codebook_size=head[0],
            codebook_dim=codes[0],
            quantizer="gumbel",
            likelihood="logit-laplace",
        )
    except ValueError as err:
        raise ModelFormatError(f"{encoder.path} is of no shape of a dVAE: {err}") from err


def _convolutions(layers: nn.Sequential, blocks: int) -> Iterator[tuple[str, str]]:
    """Names of an encoder's or decoder's convolutions: ours, and theirs."""
    parts = list(enumerate(layers))
    residual = [(place, one) for place, one in parts if isinstance(one, ResidualBlock)]
    for number, (place, block) in enumerate(residual):
        group, within = divmod(number, blocks)
        for ours, theirs in _IN_BLOCK.items():
            if isinstance(block.get_submodule(ours), nn.Conv2d):
                name = f"blocks.group_{group + 1}.block_{within + 1}.{theirs}"
                yield f"layers.{place}.{ours}", name
    for place, one in parts:
        if isinstance(one, nn.Conv2d):
            yield f"layers.{place}", _FIRST if place == 0 else _LAST
