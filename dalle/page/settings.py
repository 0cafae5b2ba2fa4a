"""What a person asks the page to draw, checked before anything is loaded or drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, get_args

from dalle.config import SamplingConfig, check_seed, override_sampling
from dalle.image_prompt import CropMode, Layout, Region, region_cells
from dalle.image_prompt import keep_rows as rows_kept
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.prompts import check_prompt

if TYPE_CHECKING:
    from dalle.rerank import RankerName  # which loads torch

RANKERS: tuple[RankerName, ...] = ("clip", "likelihood", "none")
"""What candidates can be ordered by."""
_CANDIDATES, _KEEP = 16, 4
_KEEP_ROWS = 0.5
_LONGEST_SHOWN = 60

Choice = TypeVar("Choice", bound=str)


class Asked(TypedDict, total=False):
    """What arrives from a browser or a program: anything, under these names."""

    caption: object
    candidates: object
    keep: object
    seed: object
    temperature: object
    top_k: object
    top_p: object
    guidance_scale: object
    ranker: object
    image: object
    vary: object
    keep_rows: object
    layout: object
    crop: object
    region: object


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """Everything that the pictures of one caption depend on; `draw_settings` checks it."""

    caption: str | None
    """None is the null caption, which says nothing; only with a picture to go on from."""
    candidates: int
    """Pictures drawn."""
    keep: int
    """Best pictures returned."""
    seed: int
    sampling: SamplingConfig
    ranker: RankerName | None = None
    """None is the model's own choice."""
    image: str | None = None
    """Name of the file of a given picture whose upper part is kept; no path."""
    vary: str | None = None
    """Name of the file of one of the model's own pictures: its first rows are kept, and the rest is
    drawn anew; no path."""
    own_caption: bool = False
    """Whether `caption` is said beside `vary`, rather than left to the picture there."""
    keep_rows: float | int = _KEEP_ROWS
    """A fraction of the height under 1, or a number of token rows; read with a picture only."""
    layout: Layout = "top-half"
    """How `image` is laid out; see `dalle.image_prompt`."""
    crop: CropMode = "center"
    """How `image` is cut; see `dalle.image_prompt`."""
    region: Region | None = None
    """What is drawn of a given picture, instead of all below `keep_rows`: left, top, right and
    bottom, each from 0 to 1."""
    model: str = "emoji"
    """Name of a bundled model, or a model folder."""

    def options(self) -> dict[str, Any]:
        """The keywords of `TextToImage.generate` and `stream`, but for caption and picture.

        `keep_rows` or `region`, `layout` and `crop` are among them only with `image`: pictures of
        the model's own go through `TextToImage.first_rows` or `all_but`, which take them.
        """
        options: dict[str, Any] = {
            "candidates": self.candidates,
            "keep": self.keep,
            "seed": self.seed,
            **asdict(self.sampling),
            "top_k": self.sampling.top_k or 0,  # None would be the model's own
        }
        if self.ranker is not None:
            options["ranker"] = self.ranker
        if self.image is not None:
            options |= self.image_options()
        return options

    def image_options(self) -> dict[str, Any]:
        """The keywords of `TextToImage.read_image`."""
        what = {"keep_rows": self.keep_rows} if self.region is None else {"region": self.region}
        return {**what, "layout": self.layout, "crop": self.crop}


def draw_settings(
    limits: Limits,
    *,
    default: SamplingConfig,
    codebook_size: int,
    grid: tuple[int, int],
    model: str = "emoji",
    **asked: Unpack[Asked],
) -> DrawSettings:
    """The settings that were asked for, complete and in range.

    What is left out, or None, is the model's or the page's own choice. Whole numbers may come as
    floats without a fraction, as JSON and sliders send them. With a picture to go on from, an empty
    caption is the null caption.

    Args:
        limits: The page's limits.
        default: The model's recommended sampling settings.
        codebook_size: Codes of the model's codebook, the most that `top_k` can keep.
        grid: Rows and columns of the model's token grid.
        model: The model's name or folder, as snippets should name it.
        **asked: The values, of any type.

    Raises:
        PageFault: A value is of the wrong type or out of range; it names the setting.
    """
    image, vary = (_file_name(name, asked.get(name)) for name in ("image", "vary"))
    if image is not None and vary is not None:
        raise PageFault("give one picture to go on from, not two")
    caption = asked.get("caption")
    is_blank = caption is None or (isinstance(caption, str) and not caption.strip())
    has_picture = image is not None or vary is not None
    candidates = _whole(
        "candidates", asked.get("candidates"), range(1, limits.candidates + 1), _CANDIDATES
    )
    most = min(candidates, limits.keep)
    return DrawSettings(
        caption=None if is_blank and has_picture else check_caption(caption, limits),
        candidates=candidates,
        keep=_whole("keep", asked.get("keep"), range(1, most + 1), _KEEP),
        seed=_seed(asked.get("seed")),
        sampling=_sampling(default, asked, codebook_size=codebook_size),
        ranker=_choice("ranker", asked.get("ranker"), RANKERS, None),
        image=image,
        vary=vary,
        keep_rows=_keep_rows(asked.get("keep_rows"), grid_h=grid[0]),
        region=_region(asked, grid),
        layout=_choice("layout", asked.get("layout"), get_args(Layout), "top-half"),
        crop=_choice("crop", asked.get("crop"), get_args(CropMode), "center"),
        model=model,
    )


