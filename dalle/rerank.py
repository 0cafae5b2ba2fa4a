"""Putting candidates in order: what they are scored by, and the best first.

Axis letters: g candidates of a caption.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image

from dalle.checkpoint import has_clip, load_clip
from dalle.clip import (
    SCORE_DECIMALS,
    ClipScorer,
    published_clip_scorer,
    small_clip_scorer,
)
from dalle.errors import ClipUnavailableError, DalleError
from dalle.folders import at_home, model_folder

log = logging.getLogger(__name__)

RankerName = Literal["clip", "likelihood", "none"]
"""What candidates are ordered by:

* `clip`: cosine of picture and caption, as a CLIP sees them, and as much of the likelihood as its
  `likelihood_weight` says: none, unless whoever trained it found that this chooses better;
* `likelihood`: mean log-probability of the image tokens, by the model that drew them;
* `none`: nothing; they stay as drawn.
"""


class Ranker(Protocol):
    """One way to score the candidates of a caption."""

    name: RankerName

    def prepare(self) -> None:
        """Begin whatever scoring will need, without waiting for it."""

    def scores(
        self, caption: str, images: Sequence[Image.Image], log_likelihoods: Sequence[float]
    ) -> list[float | None]:
        """A score for each candidate, higher is better; None where there is no opinion.

        Args:
            caption: What was to be drawn.
            images: The g candidates.
            log_likelihoods: Mean log-probability of each one's image tokens, nats.
        """


class LikelihoodRanker:
    """Orders by what the model that drew them thinks of them."""

    name: RankerName = "likelihood"

    def prepare(self) -> None:
        """Nothing: the scores come with the pictures."""

    def scores(
        self, caption: str, images: Sequence[Image.Image], log_likelihoods: Sequence[float]
    ) -> list[float | None]:
        """The log-likelihoods themselves."""
        del caption, images
        return list(log_likelihoods)


class NoRanker:
    """Leaves candidates in the order in which they were drawn."""

    name: RankerName = "none"

    def prepare(self) -> None:
        """Nothing."""

    def scores(
        self, caption: str, images: Sequence[Image.Image], log_likelihoods: Sequence[float]
    ) -> list[float | None]:
        """No opinion."""
        del caption, log_likelihoods
        return [None] * len(images)


class ClipRanker:
    """Orders by CLIP, which is loaded once, when it is first needed.

    Args:
        load: Builds the scorer; may take seconds, which `prepare` spends in another thread while
            candidates are still being drawn.
    """

    name: RankerName = "clip"

    def __init__(self, load: Callable[[], ClipScorer]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._scorer: ClipScorer | None = None
        self._fault: Callable[[], DalleError] | None = None

    def prepare(self) -> None:
        """Begin to load in the background."""
        if self._scorer is None and self._fault is None:
            threading.Thread(target=self._load_quietly, daemon=True).start()

    def scorer(self) -> ClipScorer:
        """The scorer, loaded if it was not yet.

        Raises:
            DalleError: It cannot be loaded.
        """
        with self._lock:
            if self._fault is not None:  # what is damaged is not read again for every caption
                raise self._fault()
            if self._scorer is None:
                try:
                    self._scorer = self._load()
                except DalleError as err:
                    self._fault = partial(type(err), str(err))  # its trace would hold pictures
                    raise
            return self._scorer

    def scores(
        self, caption: str, images: Sequence[Image.Image], log_likelihoods: Sequence[float]
    ) -> list[float | None]:
        """Cosines, with their share of likelihood; the pictures are looked at in batches.

        What the CLIP was trained on and what the other model finds likely go wrong in different
        pictures: of 200 held-out captions x 32 candidates of a bundled model, the cosine alone
        chose 66.5 % right, the likelihood 59.5 %, and the sum of the one and a fifth of the other
        70.0 %.
        """
        scorer = self.scorer()
        found = scorer.scores(caption, images)
        if weight := scorer.likelihood_weight:
            found = [
                round(cosine + weight * likelihood, SCORE_DECIMALS)
                for cosine, likelihood in zip(found, log_likelihoods, strict=True)
            ]
        return [score if math.isfinite(score) else None for score in found]

    def _load_quietly(self) -> None:
        """Load ahead of need; whoever needs the scorer will meet the error, if there is one."""
        try:
            self.scorer()
        except Exception as err:  # noqa: BLE001 - raised again, in the thread that can report it
            log.debug("CLIP could not be loaded ahead of need: %s", err)


def find_clip_ranker(
    folder: Path, *, clip: str | Path | None, required: bool, device: torch.device
) -> Ranker | None:
    """The ranker that a model folder and a wish for a certain CLIP lead to.

    Args:
        folder: Model folder, which may bring a CLIP.
        clip: Folder of a CLIP of ours or a name of open_clip's; None takes the model's own.
        required: Whether to raise where there is none.
        device: Where it computes.

    Returns:
        A `ClipRanker`; a `NoRanker`, after a warning, where the CLIP asked for is not to be had;
        None where none was asked for and the model has none.

    Raises:
        ValueError: There is no such CLIP.
        ModelFormatError: It is damaged.
        ClipUnavailableError: `required`, and there is none.
    """
    if clip is None:
        if has_clip(folder):
            ranker = ClipRanker(lambda: _our_scorer(folder, device))
            if required:
                ranker.scorer()  # now, since later a fault would only leave candidates unranked
            return ranker
        if required:
            raise ClipUnavailableError(f"{folder} brings no CLIP; name one with --clip")
        return None
    try:
        scorer = _wanted_scorer(clip, device)
    except ClipUnavailableError as err:
        if required:
            raise
        log.warning("the candidates are not ranked: %s", err)
        return NoRanker()
    return ClipRanker(lambda: scorer)


def _wanted_scorer(clip: str | Path, device: torch.device) -> ClipScorer:
    path = at_home(clip)
    if path.is_dir():
        return _our_scorer(model_folder(path), device)
    return published_clip_scorer(str(clip), device)


def _our_scorer(folder: Path, device: torch.device) -> ClipScorer:
    parts = load_clip(folder)
    return small_clip_scorer(parts.model, parts.config, parts.tokenizer, device)


def rank(scores: Sequence[float | None]) -> list[int]:
    """Indices of `scores`, highest first; equal ones keep their order, NaN and None come last."""

    def order(index: int) -> tuple[bool, float]:
        score = scores[index]
        worthless = score is None or math.isnan(score)
        return (worthless, 0.0 if score is None or worthless else -score)

    return sorted(range(len(scores)), key=order)
