"""The discrete VAE: pixels to a grid of tokens, and back.

Read top to bottom: residual block, encoder, decoder, the whole.
Axes: b batch, y x pixel rows and columns, h w grid rows and columns, k codebook size, e code width.

Source of the family: Ramesh et al., arXiv:2102.12092, appendix A.1, and the released
encoder/decoder. Ours differs in being sized by `VaeConfig` and in starting from
1/sqrt(fan-in) weights with zero biases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vae.config import VaeConfig
from vae.losses import mean_pixels, output_channels
from vae.pixels import squeeze
from vae.quantize import Quantized, build_quantizer
from vae.vqgan import VqganDecoder, VqganEncoder

CACHED_BYTES = 8 * 2**20
"""What a CPU's cache must hold of the widest layer while pictures are encoded or decoded."""


class ResidualBlock(nn.Module):
    """Four convolutions through a bottleneck a quarter as wide, added to the input with a gain.

    The encoder's blocks end in the 1x1 convolution, the decoder's begin with it.
    """

    def __init__(self, inputs: int, outputs: int, *, kernels: tuple[int, ...], gain: float) -> None:
        super().__init__()
        hidden = outputs // 4
        widths = [inputs, hidden, hidden, hidden, outputs]
        layers: list[nn.Module] = []
        for before, after, kernel in zip(widths[:-1], widths[1:], kernels, strict=True):
            layers += [nn.ReLU(), nn.Conv2d(before, after, kernel, padding=kernel // 2)]
        self.residual = nn.Sequential(*layers)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.gain = gain

    def forward(self, x: Tensor, *, repeat: nn.Upsample | None = None) -> Tensor:
        """`x` (b, inputs, y, x) refined to (b, outputs, y, x).

        Args:
            x: What is refined.
            repeat: Makes `x` larger first. Only for blocks that begin with a 1x1 convolution: that
                of a repeated cell is the cell's, repeated, so it is computed once for all copies.
        """
        shortcut, inner = self.shortcut(x), x
        for layer in self.residual:
            inner = layer(inner)
            if repeat is not None and isinstance(layer, nn.Conv2d):
                shortcut, inner, repeat = repeat(shortcut), repeat(inner), None
        return torch.add(shortcut, inner, alpha=self.gain)


class Encoder(nn.Module):
    """Pixels to features, one vector per grid cell.

    A 7x7 stem, or one that takes a patch at a time and sees as far beyond it, then groups of blocks
    with max-pooling between two groups.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        gain = 1 / (config.groups * config.blocks_per_group) ** 2
        patch = config.patch_px
        stem = nn.Conv2d(3, config.channels, 6 + patch, stride=patch, padding=3)
        layers: list[nn.Module] = [stem]
        width = config.channels
        for group in range(config.groups):
            if group > 0:
                layers.append(nn.MaxPool2d(2))
            for _ in range(config.blocks_per_group):
                outputs = config.channels * 2**group
                layers.append(ResidualBlock(width, outputs, kernels=(3, 3, 3, 1), gain=gain))
                width = outputs
        layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.output_channels = width
        self.squeezed = config.squeezed_input

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (b, channels * stride, h, w) of `pixels` (b, 3, y, x)."""
        return torch.as_tensor(self.layers(squeeze(pixels) if self.squeezed else pixels))


class Decoder(nn.Module):
    """Code vectors to the likelihood's parameters.

    The encoder's mirror, though it may be wider and deeper: between two groups every cell is
    repeated, and a 1x1 convolution ends it, which gives every pixel of a patch.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        channels, blocks = config.decoder_shape
        gain = 1 / (config.groups * blocks) ** 2
        layers: list[nn.Module] = []
        width = config.codebook_dim
        for group in reversed(range(config.groups)):
            for _ in range(blocks):
                outputs = channels * 2**group
                layers.append(ResidualBlock(width, outputs, kernels=(1, 3, 3, 3), gain=gain))
                width = outputs
            if group > 0:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        patch = config.patch_px
        layers += [nn.ReLU(), nn.Conv2d(width, output_channels(config.likelihood) * patch**2, 1)]
        if patch > 1:
            layers.append(nn.PixelShuffle(patch))
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        """Likelihood parameters (b, 6 or 3, y, x) of `codes` (b, e, h, w)."""
        x, repeat = codes, None
        for layer in self.layers:
            if isinstance(layer, nn.Upsample):
                repeat = layer
            elif isinstance(layer, ResidualBlock):
                x, repeat = layer(x, repeat=repeat), None
            else:
                x = layer(x)
        return x


@dataclass(frozen=True, kw_only=True)
class VaeOutput:
    """One training pass: what the decoder said, and the codes it said it from."""

    output: Tensor
    """Likelihood parameters, shape (b, 6 or 3, y, x); see `vae.losses`."""
    quantized: Quantized


class DiscreteVAE(nn.Module):
    """Maps pictures to grids of tokens and back; any height and width the stride divides."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        is_vqgan = config.family == "vqgan"
        self.encoder = VqganEncoder(config) if is_vqgan else Encoder(config)
        self.quantizer = build_quantizer(
            config.quantizer,
            channels=self.encoder.output_channels,
            codebook_size=config.codebook_size,
            codebook_dim=config.codebook_dim,
        )
        self.decoder = VqganDecoder(config) if is_vqgan else Decoder(config)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.in_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=1 / math.sqrt(fan_in))
                assert module.bias is not None, "every convolution of the dVAE has a bias"
                nn.init.zeros_(module.bias)

    def forward(
        self, pixels: Tensor, *, tau: float, generator: torch.Generator | None = None
    ) -> VaeOutput:
        """A training pass with relaxed codes.

        Args:
            pixels: Shape (b, 3, y, x), -1...1.
            tau: Relaxation temperature of the Gumbel-softmax, > 0.
            generator: Source of the noise; None takes torch's global one.

        Raises:
            ValueError: `pixels` has a shape that the stride does not divide.
        """
        self._check(pixels)
        quantized = self.quantizer(self.encoder(pixels), tau=tau, generator=generator)
        return VaeOutput(output=self.decoder(quantized.codes), quantized=quantized)

    def encode(self, pixels: Tensor) -> Tensor:
        """Token grids of pictures: the likeliest code of each cell, without noise.

        Args:
            pixels: Shape (b, 3, y, x), -1...1; the stride must divide y and x.

        Returns:
            Token grid, shape (b, h, w), int64, with h = y / stride and w = x / stride.

        Raises:
            ValueError: `pixels` has a shape that the stride does not divide.
        """
        self._check(pixels)
        cells = pixels.shape[2] * pixels.shape[3] // self.config.patch_px**2  # of the finest group
        numbers = self.config.channels * cells
        parts = [self.quantizer.tokens(self.encoder(few)) for few in in_cache(pixels, each=numbers)]
        return torch.cat(parts)

    def decode(self, token_grid: Tensor) -> Tensor:
        """Pictures of token grids.

        Args:
            token_grid: Code indices, 0...k-1, shape (b, h, w), int64.

        Returns:
            Pixels, shape (b, 3, y, x), -1...1, float32.

        Raises:
            ValueError: `token_grid` has another shape, or a token lies outside the codebook.
        """
        size = self.config.codebook_size
        if token_grid.ndim != 3:
            raise ValueError(f"token_grid must have shape (b, h, w), got {tuple(token_grid.shape)}")
        if token_grid.numel() and not 0 <= int(token_grid.min()) <= int(token_grid.max()) < size:
            raise ValueError(
                f"token_grid must hold codes in 0...{size - 1}, got "
                f"{int(token_grid.min())}...{int(token_grid.max())}"
            )
        repeats = (self.config.stride // self.config.patch_px) ** 2
        cells = token_grid.shape[1] * token_grid.shape[2] * repeats  # of the finest group
        numbers = self.config.decoder_shape[0] * cells
        parts = [
            mean_pixels(self.decoder(self.quantizer.embed(few)), self.config.likelihood)
            for few in in_cache(token_grid, each=numbers)
        ]
        return torch.cat(parts)

    def part_unlike(self, other: DiscreteVAE) -> str | None:
        """Which part that gives tokens their meaning is another in `other`; None if none is.

        Decoders may differ: each draws the tokens of the other.
        """
        if self.config.squeezed_input != other.config.squeezed_input:
            return "encoder"
        for part in ("encoder", "quantizer"):
            ours, theirs = (getattr(vae, part).state_dict() for vae in (self, other))
            if ours.keys() != theirs.keys() or not all(
                torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
            ):
                return part
        return None

    def _check(self, pixels: Tensor) -> None:
        stride = self.config.stride
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixels must have shape (b, 3, y, x), got {tuple(pixels.shape)}")
        if pixels.shape[2] % stride or pixels.shape[3] % stride:
            raise ValueError(
                f"height and width must be divisible by the stride ({stride}), got "
                f"{pixels.shape[2]} x {pixels.shape[3]}; resize or crop the picture"
            )


def in_cache(batch: Tensor, *, each: int) -> tuple[Tensor, ...]:
    """`batch` in parts so small that a layer finds what the last one left in the cache.

    Args:
        batch: Pictures or token grids, shape (b, ...).
        each: Numbers that the widest layer makes of one of them.

    Returns:
        All of `batch` on a GPU; on a CPU parts of at least one picture.
    """
    together = CACHED_BYTES // (4 * each) if batch.device.type == "cpu" else len(batch)
    return tuple(batch.split(max(1, together)))  # torch's own annotation says Any
