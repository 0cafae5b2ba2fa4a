"""What a picture is called: the name of its file, and the lines that people read beside it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

from dalle.console import printable

if TYPE_CHECKING:
    from dalle.picture import GeneratedImage, Recipe

NO_CAPTION = "(no caption)"
"""Stands for the null caption where people read."""
SLUG_CHARS = 56
"""Of a file's name: the captions of transforms, which differ near their end, fit."""
_ACCENTS = re.compile(r"[\u0300-\u036f]")


def file_name(recipe: Recipe) -> str:
    """A file name that only this picture has: ASCII words of its caption, a hash, seed, number.

    The hash covers caption, settings and model, so that no picture replaces a different one.
    """
    # Accents apart from their letters: "füchslein" becomes "fuchslein", not "f-chslein".
    letters = _ACCENTS.sub("", unicodedata.normalize("NFKD", recipe.caption.casefold()))
    words = re.sub(r"[^a-z0-9]+", "-", letters)[:SLUG_CHARS].strip("-")
    digest = short_hash(repr(replace(recipe, seed=0, index=0)))
    return f"{words or 'picture'}-{digest}-s{recipe.seed}-i{recipe.index:03d}.png"


def short_hash(text: str) -> str:
    """8 hexadecimal digits that other texts hardly have."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def shown(caption: str, longest: int) -> str:
    """`caption` on one line, without characters that could steer a terminal, cut to `longest`."""
    line = one_line(caption)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def one_line(text: str) -> str:
    """`text` on one line, without characters that could steer a terminal."""
    return " ".join(printable(text).split())


def size_text(image_px: tuple[int, int]) -> str:
    """Height and width in pixels as people say them, width first."""
    return f"{image_px[1]} x {image_px[0]} px"


def score_text(score: float | None, ranker: str) -> str:
    """A score and what it is, for people."""
    return f"{ranker} {'–' if score is None else f'{score:.3f}'}".strip()


def picture_label(image: GeneratedImage) -> str:
    """Two lines under a picture: its caption; its score, seed and number."""
    return (
        f"{shown(image.recipe.caption or NO_CAPTION, 80)}\n"
        f"{score_text(image.score, image.ranker)}, "
        f"seed {image.recipe.seed}, no. {image.recipe.index}"
    )
