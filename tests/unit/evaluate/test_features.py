"""Features of a tiny model, checked against its parameters and its own output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm, linear

from dalle.checkpoint import ModelParts, load_model
from dalle.evaluate import features
from dalle.evaluate.features import CODE_COUNTS, CODES, PIXELS, Features, features_of
from dalle.sequence import null_caption
from vae.pixels import to_pixels

PICTURES = 5


@pytest.fixture(scope="module")
def parts(tiny_model: Path) -> ModelParts:
    parts = load_model(tiny_model)
    parts.vae.eval()
    parts.transformer.eval()
    return parts


@pytest.fixture(scope="module")
def images_u8() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (PICTURES, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def found(parts: ModelParts, images_u8: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Features:
    """In batches of two, and in full precision wherever the test runs."""
    monkeypatch.setattr(features, "BATCH", 2)
    monkeypatch.setattr(features, "autocast_dtype", lambda wanted, device: None)
    return features_of(parts, images_u8)


def tokens_of(parts: ModelParts, images_u8: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return parts.vae.encode(to_pixels(torch.from_numpy(images_u8))).flatten(1)  # b m


def test_there_is_a_vector_for_every_depth(found: Features, parts: ModelParts) -> None:
    config = parts.transformer.config
    assert found.layers.shape == (config.layers + 1, PICTURES, 2 * config.width)
    assert found.layers.dtype == np.float32


def test_depth_0_is_the_embedding_normalised(
    found: Features, parts: ModelParts, images_u8: np.ndarray
) -> None:
    model, tokens = parts.transformer, tokens_of(parts, images_u8)[:, :-1]
    places = torch.arange(tokens.shape[1])
    embedded = (
        model.image_embedding.weight[tokens]
        + model.row_position.weight[places // 4]
        + model.column_position.weight[places % 4]
    )
    norm = model.block_list()[0].attention_norm
    normal = layer_norm(embedded, (embedded.shape[-1],), norm.weight, norm.bias)
    means, deviations = np.split(found.layers[0], 2, axis=1)
    np.testing.assert_allclose(means, normal.mean(dim=1).detach(), atol=1e-5)
    squares = (normal - normal.mean(dim=1, keepdim=True)).square().sum(dim=1)
    expected = (squares / (tokens.shape[1] - 1)).sqrt()
    np.testing.assert_allclose(deviations, expected.detach(), atol=1e-5)


def test_the_last_depth_is_what_image_logits_are_made_of(
    found: Features, parts: ModelParts, images_u8: np.ndarray
) -> None:
    """Projection and averaging commute, so averaged logits must be the projected average."""
    model, tokens = parts.transformer, tokens_of(parts, images_u8)
    text_ids = null_caption(model.sequence).expand(PICTURES, -1)
    with torch.inference_mode():
        logits = model(text_ids, tokens).image[:, 1:].mean(dim=1)  # that read an image token
        means, _ = torch.from_numpy(found.layers[-1]).chunk(2, dim=1)
        projected = linear(means, model.image_unembedding_weight())
    np.testing.assert_allclose(projected, logits, atol=2e-4, rtol=1e-4)


def test_baselines_are_pixels_and_codes(
    found: Features, parts: ModelParts, images_u8: np.ndarray
) -> None:
    tokens = tokens_of(parts, images_u8)
    np.testing.assert_allclose(found.baselines[PIXELS], images_u8.reshape(PICTURES, -1) / 255)
    counts = np.stack([np.bincount(row, minlength=32) for row in tokens.numpy()])
    assert (found.baselines[CODE_COUNTS] == counts).all()
    codebook = parts.vae.quantizer.codebook.detach()
    np.testing.assert_array_equal(
        found.baselines[CODES], codebook[tokens].reshape(PICTURES, -1).numpy()
    )


def test_the_model_is_left_as_it_was(found: Features, parts: ModelParts) -> None:
    del found
    assert not any(module._forward_hooks for module in parts.transformer.modules())


def test_a_failure_leaves_no_hook_behind(parts: ModelParts) -> None:
    with pytest.raises(ValueError, match="stride"):
        features_of(parts, np.zeros((1, 15, 15, 3), dtype=np.uint8))
    assert not any(module._forward_hooks for module in parts.transformer.modules())
