"""The dVAE's settings.

They live beside the model but apart from it, because this file must not import torch: a
misspelt flag is answered from here in a few hundredths of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MAX_GROUPS = 12
"""More groups would halve a picture more often than any picture can be halved."""


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """Shape of a discrete VAE (Ramesh et al., arXiv:2102.12092, appendix A.1)."""

    family: Literal["dalle", "vqgan"] = field(default="dalle", metadata={"later": True})
    """Encoder and decoder of the paper, or of VQGAN, with norms and attention (`vae.vqgan`)."""
    channels: int = 256
    """Width of the finest group of blocks; every coarser one is twice as wide, or as `multiples`
    say."""
    multiples: tuple[int, ...] | None = field(default=None, metadata={"later": True})
    """Width of each group in multiples of `channels`, finest first; read by `family: vqgan` only.
    None doubles them."""
    groups: int = 4
    """Groups of blocks; between two groups the picture is halved, so stride = patch_px *
    2^(groups - 1)."""
    patch_px: int = field(default=1, metadata={"later": True})
    """Pixels a side that the finest group sees as one cell: the first convolution takes them in
    together, the last gives them together. At 2, three groups have the stride of four and are
    spared the work on single pixels, two fifths of it. Read by `family: dalle` only."""
    blocks_per_group: int = 2
    """Residual blocks in each group."""
    decoder_channels: int | None = field(default=None, metadata={"later": True})
    """Width of the decoder's finest group where it is another one; None for `channels`."""
    decoder_blocks: int | None = field(default=None, metadata={"later": True})
    """Blocks in each group of the decoder where it has others; None for `blocks_per_group`."""
    squeezed_input: bool = field(default=False, metadata={"later": True})
    """Whether the encoder reads pixels as logit-Laplace has them, 0.1 to 0.9, as OpenAI's does. At
    the rim it then sees zeros that are darker than black, instead of mid-grey among -1 to 1."""
    codebook_size: int = 8192
    """Number of codes an image token can be."""
    codebook_dim: int = 128
    """Width of a code vector, which is what the decoder reads at each grid cell."""
    quantizer: Literal["gumbel", "nearest"] = "gumbel"
    """Gumbel-softmax over encoder logits (the paper), or nearest code with an EMA codebook."""
    likelihood: Literal["logit-laplace", "l1", "l2"] = "logit-laplace"
    """How a reconstruction is scored: the paper's logit-Laplace, or plain absolute / squared."""

    @property
    def multiple_of(self) -> tuple[int, ...]:
        """Width of each group, finest first, in multiples of the finest one's."""
        return self.multiples or self._doubled

    @property
    def _doubled(self) -> tuple[int, ...]:
        return tuple(2**group for group in range(self.groups))

    @property
    def stride(self) -> int:
        """Pixels per grid cell, along each side."""
        return self.patch_px * int(2 ** (self.groups - 1))

    @property
    def decoder_shape(self) -> tuple[int, int]:
        """Width of the decoder's finest group, and blocks in each of its groups."""
        return (
            self.channels if self.decoder_channels is None else self.decoder_channels,
            self.blocks_per_group if self.decoder_blocks is None else self.decoder_blocks,
        )

    def __post_init__(self) -> None:
        """Refuse sizes that no model can have.

        Raises:
            ValueError: A size lies outside its range; the text names it.
        """
        sizes = ("channels", "groups", "patch_px", "blocks_per_group")
        for name in (*sizes, "codebook_size", "codebook_dim"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("decoder_channels", "decoder_blocks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {value}; leave it out to follow the encoder"
                )
        if self.groups > MAX_GROUPS:
            raise ValueError(
                f"groups must be at most {MAX_GROUPS} (stride {2 ** (MAX_GROUPS - 1)}), "
                f"got {self.groups}"
            )
        divisor, why = (4, "bottleneck blocks") if self.family == "dalle" else (32, "group norms")
        for name, value in (
            ("channels", self.channels),
            ("decoder_channels", self.decoder_shape[0]),
        ):
            if value % divisor:
                raise ValueError(f"{name} must be divisible by {divisor} ({why}), got {value}")
        self._check_family()
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size must be at least 2, got {self.codebook_size}")

    def _check_family(self) -> None:
        """Refuse what the family does not read.

        Raises:
            ValueError: There is something.
        """
        if self.family == "vqgan":
            others = {"squeezed_input": self.squeezed_input, "patch_px": self.patch_px > 1}
            if found := [name for name, is_set in others.items() if is_set]:
                raise ValueError(f"{found[0]} belongs to family dalle; set one of them otherwise")
        if self.multiples == self._doubled:
            object.__setattr__(self, "multiples", None)  # two ways to say one shape become equal
        if self.multiples is None:
            return
        if self.family == "dalle":
            raise ValueError("multiples are read by family vqgan only; leave them out")
        if len(self.multiples) != self.groups or min(self.multiples) < 1:
            raise ValueError(
                f"multiples must be {self.groups} numbers (groups), each at least 1, got "
                f"{self.multiples}"
            )
