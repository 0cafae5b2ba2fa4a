"""Real models of test size, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dalle.config import SamplingConfig
    from dalle.model_config import TransformerConfig
    from vae import VaeConfig

CAPTIONS = ("a fox on a blue background", "two apples", "a robot above a car", "a pizza")


def save_random_model(
    folder: Path,
    *,
    grid: int,
    text_len: int,
    transformer: TransformerConfig,
    vae: VaeConfig,
    sampling: SamplingConfig,
    gain: float = 1,
) -> Path:
    """Write a model folder; its dVAE decides the size of its pictures.

    Args:
        folder: Where to write.
        grid: Rows, and columns, of tokens.
        text_len: Caption tokens.
        transformer: Shape of the transformer.
        vae: Shape of the dVAE.
        sampling: Settings that the model recommends.
        gain: What the transformer's weights, norms aside, are multiplied with.

    Returns:
        `folder`.
    """
    import torch

    from dalle.captions import CaptionTokenizer
    from dalle.checkpoint import ModelParts, save_model
    from dalle.model_config import SequenceConfig
    from dalle.transformer import JointTransformer
    from vae import DiscreteVAE

    tokenizer = CaptionTokenizer.train(list(CAPTIONS) * 3, 290)
    sequence = SequenceConfig(
        text_len=text_len,
        text_vocab=tokenizer.vocab_size,
        grid_h=grid,
        grid_w=grid,
        image_vocab=vae.codebook_size,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = JointTransformer(sequence, transformer)
        for name, parameter in model.named_parameters():
            parameter.mul_(1 if "norm" in name else gain)
        parts = ModelParts(
            vae=DiscreteVAE(vae),
            transformer=model,
            tokenizer=tokenizer,
            sampling=sampling,
            fingerprint="",
        )
    save_model(folder, parts, card="A model of random weights, for tests.\n")
    return folder
