"""What is measured: named shapes with random weights, or a model of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from dalle.checkpoint import has_clip, load_clip, load_model
from dalle.clip import build_clip
from dalle.config import SamplingConfig
from dalle.flops import Shape
from dalle.folders import model_folder
from dalle.model_config import ClipConfig, SequenceConfig, TransformerConfig
from dalle.sequence import null_caption
from dalle.transformer import JointTransformer
from vae import DiscreteVAE, VaeConfig

TOP_K = 128
"""Of the named workloads, as the measured peers have it."""


def _shape(width: int, layers: int, heads: int, *, side: int, image_vocab: int = 2048) -> Shape:
    return Shape(
        sequence=SequenceConfig(
            text_len=64, text_vocab=8192, grid_h=side, grid_w=side, image_vocab=image_vocab
        ),
        config=TransformerConfig(width=width, layers=layers, heads=heads),
    )


NAMED: dict[str, Shape] = {
    "small": _shape(512, 12, 8, side=16),
    "tiny": _shape(256, 8, 4, side=8),
    "xl": _shape(1536, 42, 24, side=16, image_vocab=8192),
}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Models to measure, on their device, in evaluation mode."""

    name: str
    shape: Shape
    transformer: JointTransformer
    vae: DiscreteVAE
    make_clip: Callable[[], tuple[nn.Module, ClipConfig]]
    """Makes a CLIP, on the CPU: not at once, as its library is large beside a model's training."""
    sampling: SamplingConfig

    def captions(self, count: int) -> Tensor:
        """Distinct captions of half the greatest length, shape (c, t), int64."""
        sequence = self.shape.sequence
        rows = null_caption(sequence).repeat(count, 1)
        words = torch.arange(count * sequence.text_len).view(count, -1) % sequence.text_vocab
        half = max(1, sequence.text_len // 2)
        rows[:, :half] = words[:, :half]
        return rows.to(next(self.transformer.parameters()).device)


def load_workload(name: str, device: torch.device) -> Workload:
    """A named workload, or the model in a folder, on `device`.

    Raises:
        ModelFormatError: There is no such workload or model.
    """
    if name in NAMED:
        return random_workload(name, NAMED[name], device)
    folder = model_folder(name)
    parts = load_model(folder)
    transformer = parts.transformer
    return Workload(
        name=name,
        shape=Shape(sequence=transformer.sequence, config=transformer.config),
        transformer=transformer.to(device).eval(),
        vae=parts.vae.to(device).eval(),
        make_clip=partial(_own_clip, folder) if has_clip(folder) else _random_clip,
        sampling=parts.sampling,
    )


def random_workload(name: str, shape: Shape, device: torch.device) -> Workload:
    """Models of a shape with random weights; the same each time."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        transformer = JointTransformer(shape.sequence, shape.config).eval()
        vae = DiscreteVAE(
            VaeConfig(channels=64, blocks_per_group=1, codebook_size=shape.sequence.image_vocab)
        ).eval()
    return Workload(
        name=name,
        shape=shape,
        transformer=transformer,
        vae=vae,
        make_clip=_random_clip,
        sampling=SamplingConfig(top_k=TOP_K),
    )


def with_grid(shape: Shape, side: int, *, masks: bool = False) -> Shape:
    """A shape with another grid of image tokens, and with the paper's masks if asked for."""
    return Shape(
        sequence=replace(shape.sequence, grid_h=side, grid_w=side),
        config=replace(shape.config, attention="paper" if masks else "dense"),
    )


def _own_clip(folder: Path) -> tuple[nn.Module, ClipConfig]:
    parts = load_clip(folder)
    return parts.model, parts.config


def _random_clip() -> tuple[nn.Module, ClipConfig]:
    config = ClipConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_clip(config, 512), config
