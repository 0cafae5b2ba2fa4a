"""What the pipeline hands back: results, failures, and frames of a picture being drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image

from dalle.ground import Box
from dalle.picture import GeneratedImage

Painter = Callable[[slice], tuple[Image.Image, ...]]
"""Shows the candidates of a slice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptShown:
    """What became of a given picture; everything is of the model's size."""

    image: Image.Image
    """The picture as it was cut or fitted, the part that was drawn in grey."""
    seen: Image.Image
    """The same part as the model saw it, through its dVAE."""
    rows: int
    """Whole rows of the token grid that were kept at the top."""
    rows_in_all: int
    """Rows of the whole grid."""
    notes: tuple[str, ...]
    """What was rounded, cut off or filled in, each a clause."""
    outline: Box
    """In pixels, what a person should see a line around: the kept rows, or the drawn region."""
    region: Box | None = None
    """In pixels, what was drawn where only a region was; None where all below the kept rows was."""
    whole: Image.Image | None = None
    """The picture with nothing hidden: the original of a completion. None where all of it was
    fitted into the kept part, so that there is nothing to complete."""


@dataclass(frozen=True, kw_only=True)
class CaptionResult:
    """What became of one caption."""

    caption: str
    """As given; empty where there was none."""
    images: tuple[GeneratedImage, ...]
    """The kept candidates, best first."""
    notice: str | None = None
    """Something the person should know, such as that the caption was cut."""
    prompt: PromptShown | None = None
    """The picture that the drawing went on from, if one was given."""


@dataclass(frozen=True, kw_only=True)
class CaptionFailure:
    """Why a caption could not be drawn."""

    caption: object
    """What was given, which need not be a string."""
    error: str


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What became of a call to `generate`, in the order of its captions."""

    results: tuple[CaptionResult, ...]

    @property
    def images(self) -> tuple[GeneratedImage, ...]:
        """Every kept picture, caption after caption, best first within each."""
        return tuple(image for result in self.results for image in result.images)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """How far one micro-batch of candidates is.

    Its previews are decoded when somebody looks at them, so a frame that is passed over costs
    nothing, and one candidate less than all of them.
    """

    first_candidate: int
    """Index of the first candidate shown."""
    rows_done: int
    """Complete rows of the token grid."""
    rows: int
    """Rows of the whole grid."""
    paint: Painter = field(repr=False)
    """The candidates as far as they are drawn; what `previews` and `preview` call."""
    notice: str | None = None
    """Something the person should know already, such as that the caption was cut."""
    finished: tuple[GeneratedImage, ...] = field(default=(), repr=False)
    """Candidates that are complete, as drawn and not yet scored: what stays if one stops here."""
    result: CaptionResult | None = None
    """The ranked pictures; only in the last frame."""

    @cached_property
    def previews(self) -> tuple[Image.Image, ...]:
        """The candidates so far, rows not yet drawn in grey."""
        return self.paint(slice(None))

    @cached_property
    def preview(self) -> Image.Image:
        """The first of them alone."""
        (image,) = self.paint(slice(1))
        return image
