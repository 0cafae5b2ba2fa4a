"""Drawn candidates with the scores that a ranker gives them, the best first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from dalle.drawing import Prepared
from dalle.picture import GeneratedImage
from dalle.request import Request
from dalle.rerank import LikelihoodRanker, NoRanker, Ranker, RankerName, rank
from dalle.results import CaptionResult

log = logging.getLogger(__name__)


def named_ranker(name: RankerName | None, own: Ranker) -> Ranker:
    """The ranker called `name`; None is the model's `own`.

    Raises:
        ValueError: There is none of that name, or no CLIP.
    """
    if name is None or name == own.name:
        return own
    match name:
        case "likelihood":
            return LikelihoodRanker()
        case "none":
            return NoRanker()
        case "clip":
            raise ValueError(
                "ranker is clip, but this model has no CLIP; give one with clip=..., or rank "
                "by likelihood"
            )
    raise ValueError(f"ranker must be clip, likelihood or none, got {name!r}")


def ranker_of(caption: str, ranker: Ranker) -> Ranker:
    """What orders pictures of `caption`: `ranker`, but no CLIP for the null caption.

    It has nothing to compare pictures with; their likelihood takes its place.
    """
    return ranker if caption or ranker.name != "clip" else LikelihoodRanker()


def scored(caption: str, images: Sequence[GeneratedImage], ranker: Ranker) -> list[GeneratedImage]:
    """`images` with the scores that `ranker` gives them."""
    scores = ranker.scores(
        caption, [image.image for image in images], [image.log_likelihood for image in images]
    )
    return [
        replace(image, score=score, ranker=ranker.name)
        for image, score in zip(images, scores, strict=True)
    ]


def ranked(caption: Prepared, images: Sequence[GeneratedImage], request: Request) -> CaptionResult:
    """The best of the candidates that were asked for; `images` may hold some beyond them."""
    result = in_order(
        caption.caption, images[: request.candidates], request.ranker, notice=caption.notice
    )
    return replace(result, images=result.images[: request.keep], prompt=caption.shown)


def in_order(
    caption: str, images: Sequence[GeneratedImage], ranker: Ranker, *, notice: str | None = None
) -> CaptionResult:
    """All of `images`, the best first.

    They are never lost: where the ranker fails, they stay as drawn and a notice says why.
    """
    notices = [notice]
    try:
        images = scored(caption, images, ranker_of(caption, ranker))
    except Exception as err:  # noqa: BLE001 - pictures are worth more than their order
        notices.append(f"the candidates are not ranked: {err}")
        log.warning("%s", notices[-1])
    return CaptionResult(
        caption=caption,
        images=tuple(images[index] for index in rank([image.score for image in images])),
        notice="; ".join(notice for notice in notices if notice) or None,
    )
