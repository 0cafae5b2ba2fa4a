"""What orders pictures that were drawn without a caption."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalle import GeneratedImage, TextToImage
from dalle.checkpoint import load_model
from dalle.clip import ClipScorer
from dalle.errors import ClipUnavailableError
from dalle.rerank import ClipRanker


def missing() -> ClipScorer:
    raise ClipUnavailableError("there is no CLIP to ask")


@pytest.fixture
def clip_model(tiny_model: Path) -> TextToImage:
    """A model whose CLIP fails as soon as it is asked anything."""
    return TextToImage(load_model(tiny_model), ranker=ClipRanker(missing), device="cpu")


@pytest.fixture
def nameless(tiny_pipeline: TextToImage) -> GeneratedImage:
    first = tiny_pipeline.generate("a fox", candidates=1).images[0]
    prompt = tiny_pipeline.first_rows(first, 2)
    return tiny_pipeline.generate(None, image=prompt, candidates=1).images[0]


def test_a_redrawn_completion_is_scored_as_it_was(
    clip_model: TextToImage, nameless: GeneratedImage
) -> None:
    """It was once compared with the empty text by CLIP, and so its file was not the same again."""
    again = clip_model.redraw(nameless.recipe)
    assert (again.ranker, again.score) == ("likelihood", nameless.score)
    assert again.png() == nameless.png()


def test_none_leaves_completions_as_they_were_drawn(
    clip_model: TextToImage, nameless: GeneratedImage
) -> None:
    """Without a caption, likelihood once ordered them whatever was asked for."""
    prompt = clip_model.given_rows(nameless.recipe)
    images = clip_model.generate(None, image=prompt, candidates=6, ranker="none").images
    assert [(image.recipe.index, image.ranker) for image in images] == [
        (index, "none") for index in range(6)
    ]
