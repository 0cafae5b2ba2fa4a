"""VQGANs in the layout of taming-transformers: which of their tensors is which of ours.

Source: CompVis/taming-transformers, commit 3ba01b2. minDALL-E's first stage and ru-dalle's plain
VAE have the same layout. Those with a Gumbel quantiser choose a code by the largest logit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dalle.checkpoint import check_vae_size
from dalle.errors import ModelFormatError
from dalle.foreign_tensors import ForeignTensors, filled_from
from vae import VaeConfig
from vae.model import DiscreteVAE

_TRAINING_ONLY = "loss."
"""The discriminator, and the net that measured distances."""
_RENAMED = {"shortcut": "nin_shortcut", "out": "proj_out"}
_NEAREST, _GUMBEL = "quantize.embedding.weight", "quantize.embed.weight"


def taming_vqgan(checkpoint: ForeignTensors) -> DiscreteVAE:
    """The dVAE that a checkpoint describes.

    Raises:
        ModelFormatError: It is no VQGAN of this kind.
    """
    config = _config(checkpoint)
    check_vae_size(config, checkpoint.path)
    with torch.device("meta"):  # shapes alone, until they are known to be those of the file
        vae = DiscreteVAE(config)
    names = {
        **_by_place(vae.encoder.layers, _encoder_names(config), ours="encoder"),
        **_by_place(vae.decoder.layers, _decoder_names(config), ours="decoder"),
    }
    tensors = {
        name: checkpoint.take(names[name], tensor.shape)
        for name, tensor in vae.state_dict().items()
        if not name.startswith("quantizer.")
    }
    width = config.codebook_dim
    head = checkpoint.take("quant_conv.weight", (width, width, 1, 1))
    bias = checkpoint.take("quant_conv.bias", (width,))
    codes = checkpoint.take(_codebook(checkpoint), (config.codebook_size, width))
    if config.quantizer == "nearest":
        # As if every code had just been chosen once, should somebody train on.
        tensors["quantizer.counts"] = torch.ones(len(codes))
        tensors["quantizer.sums"] = codes.clone()
    else:
        logits = checkpoint.take("quantize.proj.weight", (config.codebook_size, width, 1, 1))
        logits_bias = checkpoint.take("quantize.proj.bias", (config.codebook_size,))
        if not checkpoint.problems:
            head, bias = _one_after_the_other(head, bias, logits, logits_bias)
    tensors |= {"quantizer.head.weight": head, "quantizer.head.bias": bias}
    tensors["quantizer.codebook"] = codes
    checkpoint.pass_over(_TRAINING_ONLY)
    return filled_from(vae, tensors, (checkpoint,))


def _one_after_the_other(
    first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Two 1x1 convolutions as one."""
    outer = second.double().flatten(1)
    weight = outer @ first.double().flatten(1)
    bias = outer @ first_bias.double() + second_bias.double()
    return weight[:, :, None, None].float(), bias.float()


def _codebook(checkpoint: ForeignTensors) -> str:
    return _GUMBEL if _GUMBEL in checkpoint.names else _NEAREST


def _config(checkpoint: ForeignTensors) -> VaeConfig:
    """The shape that the tensors have.

    Raises:
        ModelFormatError: They have none that this dVAE can have.
    """
    codes, stem = (
        checkpoint.shape(_codebook(checkpoint)),
        checkpoint.shape("encoder.conv_in.weight"),
    )
    every = " ".join(checkpoint.names)
    found = re.findall(r"encoder\.down\.(\d{1,2})\.block\.(\d{1,2})\.conv2\.bias", every)
    levels = 1 + max((int(level) for level, _ in found), default=-1)
    blocks = 1 + max((int(block) for _, block in found), default=-1)
    widths = [
        math.prod(checkpoint.shape(f"encoder.down.{level}.block.0.conv2.bias"))
        for level in range(levels)
    ]
    try:
        if len(codes) != 2 or stem[1:] != (3, 3, 3) or any(one % stem[0] for one in widths):
            raise ValueError(f"codes {codes}, first convolution {stem}, {widths} wide")
        return VaeConfig(
            family="vqgan",
            channels=stem[0],
            multiples=tuple(one // stem[0] for one in widths),
            groups=levels,
            blocks_per_group=blocks,
            codebook_size=codes[0],
            codebook_dim=codes[1],
            quantizer="nearest" if _codebook(checkpoint) == _NEAREST else "gumbel",
            likelihood="l1",
        )
    except ValueError as err:
        raise ModelFormatError(f"{checkpoint.path} is of no shape of a VQGAN: {err}") from err


def _encoder_names(config: VaeConfig) -> Iterator[str]:
    """Their names of what has weights, in the order in which it is run."""
    yield "encoder.conv_in"
    last = config.groups - 1
    for level in range(config.groups):
        for block in range(config.blocks_per_group):
            yield f"encoder.down.{level}.block.{block}"
            if level == last:
                yield f"encoder.down.{level}.attn.{block}"
        if level < last:
            yield f"encoder.down.{level}.downsample.conv"
    yield from (f"encoder.{name}" for name in _MIDDLE)
    yield from ("encoder.norm_out", "encoder.conv_out")


def _decoder_names(config: VaeConfig) -> Iterator[str]:
    yield from ("post_quant_conv", "decoder.conv_in")
    yield from (f"decoder.{name}" for name in _MIDDLE)
    for level in reversed(range(config.groups)):
        for block in range(config.blocks_per_group + 1):
            yield f"decoder.up.{level}.block.{block}"
            if level == config.groups - 1:
                yield f"decoder.up.{level}.attn.{block}"
        if level > 0:
            yield f"decoder.up.{level}.upsample.conv"
    yield from ("decoder.norm_out", "decoder.conv_out")


_MIDDLE = ("mid.block_1", "mid.attn_1", "mid.block_2")


def _by_place(layers: nn.Sequential, theirs: Iterator[str], *, ours: str) -> dict[str, str]:
    """Their name of each of our tensors."""
    found = {}
    weighted = [(place, layer.state_dict()) for place, layer in enumerate(layers)]
    weighted = [(place, tensors) for place, tensors in weighted if tensors]
    for (place, tensors), name in zip(weighted, theirs, strict=True):
        for tensor in tensors:
            part, _, kind = tensor.rpartition(".")
            inner = f".{_RENAMED.get(part, part)}" if part else ""
            found[f"{ours}.layers.{place}.{tensor}"] = f"{name}{inner}.{kind}"
    return found
