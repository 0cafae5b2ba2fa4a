"""What holds for every test: one thread, no network, repeatable examples; and one tiny model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports torch. One thread: models of test size are slower with more, and sums keep
# their order. Offline: a test that needs the network is wrong, so let it fail at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
# Whether somebody has compiled the decode step on this machine must not change what a test sees.
os.environ["DALLE_CACHE"] = f"{os.devnull}/none"
os.environ.pop("DALLE_DEBUG", None)

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from dalle import TextToImage

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a real model of test size: random weights, 4 x 4 tokens, pictures of 16 px.

    The weights are large enough that caption and drawn tokens sway every further token; what
    guidance, a wrong cache or a wrong caption would change does change.
    """
    import torch

    from dalle.captions import CaptionTokenizer
    from dalle.checkpoint import ModelParts, save_model
    from dalle.config import SamplingConfig
    from dalle.model_config import SequenceConfig, TransformerConfig
    from dalle.transformer import JointTransformer
    from vae import DiscreteVAE, VaeConfig

    captions = ["a fox on a blue background", "two apples", "a robot above a car", "a pizza"]
    tokenizer = CaptionTokenizer.train(captions * 3, 290)
    sequence = SequenceConfig(
        text_len=12, text_vocab=tokenizer.vocab_size, grid_h=4, grid_w=4, image_vocab=32
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        transformer = JointTransformer(sequence, TransformerConfig(width=32, layers=2, heads=2))
        for name, parameter in transformer.named_parameters():
            parameter.mul_(1 if "norm" in name else 8)
        vae = DiscreteVAE(
            VaeConfig(channels=8, groups=3, blocks_per_group=1, codebook_size=32, codebook_dim=8)
        )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    parts = ModelParts(
        vae=vae,
        transformer=transformer,
        tokenizer=tokenizer,
        sampling=SamplingConfig(temperature=0.9, top_k=24, guidance_scale=1.5),
        fingerprint="",
    )
    save_model(folder, parts, card="A model of random weights, for tests.\n")
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_model: Path) -> TextToImage:
    """The tiny model, loaded; it keeps nothing between calls, so all tests may share it."""
    from dalle import TextToImage

    return TextToImage.from_pretrained(tiny_model, device="cpu")
