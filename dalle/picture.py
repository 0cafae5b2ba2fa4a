"""A finished picture, and the PNG file that remembers how it was made.

The settings travel in an iTXt chunk named `parameters`, as JSON; `dalle generate --like` reads
them back. Axes: h w grid rows and columns.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from dalle.config import SamplingConfig
from dalle.rerank import RankerName

CHUNK = "parameters"
FORMAT_VERSION = 1
MAX_CHUNK_CHARS = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a picture depends on."""

    caption: str
    """As the person wrote it."""
    seed: int
    index: int
    """Which candidate, from 0."""
    sampling: SamplingConfig
    batch: tuple[int, int]
    """Captions and candidates that were decoded together: rounding depends on it."""
    model: str
    """Fingerprint of the model folder."""


@dataclass(frozen=True, kw_only=True)
class GeneratedImage:
    """One candidate, finished."""

    image: Image.Image
    tokens: np.ndarray
    """Token grid, shape (h, w), int64."""
    log_likelihood: float
    """Mean log-probability of the drawn image tokens, nats; at temperature 1, unguided."""
    score: float
    """What it was ranked by; higher is better."""
    ranker: RankerName
    recipe: Recipe

    def save(self, path: Path) -> None:
        """Write a PNG with the recipe in it; the file appears whole or not at all."""
        parameters = {
            "format_version": FORMAT_VERSION,
            **dataclasses.asdict(self.recipe),
            "score": self.score,
            "ranker": self.ranker,
        }
        info = PngImagePlugin.PngInfo()
        info.add_itxt(CHUNK, json.dumps(parameters, ensure_ascii=False))
        partial = path.with_name(path.name + ".partial")
        try:
            self.image.save(partial, format="PNG", pnginfo=info)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def read_recipe(path: Path) -> Recipe:
    """The recipe in a PNG that `GeneratedImage.save` wrote.

    Raises:
        ValueError: The file is not such a PNG, or its recipe is damaged.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            text = image.info.get(CHUNK)
    except FileNotFoundError as err:
        raise ValueError(f"{path} does not exist; give a PNG that dalle generate wrote") from err
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as err:
        raise ValueError(f"{path} cannot be read as a PNG: {err}") from err
    if not isinstance(text, str):
        raise ValueError(
            f"{path} holds no settings (no {CHUNK!r} chunk); only pictures that dalle generate "
            "wrote, unedited, can be redrawn"
        )
    if len(text) > MAX_CHUNK_CHARS:
        raise ValueError(
            f"{path}: its settings have {len(text):,} characters, at most {MAX_CHUNK_CHARS:,} "
            "are read"
        )
    try:
        return _recipe(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as err:
        raise ValueError(f"{path}: its settings cannot be understood: {err!r}") from err


def _recipe(values: dict[str, Any]) -> Recipe:
    if values["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format_version {values['format_version']!r} is not {FORMAT_VERSION}")
    if values["ranker"] not in get_args(RankerName):
        raise ValueError(f"ranker {values['ranker']!r} is unknown")
    captions, candidates = values["batch"]
    recipe = Recipe(
        caption=values["caption"],
        seed=values["seed"],
        index=values["index"],
        sampling=SamplingConfig(**values["sampling"]),
        batch=(captions, candidates),
        model=values["model"],
    )
    texts = (recipe.caption, recipe.model)
    numbers = (recipe.seed, recipe.index, *recipe.batch)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("caption and model must be strings")
    if not all(type(number) is int for number in numbers) or min(recipe.index, *recipe.batch) < 0:
        raise TypeError("seed, index and batch must be whole numbers")
    return recipe
