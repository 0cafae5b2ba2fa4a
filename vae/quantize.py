"""Two ways from encoder features to a grid of codes, behind one interface.

Axes: b batch, c feature channels, h w grid rows and columns, k codebook size, e code width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from vae.losses import kl_to_uniform


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """Codes of a batch of feature maps, with the terms they add to the objective."""

    codes: Tensor
    """What the decoder reads, shape (b, e, h, w)."""
    tokens: Tensor
    """Index of each cell's code, 0...k-1, shape (b, h, w), int64."""
    kl: Tensor
    """KL to the uniform prior, nats per cell; 0 where the quantiser has no posterior."""
    commitment: Tensor
    """Mean squared distance of features to their code; 0 where features are not codes."""
    projected: Tensor | None = None
    """What codes were looked for, shape (b, e, h, w), float32, without gradient; None where the
    codebook does not follow it."""


class Others(Protocol):
    """Processes that train the same quantiser, each on its part of a step."""

    rank: int
    """Place of this process among them."""

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all processes."""

    def gather(self, mine: int) -> list[int]:
        """What each process gives, in their order."""


def gumbel_like(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise of the shape of `logits`, float32.

    Two logarithms of uniform noise; torch's own exponential noise is four times slower on a CPU,
    where it was a fifth of a training step.
    """
    uniform = torch.rand(
        logits.shape, generator=generator, device=logits.device, dtype=torch.float32
    )
    # 0 cannot be had back from a logarithm; the clamp moves it by less than the noise's own step.
    exponential = uniform.clamp_(min=1e-10).log_().neg_()
    return exponential.clamp_(min=1e-10).log_().neg_()


class GumbelQuantizer(nn.Module):
    """Gumbel-softmax relaxation: the decoder reads a noisy mixture of codes while training.

    The mixture is soft (no straight-through), as in the paper; tokens are the argmax without noise.

    Source: arXiv:2102.12092, section 2.1; Jang et al., arXiv:1611.01144.
    """

    def __init__(self, channels: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, codebook_size, kernel_size=1)
        # As in the paper there is no codebook apart from the decoder's first 1x1 convolution,
        # one-hot -> e; kept here it is the table of code vectors.
        self.codebook = nn.Parameter(torch.randn(codebook_size, codebook_dim))

    def forward(
        self, features: Tensor, *, tau: float, generator: torch.Generator | None = None
    ) -> Quantized:
        """Relaxed codes of `features`, for training.

        Args:
            features: Encoder output, shape (b, c, h, w).
            tau: Relaxation temperature, > 0; the smaller, the nearer to one code.
            generator: Source of the Gumbel noise; None takes torch's global one.
        """
        logits = self.head(features).float()  # b k h w
        mixture = torch.softmax((logits + gumbel_like(logits, generator)) / tau, dim=1)
        codes = torch.einsum("bkhw,ke->behw", mixture, self.codebook)
        return Quantized(
            codes=codes,
            tokens=logits.argmax(dim=1),
            kl=kl_to_uniform(logits),
            commitment=logits.new_zeros(()),
        )

    def tokens(self, features: Tensor) -> Tensor:
        """Likeliest code of each cell, without noise, shape (b, h, w)."""
        return torch.as_tensor(self.head(features).argmax(dim=1))

    def embed(self, tokens: Tensor) -> Tensor:
        """Code vectors of `tokens` (b, h, w), shape (b, e, h, w)."""
        return rearrange(self.codebook[tokens], "b h w e -> b e h w")


