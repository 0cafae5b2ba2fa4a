"""What the tests of several files share: a folder, a file, and a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from dalle import TextToImage


@pytest.fixture
def cart_file(tmp_path: Path) -> Path:
    """Where settings of `tests.unit.carts` are written."""
    return tmp_path / "cart.yaml"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Model folder of `tiny_parts`."""
    from dalle.checkpoint import save_model
    from tests.unit.small_models import tiny_parts

    save_model(tmp_path / "model", tiny_parts(), card="# A card\n")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def wide_pipeline(tiny_model: Path) -> TextToImage:
    """The tiny model with a wider transformer: products of this width round by their batch size."""
    import dataclasses

    import torch

    from dalle import TextToImage
    from dalle.checkpoint import load_model
    from dalle.model_config import TransformerConfig
    from dalle.transformer import JointTransformer

    parts = load_model(tiny_model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = TransformerConfig(width=256, layers=1, heads=4)
        wide = JointTransformer(parts.transformer.sequence, config)
    return TextToImage(dataclasses.replace(parts, transformer=wide), device="cpu")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the token grids that are decoded during the test."""
    from dalle.image_tokenizer import ImageTokenizer

    shapes: list[tuple[int, ...]] = []
    decode = ImageTokenizer.decode

    def noted(self: ImageTokenizer, grids: Tensor) -> list[Image.Image]:
        shapes.append(tuple(grids.shape))
        return decode(self, grids)

    monkeypatch.setattr(ImageTokenizer, "decode", noted)
    return shapes
