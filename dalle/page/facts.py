"""What the page knows of a model before it is loaded: read from its folder, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dalle.config import SamplingConfig
from dalle.errors import ModelFormatError
from dalle.folders import bundled_models, model_folder
from dalle.given_picture import enough_px
from dalle.model_config import SequenceConfig
from dalle.schema import build_config, read_object
from vae.config import VaeConfig

MAX_CARD_BYTES = 256 * 1024
"""A longer model card is cut."""


EXAMPLES = (
    "a fox on a blue background",
    "two apples",
    "a grayscale owl",
    "a robot above a car",
    "a penguin colored red",
)
"""What the bundled model may be asked for."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What widgets need: sizes, recommended settings, the card."""

    name: str
    """As the person named it: a bundled model or a folder."""
    title: str
    """Short name for people."""
    grid: tuple[int, int]
    """Rows and columns of tokens."""
    stride: int
    """Pixels of a token, along each side."""
    codebook_size: int
    sampling: SamplingConfig
    """What the model's makers recommend."""
    has_clip: bool
    """Whether the model brings a CLIP."""
    card: str
    """The model card, Markdown; empty if there is none."""
    examples: tuple[str, ...] = ()
    """Captions to try, where somebody chose them: for the bundled model."""

    @property
    def image_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.grid[0] * self.stride, self.grid[1] * self.stride

    @property
    def held_px(self) -> int:
        """Longest side of given pictures as hundreds of sessions hold them."""
        return enough_px(self.image_px)

    @property
    def is_guided(self) -> bool:
        """Whether the model was made to be guided, as far as its recommendation tells.

        Without null captions in training a guidance scale other than 1 spoils pictures, so who
        publishes such a model leaves it at 1.
        """
        return self.sampling.guidance_scale != 1


def read_facts(model: str | Path) -> ModelFacts:
    """The facts of a bundled model by name, or of the model in a folder.

    Raises:
        ModelFormatError: There is no such model, or its `config.json` is damaged.
    """
    folder = model_folder(model)
    try:
        tree = read_object(folder / "config.json")
        sequence = build_config(SequenceConfig, tree.get("sequence"), where="sequence")
        vae = build_config(VaeConfig, tree.get("vae"), where="vae")
        sampling = build_config(SamplingConfig, tree.get("sampling"), where="sampling")
    except (OSError, ValueError, TypeError) as err:
        raise ModelFormatError(f"{folder / 'config.json'} cannot be used: {err}") from err
    return ModelFacts(
        name=str(model),
        title=Path(model).resolve().name,
        grid=(sequence.grid_h, sequence.grid_w),
        stride=vae.stride,
        codebook_size=vae.codebook_size,
        sampling=sampling,
        has_clip="clip" in tree,
        card=_read_card(folder / "README.md"),
        examples=EXAMPLES if folder.resolve() in _bundled() else (),
    )


def _bundled() -> set[Path]:
    return {path.resolve() for path in bundled_models().values()}


def _read_card(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
