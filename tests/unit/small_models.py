"""Models whose folders tests save, read back and damage."""

from __future__ import annotations

import torch
from torch import nn

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import (
    TRANSFORMER_FILE,
    VAE_FILE,
    ModelParts,
)
from dalle.config import SamplingConfig
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


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