def check_caption(caption: object, limits: Limits) -> str:
    """`caption` as it was written, if it can be drawn.

    Raises:
        PageFault: It is no text, empty, too long, or no valid Unicode.
    """
    if not isinstance(caption, str):
        raise PageFault(f"a caption must be text, got {_shown(caption)}; write what to draw")
    if len(caption) > limits.caption_chars:
        raise PageFault(
            f"a caption must have at most {limits.caption_chars:,} characters, got "
            f"{len(caption):,}; shorten it"
        )
    try:
        check_prompt(caption)
    except ValueError as err:
        raise PageFault(str(err)) from err
    return caption


def _sampling(default: SamplingConfig, asked: Asked, *, codebook_size: int) -> SamplingConfig:
    top_k = asked.get("top_k")
    try:
        return override_sampling(
            default,
            temperature=_number("temperature", asked.get("temperature")),
            top_k=None if top_k is None else _whole("top_k", top_k, range(codebook_size + 1), 0),
            top_p=_number("top_p", asked.get("top_p")),
            guidance_scale=_number("guidance_scale", asked.get("guidance_scale")),
        )
    except ValueError as err:
        raise PageFault(str(err)) from err


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PageFault(f"{name} must be a number, got {_shown(value)}")
    try:
        return float(value)
    except OverflowError as err:
        raise PageFault(f"{name} must be a smaller number, got {_shown(value)}") from err


def _whole(name: str, value: object, allowed: range, default: int) -> int:
    """A whole number of those `allowed`; None is `default`, or the largest if that is less."""
    if value is None:
        return min(default, allowed[-1])
    number = _as_int(value)
    if number is None or number not in allowed:
        raise PageFault(
            f"{name} must be a whole number between {allowed[0]} and {allowed[-1]:,}, "
            f"got {_shown(value)}"
        )
    return number


def _seed(value: object) -> int:
    if value is None:
        return 0
    number = _as_int(value)
    if number is None:
        raise PageFault(f"seed must be a whole number, got {_shown(value)}")
    try:
        check_seed(number)
    except ValueError as err:
        raise PageFault(
            f"seed must be a whole number below 2^63 in size, got {_shown(value)}"
        ) from err
    return number


def _as_int(value: object) -> int | None:
    """`value` if it is a whole number of whatever kind."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _keep_rows(value: object, *, grid_h: int) -> float | int:
    if value is None:
        return _KEEP_ROWS
    whole = _as_int(value)
    number = whole if whole is not None else _number("keep_rows", value)
    try:
        rows_kept(number, grid_h=grid_h)
    except ValueError as err:
        raise PageFault(
            "keep_rows must be a fraction from 0 to under 1, or a whole number of rows from 0 to "
            f"{grid_h - 1}, got {_shown(value)}"
        ) from err
    assert number is not None, "only None itself is no number"
    return number


def _region(asked: Asked, grid: tuple[int, int]) -> Region | None:
    region = asked.get("region")
    if region is None:
        return None
    if asked.get("layout") == "place-on-top" or asked.get("keep_rows") is not None:
        raise PageFault("region says what is drawn by itself; leave keep_rows and the layout out")
    if not isinstance(region, list | tuple):
        raise PageFault(f"region must be four numbers, got {_shown(region)}")
    try:
        region_cells(region, grid=grid)
    except (TypeError, ValueError) as err:
        raise PageFault(f"{err!s:.300}") from err
    left, top, right, bottom = map(float, region)
    return left, top, right, bottom


def _choice(name: str, value: object, known: tuple[Choice, ...], default: Choice | None) -> Any:
    if value is None:
        return default
    for choice in known:
        if value == choice:
            return choice
    raise PageFault(f"{name} must be one of {', '.join(known)}, got {_shown(value)}")


def _file_name(name: str, value: object) -> str | None:
    """The last part of a file's path, which tells nothing of the server."""
    if value is None:
        return None
    if not isinstance(value, str | PurePath) or not (file := PurePath(value).name):
        raise PageFault(f"{name} must be a picture's file, got {_shown(value)}")
    return file


def _shown(value: object) -> str:
    """`value` as far as a message needs it; never where this server keeps an uploaded file."""
    if isinstance(value, list) and not all(isinstance(one, int | float) for one in value):
        return "a list"
    if not isinstance(value, str | int | float | list | None):
        return "an object"
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to write the longest
        return "a far larger number"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
