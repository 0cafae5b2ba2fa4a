"""What a session has drawn: kept for as long as its tab is open, the oldest forgotten first."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dalle.page.settings import DrawSettings

if TYPE_CHECKING:
    from PIL import Image

    from dalle.picture import GeneratedImage

MAX_DRAWN = 24
"""Results that a session can go back to."""
MAX_BYTES = 96 * 1024**2
"""Pixels that a session keeps, in bytes; the newest result stays whatever its size."""

Place = Literal["draw", "prompt", "grid", "batch"]
"""The tab that a result was drawn on."""


@dataclass(frozen=True, kw_only=True)
class GridChoices:
    """What was chosen for an X/Y grid, as its widgets say it."""

    settings: DrawSettings
    """Before the axes change them; words to try stand in the caption, in their brackets."""
    x: str
    """What changes across."""
    x_values: str
    y: str
    """What changes down."""
    y_values: str


@dataclass(frozen=True, kw_only=True)
class Collection:
    """How one picture of each of several captions or settings is shown together."""

    title: str
    """What it is, for the person."""
    labels: tuple[str, ...]
    """What stands below each picture."""
    columns: int | None = None
    """Pictures in a row; None for about as many as there are rows."""
    grid: GridChoices | None = None
    """What was chosen, if this is an X/Y grid."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What came of one press of a button: the candidates of a caption, or one picture of many."""

    place: Place
    settings: tuple[DrawSettings, ...]
    """Of the one caption, or of each picture of a collection."""
    images: tuple[GeneratedImage, ...]
    """At least one. All candidates, best first, whatever was to be kept; of a collection the best
    picture of each caption, in their order."""
    title: str
    """What was asked for, for the person."""
    picture: Image.Image | None = None
    """The given picture that the drawing went on from."""
    collection: Collection | None = None
    """How the pictures are shown, if they are of several captions or settings."""

    @property
    def is_collection(self) -> bool:
        """Whether these are pictures of several captions or settings."""
        return self.collection is not None

    @property
    def best(self) -> tuple[GeneratedImage, ...]:
        """The pictures that were to be kept."""
        return self.images if self.is_collection else self.images[: self.settings[0].keep]

    def settings_of(self, place: int) -> DrawSettings:
        """The settings of picture number `place`."""
        return self.settings[place if self.is_collection else 0]

    @property
    def size_bytes(self) -> int:
        """Memory that the pixels take up, about."""
        pictures = [image.image for image in self.images]
        pictures += [] if self.picture is None else [self.picture]
        return sum(3 * picture.width * picture.height for picture in pictures)


History = tuple[Drawn, ...]
"""Newest first."""


def remember(history: History, drawn: Drawn) -> History:
    """`history` with `drawn` in front, and no more than a session may keep."""
    kept, size = [drawn], drawn.size_bytes
    for older in history[: MAX_DRAWN - 1]:
        size += older.size_bytes
        if size > MAX_BYTES:
            break
        kept.append(older)
    return tuple(kept)


class Earlier:
    """What a session has drawn. Jobs that overlap share it, so that none forgets another's result.

    Args:
        drawn: Results to begin with, newest first.
    """

    def __init__(self, drawn: History = ()) -> None:
        self._drawn = drawn
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> Earlier:
        """One of its own for each session, as Gradio asks for."""
        return Earlier(self._drawn)

    @property
    def drawn(self) -> History:
        """The results so far."""
        return self._drawn

    def add(self, drawn: Drawn) -> None:
        """Remember one more."""
        with self._lock:
            self._drawn = remember(self._drawn, drawn)
