"""CLIP scorers: what they read, what they return, and how other people's weights are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import ClipParts, load_clip, save_clip
from dalle.clip import (
    ClipScorer,
    build_clip,
    clip_text_ids,
    moved,
    published_clip_scorer,
    small_clip_scorer,
)
from dalle.errors import ClipUnavailableError, ModelFormatError
from dalle.model_config import ClipConfig
from dalle.rerank import rank

CPU = torch.device("cpu")
CONFIG = ClipConfig(
    image_px=16, patch_px=8, image_width=32, image_layers=1, text_len=8,
    text_width=32, text_layers=1, head_width=16, embed_dim=16,
)  # fmt: skip
ARCHITECTURE = "ViT-S-32-alt"
"""The smallest that open_clip knows."""
SIGLIP = ClipConfig(**{**vars(CONFIG), "loss": "siglip"})


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train(["a fox", "two apples", "a red car"], 270)


def parts(tokenizer: CaptionTokenizer, config: ClipConfig = CONFIG) -> ClipParts:
    torch.manual_seed(0)
    model = build_clip(config, tokenizer.vocab_size)
    return ClipParts(model=model, config=config, tokenizer=tokenizer)


def scorer(tokenizer: CaptionTokenizer) -> ClipScorer:
    made = parts(tokenizer)
    return small_clip_scorer(made.model, made.config, made.tokenizer, CPU)


def pictures(count: int, side: int = 16) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in noise]


# --------------------------------------------------------------------------------- our small model


def test_the_end_token_is_the_highest_and_zeros_follow() -> None:
    ids = clip_text_ids([5, 3], config=CONFIG, text_vocab=9)
    assert ids.tolist() == [5, 3, 9, 0, 0, 0, 0, 0]


def test_what_follows_the_end_token_is_not_read(tokenizer: CaptionTokenizer) -> None:
    model: Any = parts(tokenizer).model.eval()
    ids = clip_text_ids([5, 3], config=CONFIG, text_vocab=tokenizer.vocab_size)
    changed = ids.clone()
    changed[3:] = 7
    with torch.inference_mode():
        one, two = (model.encode_text(row[None]) for row in (ids, changed))
    torch.testing.assert_close(one, two)


def test_scores_are_cosines(tokenizer: CaptionTokenizer) -> None:
    judge = scorer(tokenizer)
    images = pictures(3)
    text, seen = judge.text_features(["a fox"]), judge.image_features(images)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(1))
    expected = torch.nn.functional.cosine_similarity(seen, text)
    assert judge.scores("a fox", images) == pytest.approx(expected.tolist(), abs=1e-6)


def test_equal_pictures_tie(tokenizer: CaptionTokenizer) -> None:
    """Of two equal uploads the page's /rank once put the second first, by the last bit."""
    made = parts(tokenizer)
    several = small_clip_scorer(made.model, replace(CONFIG, view_shift_px=3), tokenizer, CPU)
    for count in (2, 5, 33):
        scores = several.scores("a fox", pictures(1) * count)
        assert len(set(scores)) == 1
        assert rank(scores) == list(range(count))


def test_moved_pictures_repeat_their_edge() -> None:
    pixels = torch.arange(6.0).view(1, 1, 2, 3)
    assert moved(pixels, 0, 0) is pixels
    assert moved(pixels, 1, 0).tolist() == [[[[0, 1, 2], [0, 1, 2]]]], "down: the top row twice"
    assert moved(pixels, 0, -1).tolist() == [[[[1, 2, 2], [4, 5, 5]]]], "to the left"
    assert moved(pixels, -1, 2).tolist() == [[[[3, 3, 3], [3, 3, 3]]]]


def test_a_score_of_several_views_is_the_mean_of_their_scores(tokenizer: CaptionTokenizer) -> None:
    made = parts(tokenizer)
    config = replace(CONFIG, view_shift_px=3)
    several = small_clip_scorer(made.model, config, tokenizer, CPU)
    single = small_clip_scorer(made.model, CONFIG, tokenizer, CPU)
    images = pictures(2)
    canvas = [
        Image.fromarray(np.pad(np.asarray(i), ((3, 3), (3, 3), (0, 0)), "edge")) for i in images
    ]
    # The picture itself, and cut from 3 px above, below, left and right of where it lay.
    corners = [(3, 3), (3, 6), (3, 0), (6, 3), (0, 3)]
    expected = [
        np.mean([single.scores("a fox", [one.crop((x, y, x + 16, y + 16))]) for x, y in corners])
        for one in canvas
    ]
    assert several.scores("a fox", images) == pytest.approx(expected, abs=1e-6)


def test_views_that_leave_the_picture_are_refused() -> None:
    for shift in (-1, 16):
        with pytest.raises(ValueError, match=f"view_shift_px must be from 0 to .* got {shift}"):
            replace(CONFIG, view_shift_px=shift)


def test_a_share_of_the_likelihood_that_is_no_number_is_refused() -> None:
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="likelihood_weight must be a number from 0 on"):
            replace(CONFIG, likelihood_weight=weight)


def test_pictures_of_another_size_are_resized_and_batches_change_nothing(
    tokenizer: CaptionTokenizer,
) -> None:
    judge = scorer(tokenizer)
    images = pictures(70)  # more than a batch
    singly = torch.cat([judge.image_features([image]) for image in images[:3]])
    torch.testing.assert_close(judge.image_features(images)[:3], singly)
    large = images[0].resize((64, 64), Image.Resampling.NEAREST)
    assert judge.image_features([large]).shape == (1, CONFIG.embed_dim)


