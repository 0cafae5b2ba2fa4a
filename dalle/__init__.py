"""Pictures from captions: a discrete VAE and a transformer over caption and image tokens.

The public names are imported on first use, so that `import dalle` costs nothing:

    from dalle import TextToImage

    pictures = TextToImage.from_pretrained("emoji").generate("a fox on a blue background")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalle.errors import DalleError, DataError, FontError, ModelFormatError, TrainingError
from dalle.version import __version__

if TYPE_CHECKING:
    from dalle.pipeline import TextToImage

__all__ = [
    "DalleError",
    "DataError",
    "FontError",
    "ModelFormatError",
    "TextToImage",
    "TrainingError",
    "__version__",
]


def __getattr__(name: str) -> object:
    """The public name `name`, imported now; only those that need torch come this way."""
    if name == "TextToImage":
        from dalle.pipeline import TextToImage

        return TextToImage
    raise AttributeError(f"module 'dalle' has no attribute {name!r}; it offers {__all__}")


def __dir__() -> list[str]:
    return sorted(__all__)
