"""A finished picture, and the PNG file that remembers how it was made.

The settings travel in an iTXt chunk named `parameters`, as JSON; `dalle generate --like` reads
them back. Axes: h w grid rows and columns.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from dalle.config import MAX_CANDIDATES, SamplingConfig, WeightType, check_seed
from dalle.model_config import TO_DRAW
from dalle.schema import build_config
from dalle.whole_file import write_whole

if TYPE_CHECKING:
    from dalle.rerank import RankerName  # which loads torch; reading a recipe needs none

CHUNK = "parameters"
FORMAT_VERSION = 1
MAX_CHUNK_CHARS = 64 * 1024
MAX_BATCH = 256
"""Images decoded together, at most, by any version; keeps a forged picture from taking memory."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a picture depends on."""

    caption: str
    """As the person wrote it; empty for the null caption."""
    seed: int
    index: int
    """Which candidate, from 0."""
    sampling: SamplingConfig
    batch: tuple[int, int]
    """Captions and candidates that were decoded together: rounding depends on it."""
    model: str
    """Fingerprint of the model folder."""
    prompt: tuple[int, ...] = ()
    """Image tokens that were given rather than drawn, in raster order: whole rows from the top, or
    the whole grid with -1 for each token of a rectangle that was drawn."""
    dtype: WeightType = "fp32"
    """Type of the weights that drew it."""
    compiled: bool = False
    """Whether the compiled decode step drew it."""
    device: str = "cpu"
    """Kind of device, as torch calls it: each has random numbers of its own."""

    def drawn_cells(self, grid: tuple[int, int], *, codes: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, in cells of the token grid, of what was drawn.

        A recipe comes from a file that anybody may have written: what it says was given must fit
        the model before it is used.

        Args:
            grid: Rows and columns of the model's token grid.
            codes: Size of the model's codebook.

        Raises:
            ValueError: What `prompt` leaves to draw is nothing or no rectangle, or it holds other
                codes.
        """
        height, width = grid
        kept = [token for token in self.prompt if token != TO_DRAW]
        if kept and not 0 <= min(kept) <= max(kept) < codes:
            raise ValueError(
                f"prompt must hold tokens from 0 to {codes - 1:,}, got "
                f"{_shown(min(kept))} to {_shown(max(kept))}"
            )
        rows, rest = divmod(len(self.prompt), width)
        if not rest and rows < height and len(kept) == len(self.prompt):
            return (0, rows, width, height)
        if not rest and rows == height and 0 < len(kept) < len(self.prompt):
            drawn = np.array(self.prompt).reshape(grid) == TO_DRAW  # h w
            down, across = np.nonzero(drawn)
            left, top, right, bottom = across.min(), down.min(), across.max() + 1, down.max() + 1
            if drawn[top:bottom, left:right].all():
                return (int(left), int(top), int(right), int(bottom))
        raise ValueError(
            f"prompt must be at most {height - 1} whole rows of {width} tokens, or the whole grid "
            f"with {TO_DRAW} for each token of a rectangle, got {len(self.prompt)} tokens, "
            f"{len(self.prompt) - len(kept)} of them {TO_DRAW}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedImage:
    """One candidate, finished."""

    image: Image.Image
    tokens: np.ndarray
    """Token grid, shape (h, w), int64."""
    log_likelihood: float
    """Mean log-probability of the image tokens from the first drawn one on, nats; at temperature 1,
    unguided. Where a region was drawn, kept tokens behind it count too."""
    score: float | None
    """What it was ranked by, higher is better; None if nothing scored it."""
    ranker: RankerName
    """What the score is: see `dalle.rerank`."""
    recipe: Recipe

    def __repr__(self) -> str:
        """One line: a result of many pictures is printed by people who want to read it."""
        scored = "" if self.score is None else f", {self.ranker} {self.score:.3f}"
        recipe = self.recipe
        return f"GeneratedImage({recipe.caption!r}, seed {recipe.seed}, no. {recipe.index}{scored})"

    def save(self, path: Path | str) -> None:
        """Write a PNG with the recipe in it; the file appears whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        write_whole(Path(path), self.png())

    def png(self) -> bytes:
        """The content of the file that `save` writes."""
        parameters = {
            "format_version": FORMAT_VERSION,
            **dataclasses.asdict(self.recipe),
            "score": self.score,
            "ranker": self.ranker,
        }
        info = PngImagePlugin.PngInfo()
        info.add_itxt(CHUNK, json.dumps(parameters, ensure_ascii=False))
        return _encoded(self.image, info)


def save_png(image: Image.Image, path: Path) -> None:
    """Write `image` to `path`, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    write_whole(path, _encoded(image))


def _encoded(image: Image.Image, info: PngImagePlugin.PngInfo | None = None) -> bytes:
    """`image` as the content of a PNG file."""
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", pnginfo=info)
    return encoded.getvalue()


def read_recipe(source: Path | bytes) -> Recipe:
    """The recipe in a PNG that `GeneratedImage.save` wrote; its pixels are not looked at.

    Args:
        source: The file's path or content.

    Raises:
        ValueError: The file is not such a PNG, or its recipe is damaged.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    name = "the picture" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(file, formats=["PNG"]) as image:
            text = image.info.get(CHUNK)
    except FileNotFoundError as err:
        raise ValueError(f"{name} does not exist; give a PNG that dalle generate wrote") from err
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        reason = "it is none" if isinstance(err, UnidentifiedImageError) else err
        raise ValueError(
            f"{name} cannot be read as a PNG ({reason}); give a PNG that dalle generate wrote"
        ) from err
    if not isinstance(text, str):
        raise ValueError(
            f"{name} holds no settings (no {CHUNK!r} chunk); only pictures that dalle generate "
            "wrote, unedited, can be redrawn; go on from any other picture with --image"
        )
    if len(text) > MAX_CHUNK_CHARS:
        raise ValueError(
            f"{name}: its settings have {len(text):,} characters, at most {MAX_CHUNK_CHARS:,} "
            "are read"
        )
    try:
        return _recipe(json.loads(text))
    except RecursionError as err:
        raise ValueError(f"{name}: its settings are nested too deeply") from err
    except (ValueError, TypeError) as err:
        raise ValueError(f"{name}: its settings cannot be used: {err}") from err


def _recipe(values: object) -> Recipe:
    """A recipe from the JSON of a chunk, every value checked.

    Raises:
        TypeError: A value is missing or of the wrong type.
        ValueError: A value is out of range.
    """
    if not isinstance(values, dict):
        raise TypeError(f"they must be a JSON object, got {type(values).__name__}")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"format_version must be {FORMAT_VERSION}, got {version!r}")
    batch = _member(values, "batch", list)
    if len(batch) != 2 or any(type(size) is not int or size < 1 for size in batch):
        raise ValueError(f"batch must be two whole numbers from 1 on, got {batch}")
    if batch[0] * batch[1] > MAX_BATCH:
        raise ValueError(f"batch must be at most {MAX_BATCH} images, got {batch}")
    prompt = values.get("prompt", [])
    if type(prompt) is not list or any(type(token) is not int for token in prompt):
        raise TypeError(f"prompt must be a list of whole numbers, got {_shown(prompt)}")
    recipe = Recipe(
        caption=_member(values, "caption", str),
        seed=_member(values, "seed", int),
        index=_member(values, "index", int),
        sampling=build_config(SamplingConfig, values.get("sampling"), where="sampling"),
        batch=(batch[0], batch[1]),
        model=_member(values, "model", str),
        prompt=tuple(prompt),
        dtype=_weight_type(values.get("dtype", "fp32")),
        compiled=_member({"compiled": False, **values}, "compiled", bool),
        device=_member({"device": "cpu", **values}, "device", str),
    )
    check_seed(recipe.seed)
    if not 0 <= recipe.index < MAX_CANDIDATES:
        raise ValueError(f"index must be between 0 and {MAX_CANDIDATES - 1:,}, got {recipe.index}")
    return recipe


def _weight_type(value: object) -> WeightType:
    """The type of weights that a recipe names; older ones name none and mean fp32."""
    for known in get_args(WeightType):
        if value == known:
            return cast(WeightType, known)
    raise ValueError(f"dtype must be one of {', '.join(get_args(WeightType))}, got {_shown(value)}")


def _member(values: Mapping[str, Any], name: str, kind: type) -> Any:
    if type(values.get(name)) is not kind:
        raise TypeError(f"{name} must be {_KINDS[kind]}, got {_shown(values.get(name))}")
    return values[name]


_KINDS = {str: "text", int: "a whole number", list: "a list", bool: "true or false"}


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