def test_long_captions_are_cut_and_any_text_can_be_read(tokenizer: CaptionTokenizer) -> None:
    judge = scorer(tokenizer)
    features = judge.text_features(["fox " * 500, "狐狸 🦊", ""])
    assert features.isfinite().all()


@pytest.mark.parametrize("config", [CONFIG, SIGLIP])
def test_a_saved_clip_loads_as_it_was(
    config: ClipConfig, tokenizer: CaptionTokenizer, tmp_path: Path
) -> None:
    made = parts(tokenizer, config)
    save_clip(tmp_path / "clip", made)
    loaded = load_clip(tmp_path / "clip")
    assert loaded.config == config
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name]), name
    assert ("logit_bias" in made.model.state_dict()) == (config.loss == "siglip")


def test_a_clip_of_another_shape_is_refused(tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    save_clip(tmp_path / "clip", parts(tokenizer))
    path = tmp_path / "clip" / "config.json"
    tree = json.loads(path.read_text())
    tree["clip"]["embed_dim"] = 32
    path.write_text(json.dumps(tree))
    with pytest.raises(ModelFormatError, match="SHA-256 differs"):
        load_clip(tmp_path / "clip")


# ------------------------------------------------------------------------------- published models


def published(folder: Path) -> Path:
    """A folder as open_clip saves its models, with a tiny model of random weights."""
    folder.mkdir(parents=True)
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1
        },
    }  # fmt: skip
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(**model_cfg)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def local_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("published") / "tiny")


def test_a_local_open_clip_folder_scores(local_clip: Path) -> None:
    judge = published_clip_scorer(f"local-dir:{local_clip}", CPU)
    images = pictures(2, side=40)
    scores = judge.scores("a fox", images)
    again = published_clip_scorer(f"local-dir:{local_clip}", CPU).scores("a fox", images[1:])
    assert len(scores) == 2
    assert all(-1 <= score <= 1 for score in scores)
    assert again[0] == pytest.approx(scores[1], abs=1e-5)


def test_published_models_see_all_of_a_wide_picture(local_clip: Path) -> None:
    """Bug: open_clip's own preparation cuts the middle out."""
    wide = Image.new("RGB", (60, 20), "white")
    other = wide.copy()
    other.paste("red", (0, 0, 15, 20))
    judge = published_clip_scorer(f"local-dir:{local_clip}", CPU)
    first, second = judge.scores("a fox", [wide, other])
    assert abs(first - second) > 1e-3
    # A square is prepared as open_clip prepares it.
    square = pictures(1, side=40)[0]
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{local_clip}")
    with torch.no_grad():
        theirs = model.eval().encode_image(prepare(square)[None], normalize=True)
    torch.testing.assert_close(judge.image_features([square]), theirs)


def test_weights_in_a_file_are_read_for_the_architecture_named(
    local_clip: Path, tmp_path: Path
) -> None:
    """Those of another architecture are refused rather than half loaded."""
    with pytest.raises(ModelFormatError, match="cannot be loaded"):
        published_clip_scorer(f"{ARCHITECTURE}/{local_clip / 'open_clip_model.safetensors'}", CPU)
    garbage = tmp_path / "weights.safetensors"
    garbage.write_bytes(b"\x00" * 100)
    with pytest.raises(ModelFormatError, match="cannot be loaded"):
        published_clip_scorer(f"{ARCHITECTURE}/{garbage}", CPU)


def test_pickled_weights_cannot_run_code(tmp_path: Path) -> None:
    """open_clip reads `.pt` files with torch's restricted unpickler; this would tell if not."""
    witness = tmp_path / "witness"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (witness,))

    weights = tmp_path / "weights.pt"
    torch.save({"state_dict": Payload()}, weights)
    with pytest.raises(ModelFormatError, match="cannot be loaded"):
        published_clip_scorer(f"{ARCHITECTURE}/{weights}", CPU)
    assert not witness.exists()
    torch.load(weights, weights_only=False)
    assert witness.exists(), "the payload works where it is let"


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = published(tmp_path / "nan")
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    tensors["visual.proj"][0, 0] = float("nan")
    save_file(tensors, weights)
    with pytest.raises(ModelFormatError, match=r"visual\.proj holds values that are not finite"):
        published_clip_scorer(f"local-dir:{folder}", CPU)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """open_clip by itself would go on with random weights and a line in the log."""
    # Its path names the place that other models come from, which says nothing of this one.
    folder = published(tmp_path / "github" / "download" / "empty")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelFormatError, match="cannot be loaded"):
        published_clip_scorer(f"local-dir:{folder}", CPU)


def test_a_tag_that_is_not_cached_is_unavailable_offline() -> None:
    with pytest.raises(ClipUnavailableError, match="could not be fetched"):
        published_clip_scorer("ViT-B-32/laion2b_s34b_b79k", CPU)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ViT-B-23/laion2b_s34b_b79k", "did you mean"),
        ("ViT-B-32/laion3b", "its tags are .*laion2b_s34b_b79k"),
        ("ViT-B-32", "neither a file nor a tag"),
        ("local-dir:/no/such/folder", r"has no open_clip_config\.json"),
    ],
)
def test_unknown_models_are_named_with_a_remedy(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        published_clip_scorer(spec, CPU)
