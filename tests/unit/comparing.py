"""Captions to draw, and what tells whether two drawings are the same."""

from __future__ import annotations

from collections.abc import Iterable

from dalle import CaptionFailure, CaptionResult, GeneratedImage

FOX, APPLES, ROBOT = "a fox on a blue background", "two apples", "a robot above a car"
MANY = [f"a fox no. {number}" for number in range(40)]


def by_index(images: Iterable[GeneratedImage]) -> dict[int, tuple[list[int], bytes, float]]:
    """Tokens, pixels and score of each candidate; the score tells the smallest rounding."""
    return {
        image.recipe.index: (
            image.tokens.ravel().tolist(),
            image.image.tobytes(),
            image.log_likelihood,
        )
        for image in images
    }


def tokens_of(outcome: CaptionResult | CaptionFailure) -> list[list[int]]:
    assert isinstance(outcome, CaptionResult), outcome
    return [image.tokens.ravel().tolist() for image in outcome.images]
