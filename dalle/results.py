"""What the pipeline hands back: results, failures, and frames of a picture being drawn."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from dalle.picture import GeneratedImage


@dataclass(frozen=True, kw_only=True)
class CaptionResult:
    """What became of one caption."""

    caption: str
    images: tuple[GeneratedImage, ...]
    """The kept candidates, best first."""
    notice: str | None = None
    """Something the person should know, such as that the caption was cut."""


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


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How far one micro-batch of candidates is."""

    first_candidate: int
    """Index of the first candidate shown."""
    rows_done: int
    """Complete rows of the token grid."""
    rows: int
    """Rows of the whole grid."""
    previews: tuple[Image.Image, ...]
    """The candidates so far, rows not yet drawn in grey; empty if they were not asked for."""
    result: CaptionResult | None = None
    """The ranked pictures; only in the last frame."""