class NearestQuantizer(nn.Module):
    """Nearest code by Euclidean distance; the codebook follows the features' running mean.

    Gradients pass straight through to the encoder. Codes that nothing is near to any more are
    moved onto features of the current batch.

    Source: van den Oord et al., arXiv:1711.00937, appendix A.1 (EMA); revival after Dhariwal et
    al., arXiv:2005.00341, section 3.1.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    EMA_DECAY = 0.99
    REVIVE_BELOW = 0.03
    """A code whose running count per batch falls below this is moved."""

    def __init__(self, channels: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, codebook_dim, kernel_size=1)
        codebook = torch.randn(codebook_size, codebook_dim)
        self.register_buffer("codebook", codebook)
        # No code is in use yet, so the first step moves all of them onto features.
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("sums", torch.zeros_like(codebook))

    def _nearest(self, projected: Tensor) -> Tensor:
        flat = rearrange(projected.float(), "b e h w -> (b h w) e")
        # In 16 bits, as autocast would multiply, codes that lie close to each other are mixed up.
        with torch.autocast(flat.device.type, enabled=False):
            # The feature's own square does not change which code is nearest, so it is left out.
            norms = self.codebook.square().sum(dim=1)  # k
            distance = torch.addmm(norms, flat, self.codebook.T, alpha=-2)  # (b h w) k
        b, _, h, w = projected.shape
        return rearrange(distance.argmin(dim=1), "(b h w) -> b h w", b=b, h=h, w=w)

    def forward(
        self, features: Tensor, *, tau: float, generator: torch.Generator | None = None
    ) -> Quantized:
        """Codes of `features`, for training; `tau` and `generator` have no part in it."""
        del tau, generator
        projected = self.head(features).float()  # b e h w
        tokens = self._nearest(projected)
        nearest = self.embed(tokens)
        return Quantized(
            codes=projected + (nearest - projected).detach(),
            tokens=tokens,
            kl=projected.new_zeros(()),
            commitment=(projected - nearest.detach()).square().mean(),
            projected=projected.detach(),
        )

    def tokens(self, features: Tensor) -> Tensor:
        """Nearest code of each cell, shape (b, h, w)."""
        return self._nearest(self.head(features))

    def embed(self, tokens: Tensor) -> Tensor:
        """Code vectors of `tokens` (b, h, w), shape (b, e, h, w)."""
        return rearrange(self.codebook[tokens], "b h w e -> b e h w")

    @torch.no_grad()
    def after_step(
        self,
        projected: Tensor,
        tokens: Tensor,
        generator: torch.Generator | None = None,
        others: Others | None = None,
    ) -> None:
        """Move the codebook towards the features that chose it, and revive dead codes.

        Args:
            projected: Of all pictures of the step as `forward` returned it, shape (b, e, h, w).
            tokens: The codes that it chose for them, shape (b, h, w).
            generator: Chooses the features that dead codes are moved onto.
            others: Processes with more features of the step; each must call this, with generators
                in the same state, and comes to the same codebook.
        """
        flat = rearrange(projected, "b e h w -> (b h w) e")
        chosen = rearrange(tokens, "b h w -> (b h w)")
        counts = torch.zeros_like(self.counts).index_add_(0, chosen, torch.ones_like(flat[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, chosen, flat)
        rows = [len(flat)]
        before = 0
        if others is not None:
            others.add_up([counts, sums])
            rows = others.gather(len(flat))
            before = sum(rows[: others.rank])
        self.counts.lerp_(counts, 1 - self.EMA_DECAY)
        self.sums.lerp_(sums, 1 - self.EMA_DECAY)

        dead = (self.counts < self.REVIVE_BELOW).nonzero().flatten()
        picks = torch.randint(sum(rows), (dead.numel(),), generator=generator, device=flat.device)
        picks -= before
        ours = (picks >= 0) & (picks < len(flat))
        revived = flat.new_zeros(dead.numel(), flat.shape[1])
        revived[ours] = flat[picks[ours]]
        if others is not None:
            others.add_up([revived])
        self.sums[dead] = revived
        self.counts[dead] = 1.0
        self.codebook.copy_(self.sums / self.counts.unsqueeze(1))


Quantizer = GumbelQuantizer | NearestQuantizer


def build_quantizer(
    kind: Literal["gumbel", "nearest"], *, channels: int, codebook_size: int, codebook_dim: int
) -> Quantizer:
    """The quantiser called `kind`, over features `channels` wide."""
    if kind == "gumbel":
        return GumbelQuantizer(channels, codebook_size, codebook_dim)
    return NearestQuantizer(channels, codebook_size, codebook_dim)


@dataclass(frozen=True, kw_only=True)
class CodebookHealth:
    """How much of a codebook a window of tokens used."""

    usage: float
    """Share of the codes that occurred, 0...1."""
    perplexity: float
    """exp(entropy) of the codes' frequencies, 1...k."""


def codebook_health(counts: Tensor) -> CodebookHealth:
    """Usage and perplexity over the window that `counts` was collected in.

    Args:
        counts: How often each code occurred, shape (k,).

    Raises:
        ValueError: The window is empty.
    """
    total = counts.sum()
    if total == 0:
        raise ValueError("codebook_health needs at least one token, got an empty window")
    frequency = counts.double() / total
    entropy = -torch.special.xlogy(frequency, frequency).sum()
    return CodebookHealth(
        usage=float((counts > 0).double().mean()), perplexity=float(entropy.exp())
    )
