"""Real models of test size, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dalle.captions import CaptionTokenizer
    from dalle.checkpoint import ClipParts

CAPTIONS = ("a fox on a blue background", "two apples", "a robot above a car", "a pizza")


def save_random_model(
    folder: Path,
    *,
    grid: int,
    text_len: int = 12,
    width: int = 32,
    layers: int = 2,
    groups: int = 3,
    codes: int = 32,
    code_dim: int = 8,
    gain: float = 1,
    **sampling: Any,
) -> Path:
    """Write a model folder.

    Args:
        folder: Where to write.
        grid: Rows, and columns, of tokens.
        text_len: Caption tokens.
        width: Width of the transformer, which has two heads.
        layers: Its layers.
        groups: Of the dVAE; a token stands for 2 ** (groups - 1) pixels a side.
        codes: Size of its codebook.
        code_dim: Width of a code.
        gain: What the transformer's weights, norms aside, are multiplied with.
        **sampling: What the model recommends, where it is not temperature 0.9 and top-k 24.

    Returns:
        `folder`.
    """
    import torch

    from dalle.captions import CaptionTokenizer
    from dalle.checkpoint import ModelParts, save_model
    from dalle.config import SamplingConfig
    from dalle.model_config import SequenceConfig, TransformerConfig
    from dalle.transformer import JointTransformer
    from vae import DiscreteVAE, VaeConfig

    tokenizer = CaptionTokenizer.train(list(CAPTIONS) * 3, 290)
    sequence = SequenceConfig(
        text_len=text_len,
        text_vocab=tokenizer.vocab_size,
        grid_h=grid,
        grid_w=grid,
        image_vocab=codes,
    )
    vae = VaeConfig(
        channels=8, groups=groups, blocks_per_group=1, codebook_size=codes, codebook_dim=code_dim
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = JointTransformer(sequence, TransformerConfig(width=width, layers=layers, heads=2))
        for name, parameter in model.named_parameters():
            parameter.mul_(1 if "norm" in name else gain)
        parts = ModelParts(
            vae=DiscreteVAE(vae),
            transformer=model,
            tokenizer=tokenizer,
            sampling=SamplingConfig(**({"temperature": 0.9, "top_k": 24} | sampling)),
            fingerprint="",
        )
    save_model(folder, parts, card="A model of random weights, for tests.\n")
    return folder


def random_clip(tokenizer: CaptionTokenizer, *, seed: int) -> ClipParts:
    """A CLIP for pictures of 32 px and captions that `tokenizer` cuts."""
    import torch

    from dalle.checkpoint import ClipParts
    from dalle.clip import build_clip
    from dalle.model_config import ClipConfig

    config = ClipConfig(
        image_px=32, patch_px=8, image_width=32, image_layers=1, text_len=16,
        text_width=32, text_layers=1, head_width=16, embed_dim=16,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_clip(config, tokenizer.vocab_size).eval()
    return ClipParts(model=model, config=config, tokenizer=tokenizer)
