"""The order of candidates."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from dalle import TextToImage
from dalle.checkpoint import CLIP_FILE, load_model
from dalle.clip import ClipScorer
from dalle.errors import ClipUnavailableError, ModelFormatError
from dalle.rerank import ClipRanker, RankerName, rank

NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ([], []),
        ([-3.0, -1.0, -2.0], [1, 2, 0]),
        ([0.5, 0.5, 0.7, 0.5], [2, 0, 1, 3]),  # ties keep their order
        ([NAN, -5.0, NAN, -4.0], [3, 1, 0, 2]),  # NaN never wins, and stays in order
        ([NAN, -math.inf], [1, 0]),  # not even against the worst
        ([-math.inf, math.inf, 0.0], [1, 2, 0]),
        ([None, None], [0, 1]),  # unscored ones stay as drawn
        ([None, -9.0], [1, 0]),
    ],
)
def test_the_highest_score_comes_first(scores: list[float | None], order: list[int]) -> None:
    assert rank(scores) == order


class FixedScorer:
    """Scores that are given beforehand."""

    def __init__(self, scores: list[float], *, likelihood_weight: float = 0.0) -> None:
        self.given = scores
        self.likelihood_weight = likelihood_weight

    def scores(self, caption: str, images: Sequence[Image.Image]) -> list[float]:
        return self.given[: len(images)]


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4))] * count


def test_a_clip_score_that_is_no_number_is_none() -> None:
    ranker = ClipRanker(lambda: cast(ClipScorer, FixedScorer([0.1, NAN, math.inf])))
    assert ranker.scores("a fox", pictures(3), [0.0] * 3) == [0.1, None, None]


@pytest.mark.parametrize(
    ("weight", "scores"),
    [(0.0, [0.5, 0.6, 0.7]), (0.2, [0.48, 0.42, None])],
)
def test_the_likelihood_counts_as_much_as_the_clip_says(
    weight: float, scores: list[float | None]
) -> None:
    scorer = FixedScorer([0.5, 0.6, 0.7], likelihood_weight=weight)
    ranker = ClipRanker(lambda: cast(ClipScorer, scorer))
    assert ranker.scores("a fox", pictures(3), [-0.1, -0.9, NAN]) == scores


def test_a_clip_is_loaded_once_however_many_threads_ask() -> None:
    loads = []

    def load() -> ClipScorer:
        loads.append(1)
        time.sleep(0.05)
        return cast(ClipScorer, FixedScorer([0.5]))

    ranker = ClipRanker(load)
    ranker.prepare()
    with ThreadPoolExecutor(4) as pool:
        scorers = list(pool.map(lambda _: ranker.scorer(), range(8)))
    assert len(loads) == 1
    assert len({id(scorer) for scorer in scorers}) == 1


def broken() -> ClipScorer:
    raise ModelFormatError("it is torn")


def test_pictures_are_not_lost_where_the_clip_is_torn(
    tiny_model: Path,
) -> None:
    """They come as drawn, with a notice."""
    model = TextToImage(load_model(tiny_model), ranker=ClipRanker(broken), device="cpu")
    result = model.generate("a fox", candidates=3).results[0]
    assert [image.recipe.index for image in result.images] == [0, 1, 2]
    assert {image.ranker for image in result.images} == {"none"}
    assert result.notice == "the candidates are not ranked: it is torn"


def test_a_torn_clip_is_read_once(tiny_model: Path) -> None:
    """Bug: it was read and hashed again for every caption of a file."""
    loads = []

    def torn() -> ClipScorer:
        loads.append(1)
        raise ModelFormatError("it is torn")

    model = TextToImage(load_model(tiny_model), ranker=ClipRanker(torn), device="cpu")
    results = list(model.generate_many(["a fox", "a pizza", "two apples"]))
    assert len(results) == 3
    assert len(loads) == 1


def test_a_picture_is_redrawn_also_where_it_cannot_be_scored(tiny_model: Path) -> None:
    """Bug: it was lost, where `generate` draws it with a notice."""
    model = TextToImage(load_model(tiny_model), ranker=ClipRanker(broken), device="cpu")
    picture = model.generate("a fox", candidates=1).images[0]
    again = model.redraw(picture.recipe)
    assert again.image.tobytes() == picture.image.tobytes()
    assert (again.score, again.ranker) == (None, "none")
    assert model.redraw(picture.recipe, ranker="likelihood").score == picture.log_likelihood


def test_a_clip_that_cannot_be_had_leaves_candidates_as_drawn(
    tiny_model: Path,
) -> None:
    tag = "ViT-B-32/laion2b_s34b_b79k"
    model = TextToImage.from_pretrained(tiny_model, clip=tag, device="cpu")
    assert model.ranker.name == "none"
    with pytest.raises(ClipUnavailableError, match="could not be fetched"):
        TextToImage.from_pretrained(tiny_model, clip=tag, require_clip=True, device="cpu")


def test_a_model_without_clip_ranks_by_likelihood_and_refuses_to_rank_by_clip(
    tiny_model: Path,
) -> None:
    model = TextToImage.from_pretrained(tiny_model, device="cpu")
    assert (model.ranker.name, model.clip) == ("likelihood", None)
    with pytest.raises(ValueError, match="this model has no CLIP"):
        model.generate("a fox", ranker="clip")
    with pytest.raises(ClipUnavailableError, match="brings no CLIP"):
        TextToImage.from_pretrained(tiny_model, require_clip=True, device="cpu")


def test_an_unknown_ranker_is_refused(tiny_pipeline: TextToImage) -> None:
    with pytest.raises(ValueError, match="ranker must be clip, likelihood or none, got 'best'"):
        tiny_pipeline.generate("a fox", ranker=cast(RankerName, "best"))


def test_a_clip_that_is_required_is_loaded_at_once(tiny_model: Path, tmp_path: Path) -> None:
    """A damaged one of the model's own once left candidates unranked, with a warning."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / CLIP_FILE).write_bytes(b"torn")
    assert TextToImage.from_pretrained(folder, device="cpu").ranker.name == "clip"
    with pytest.raises(ModelFormatError, match=CLIP_FILE):
        TextToImage.from_pretrained(folder, require_clip=True, device="cpu")


def test_pictures_are_not_lost_where_memory_runs_out_while_ranking(tiny_model: Path) -> None:
    def full() -> ClipScorer:
        raise RuntimeError("out of memory")

    model = TextToImage(load_model(tiny_model), ranker=ClipRanker(full), device="cpu")
    result = model.generate("a fox", candidates=2).results[0]
    assert [image.ranker for image in result.images] == ["none", "none"]
    assert result.notice == "the candidates are not ranked: out of memory"
