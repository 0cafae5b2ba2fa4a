"""What a frozen model makes of pictures: a vector of each from every depth, and two baselines.

Axes: b pictures, l depths, m image positions, d width, k codes, e code width; y x pixel rows and
columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from tqdm import tqdm

from dalle.checkpoint import ModelParts
from dalle.console import bar_disabled
from dalle.data.order import in_groups
from dalle.device import autocast_dtype
from dalle.sequence import null_caption
from vae.pixels import to_pixels

BATCH = 32
PIXELS, CODES, CODE_COUNTS = "raw pixels", "dVAE codes", "dVAE code counts"
"""The baselines: what a probe reaches without the transformer."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Vectors of pictures, one row each, float32."""

    layers: np.ndarray
    """What the attention of each block reads, and the final states: means and deviations over the
    image's positions, shape (l, b, 2 d); depth 0 is the embedding."""
    baselines: dict[str, np.ndarray]
    """`PIXELS`: all values, shape (b, y * x * 3). `CODES`: the code vectors in their places, shape
    (b, h * w * e). `CODE_COUNTS`: how often each code occurs, shape (b, k)."""


@torch.inference_mode()
def features_of(parts: ModelParts, images_u8: np.ndarray) -> Features:
    """Features of pictures without a caption.

    As in Image GPT a layer's states are taken where its attention reads them, normalised, and
    averaged over positions; how much they vary there is added, which says what is drawn on blank
    paper. The last image token is never an input, so m - 1 positions count.

    Args:
        parts: The model; computes where its weights are.
        images_u8: Pictures of the model's size, shape (b, y, x, 3), uint8.

    Source: Chen et al. 2020, "Generative Pretraining from Pixels", section 3.3.
    """
    transformer, vae = parts.transformer, parts.vae
    sequence, device = transformer.sequence, next(transformer.parameters()).device
    norms = [*(block.attention_norm for block in transformer.block_list()), transformer.final_norm]
    text_ids = null_caption(sequence).to(device)
    layers, codes, counts = [], [], []
    bar = tqdm(total=len(images_u8), unit="img", desc="features", disable=bar_disabled())
    with bar, _outputs(norms) as outputs:
        for group in in_groups(images_u8, BATCH):
            pixels = to_pixels(torch.from_numpy(np.stack(group)).to(device))  # b c y x
            grid = vae.encode(pixels)  # b h w
            tokens = rearrange(grid, "b h w -> b (h w)")
            with _autocast(device):
                transformer(text_ids.expand(len(group), -1), tokens)
            pooled = [_pooled(states[:, sequence.text_len + 1 :].float()) for states in outputs]
            outputs.clear()
            layers.append(torch.stack(pooled).cpu())  # l b 2d
            codes.append(rearrange(vae.quantizer.embed(grid), "b e h w -> b (h w e)").cpu())
            counts.append(nn.functional.one_hot(tokens, sequence.image_vocab).sum(dim=1).cpu())
            bar.update(len(group))
    return Features(
        layers=torch.cat(layers, dim=1).numpy(),
        baselines={
            PIXELS: rearrange(images_u8, "b y x c -> b (y x c)").astype(np.float32) / 255,
            CODES: torch.cat(codes).float().numpy(),
            CODE_COUNTS: torch.cat(counts).float().numpy(),
        },
    )


def _pooled(states: Tensor) -> Tensor:
    """Means and deviations over positions of (b, m, d), shape (b, 2 d)."""
    return torch.cat([states.mean(dim=1), states.std(dim=1)], dim=1)


def _autocast(device: torch.device) -> Any:
    """The precision that training runs in on this machine."""
    dtype = autocast_dtype("auto", device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def _outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that gains what each module puts out, in the order in which they run."""
    found: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output: found.append(output))
        for module in modules
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
