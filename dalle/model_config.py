"""Shapes of the models over captions: the joint transformer, and the CLIP that ranks for it.

This file must not import torch (see `vae/config.py` for the reason).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

LayerMask = Literal["dense", "row", "column", "conv"]


TO_DRAW = -1
"""Stands in an image prompt for a token that is to be drawn, where others behind it are kept."""


def height_and_width(image_px: int, width_px: int | None) -> tuple[int, int]:
    """Size of pictures that are square where no width is named."""
    return image_px, image_px if width_px is None else width_px


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """Layout of the joint sequence: `text_len` caption tokens, then `grid_h * grid_w` image tokens.

    Attributes carry the axis letters of the code: t = text_len, h = grid_h, w = grid_w.
    """

    text_len: int = 256
    """Caption tokens per sequence (t); shorter captions are padded, longer ones cut."""
    text_vocab: int = 16384
    """Entries of the caption vocabulary, pads not counted."""
    grid_h: int = 32
    """Rows of the image token grid (h)."""
    grid_w: int = 32
    """Columns of the image token grid (w)."""
    image_vocab: int = 8192
    """Values an image token can take; equals the dVAE's codebook size (k)."""

    @property
    def image_len(self) -> int:
        """Image tokens per sequence (m = h * w)."""
        return self.grid_h * self.grid_w

    @property
    def total_len(self) -> int:
        """Length of the joint sequence (n = t + m)."""
        return self.text_len + self.image_len

    def __post_init__(self) -> None:
        """Refuse empty halves and vocabularies."""
        for name in ("text_len", "grid_h", "grid_w"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("text_vocab", "image_vocab"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of the joint transformer (Ramesh et al., arXiv:2102.12092, appendix B.1)."""

    width: int = 512
    """Model width (d)."""
    layers: int = 12
    """Transformer blocks."""
    heads: int = 8
    """Attention heads (a); each is width / heads wide (f)."""
    mlp_ratio: int = 4
    """Hidden width of the feed-forward layer, in multiples of `width`."""
    attention: Literal["dense", "paper"] = "dense"
    """Dense causal attention everywhere, or the paper's row, column, row, row, ..., conv."""
    conv_kernel: int = 11
    """Side of the conv mask's neighbourhood in grid cells, odd; read by `attention: paper` only."""
    qk_norm: bool = False
    """Normalise queries and keys (RMS) before their product, which keeps logits bounded."""
    tie_embeddings: bool = False
    """Use the token embeddings as output projections too."""

    @property
    def head_width(self) -> int:
        """Width of one attention head (f)."""
        return self.width // self.heads

    def layer_masks(self) -> tuple[LayerMask, ...]:
        """Which mask each layer uses, first layer first.

        Counting layers from 1 as the paper does, layer i is column-masked if (i - 2) mod 4 = 0 and
        row-masked otherwise; the last layer is conv-masked.
        """
        if self.attention == "dense":
            dense: tuple[LayerMask, ...] = ("dense",)
            return dense * self.layers
        body: list[LayerMask] = [
            "column" if (number - 2) % 4 == 0 else "row" for number in range(1, self.layers)
        ]
        return (*body, "conv")

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        for name in ("width", "layers", "heads", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be divisible by heads ({self.heads})")
        if self.conv_kernel < 1 or self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel must be odd and positive, got {self.conv_kernel}")


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Shape of a small CLIP: a ViT and a text transformer of open_clip, on our own captions."""

    image_px: int = 64
    """Height of the pictures it looks at, and width too where `width_px` is null; others are
    resized."""
    patch_px: int = 8
    """Height and width of a patch of the ViT."""
    image_width: int = 192
    """Width of the ViT."""
    image_layers: int = 6
    """Blocks of the ViT."""
    text_len: int = 32
    """Caption tokens read, the end token included; longer captions are cut."""
    text_width: int = 192
    """Width of the text transformer."""
    text_layers: int = 3
    """Blocks of the text transformer."""
    head_width: int = 64
    """Width of an attention head, in both."""
    embed_dim: int = 192
    """Length of the vectors in which pictures and captions meet (e)."""
    loss: Literal["clip", "siglip"] = "clip"
    """Softmax over the batch (CLIP), or each pair for itself (SigLIP)."""
    width_px: int | None = field(default=None, metadata={"later": True})
    """Width of the pictures it looks at, if they are not square."""
    view_shift_px: int = field(default=0, metadata={"later": True})
    """Where candidates are scored: how far four further views of a picture are moved, of which a
    score is the mean; 0 looks at the picture alone."""
    likelihood_weight: float = field(default=0.0, metadata={"later": True})
    """Where candidates are ordered: how much the mean log-probability of their image tokens, in
    nats, counts beside the cosine; 0 leaves it out."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not divide; two ways to say one shape become equal."""
        if self.width_px == self.image_px:
            object.__setattr__(self, "width_px", None)
        no_sizes = ("loss", "view_shift_px", "likelihood_weight")
        for name, value in {**vars(self), "width_px": self.size_px[1]}.items():
            if name not in no_sizes and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.view_shift_px < min(self.size_px):
            raise ValueError(
                f"view_shift_px must be from 0 to less than a side of the pictures "
                f"({min(self.size_px)}), got {self.view_shift_px}"
            )
        if not 0 <= self.likelihood_weight < math.inf:
            raise ValueError(
                f"likelihood_weight must be a number from 0 on, got {self.likelihood_weight}"
            )
        height, width = self.size_px
        for name, value, divisor in (
            ("image_px", height, "patch_px"),
            ("width_px", width, "patch_px"),
            ("image_width", self.image_width, "head_width"),
            ("text_width", self.text_width, "head_width"),
        ):
            if value % getattr(self, divisor):
                raise ValueError(
                    f"{name} ({value}) must be divisible by {divisor} ({getattr(self, divisor)})"
                )
        if self.text_len < 2:
            raise ValueError(
                f"text_len must be at least 2 (a token and the end), got {self.text_len}"
            )

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return height_and_width(self.image_px, self.width_px)
