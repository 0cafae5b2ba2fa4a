"""Pixels to a grid of tokens and back: a discrete VAE.

The model is imported on first use, so that reading its settings does not load torch:

    from vae import DiscreteVAE, VaeConfig
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.config import VaeConfig

if TYPE_CHECKING:
    from vae.model import DiscreteVAE

__all__ = ["DiscreteVAE", "VaeConfig"]


def __getattr__(name: str) -> object:
    """The public name `name`, imported now; only those that need torch come this way."""
    if name == "DiscreteVAE":
        from vae.model import DiscreteVAE

        return DiscreteVAE
    raise AttributeError(f"module 'vae' has no attribute {name!r}; it offers {__all__}")


def __dir__() -> list[str]:
    return sorted(__all__)
