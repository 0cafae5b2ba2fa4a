"""VQGAN's encoder and decoder: residual blocks with group norms, attention on the coarsest grid.

Axes: b batch, c channels, y x pixel rows and columns, h w grid rows and columns.

Source: Esser et al., arXiv:2012.09841, and taming-transformers, whose published weights
`dalle import vae` reads. The adversarial and perceptual losses that those were trained with are not
here: weights of this shape are read, or trained by the losses of `vae.losses`.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vae.config import VaeConfig
from vae.losses import output_channels

NORM_GROUPS = 32


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, width, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two convolutions, each behind a norm and SiLU, added to the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`x` (b, inputs, y, x) refined to (b, outputs, y, x)."""
        refined = self.conv1(functional.silu(self.norm1(x)))
        refined = self.conv2(functional.silu(self.norm2(refined)))
        return torch.as_tensor(self.shortcut(x) + refined)


class GridAttention(nn.Module):
    """Every cell looks at all cells, with one head, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """`x` (b, c, h, w) with what its cells saw, of the same shape."""
        normed = self.norm(x)
        q, k, v = (
            rearrange(project(normed), "b c h w -> b 1 (h w) c")
            for project in (self.q, self.k, self.v)
        )
        seen = functional.scaled_dot_product_attention(q, k, v)
        back = rearrange(seen, "b 1 (h w) c -> b c h w", h=x.shape[2])
        return torch.as_tensor(x + self.out(back))


class Halving(nn.Conv2d):
    """A convolution of stride 2 that looks over the right and the lower edge, not the others."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (b, c, y, x) at half the height and width."""
        return super().forward(functional.pad(x, (0, 1, 0, 1)))


def _middle(width: int) -> list[nn.Module]:
    return [ResnetBlock(width, width), GridAttention(width), ResnetBlock(width, width)]


class VqganEncoder(nn.Module):
    """Pixels to features, one vector per grid cell."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        width = config.channels
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for group, multiple in enumerate(config.multiple_of):
            is_last = group == config.groups - 1
            for _ in range(config.blocks_per_group):
                layers.append(ResnetBlock(width, config.channels * multiple))
                width = config.channels * multiple
                if is_last:
                    layers.append(GridAttention(width))
            if not is_last:
                layers.append(Halving(width))
        layers += [*_middle(width), _norm(width), nn.SiLU()]
        layers.append(nn.Conv2d(width, config.codebook_dim, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.output_channels = config.codebook_dim

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (b, codebook_dim, h, w) of `pixels` (b, 3, y, x)."""
        return torch.as_tensor(self.layers(pixels))


class VqganDecoder(nn.Module):
    """Code vectors to pixels: the encoder's mirror, with one more block in each group."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        channels, blocks = config.decoder_shape
        width = channels * config.multiple_of[-1]
        layers: list[nn.Module] = [
            nn.Conv2d(config.codebook_dim, config.codebook_dim, 1),
            nn.Conv2d(config.codebook_dim, width, 3, padding=1),
            *_middle(width),
        ]
        for group in reversed(range(config.groups)):
            for _ in range(blocks + 1):
                outputs = channels * config.multiple_of[group]
                layers.append(ResnetBlock(width, outputs))
                width = outputs
                if group == config.groups - 1:
                    layers.append(GridAttention(width))
            if group > 0:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
                layers.append(nn.Conv2d(width, width, 3, padding=1))
        layers += [_norm(width), nn.SiLU()]
        layers.append(nn.Conv2d(width, output_channels(config.likelihood), 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        """Likelihood parameters (b, 6 or 3, y, x) of `codes` (b, e, h, w)."""
        return torch.as_tensor(self.layers(codes))
