"""Pictures from captions: a discrete VAE and a transformer over caption and image tokens.

The public names are imported on first use, so that `import dalle` costs nothing:

    from dalle import TextToImage

    pictures = TextToImage.from_pretrained("emoji").generate("a fox on a blue background")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from dalle.errors import DalleError, DataError, FontError, ModelFormatError, TrainingError
from dalle.version import __version__

if TYPE_CHECKING:
    from dalle.picture import GeneratedImage, Recipe, read_recipe
    from dalle.pipeline import TextToImage
    from dalle.results import CaptionFailure, CaptionResult, Frame, Generation

__all__ = [
    "CaptionFailure",
    "CaptionResult",
    "DalleError",
    "DataError",
    "FontError",
    "Frame",
    "GeneratedImage",
    "Generation",
    "ModelFormatError",
    "Recipe",
    "TextToImage",
    "TrainingError",
    "__version__",
    "read_recipe",
]

# torch's OpenMP reads this when torch is imported. Its threads otherwise spin for long before they
# sleep, which may take the core from whom they wait for: beside another program drawing took twice
# as long (docs/results/performance.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_HEAVY = {
    "CaptionFailure": "dalle.results",
    "CaptionResult": "dalle.results",
    "Frame": "dalle.results",
    "GeneratedImage": "dalle.picture",
    "Generation": "dalle.results",
    "Recipe": "dalle.picture",
    "TextToImage": "dalle.pipeline",
    "read_recipe": "dalle.picture",
}
"""Where the names live that need more than the standard library."""


def __getattr__(name: str) -> object:
    """The public name `name`, imported now; only those of `_HEAVY` come this way."""
    if name in _HEAVY:
        return getattr(import_module(_HEAVY[name]), name)
    raise AttributeError(f"module 'dalle' has no attribute {name!r}; it offers {__all__}")


def __dir__() -> list[str]:
    return sorted(__all__)
