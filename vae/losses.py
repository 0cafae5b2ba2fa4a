"""Reconstruction likelihoods and the KL term of the dVAE.

Axes: b batch, c colour channels (3), y x pixel rows and columns, k codes, h w grid cells.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vae.pixels import squeeze, unsqueeze

Likelihood = Literal["logit-laplace", "l1", "l2"]

# One 8-bit level at mid-grey, in logit units: 0.8 / 255 / (0.5 * 0.5). Drawings have perfectly flat
# areas; without a floor their Laplace scale shrinks for ever and drowns everything else.
MIN_SCALE = 0.8 / 255 / 0.25


def output_channels(likelihood: Likelihood) -> int:
    """Maps a decoder must put out: location and log scale of each colour, or the colour alone."""
    return 6 if likelihood == "logit-laplace" else 3


def logit_laplace_nll(mu: Tensor, log_scale: Tensor, squeezed: Tensor) -> Tensor:
    """Negative log-density of the logit-Laplace distribution, elementwise.

    The density on (0, 1) is 1 / (2 b x (1 - x)) * exp(-|logit(x) - mu| / b).

    Args:
        mu: Location, in logit units, any shape.
        log_scale: Natural log of b, same shape.
        squeezed: Values x in (0, 1), same shape.

    Returns:
        Nats, same shape; may be negative, as densities exceed 1.

    Source: arXiv:2102.12092, appendix A.3, equation 2.
    """
    distance = (torch.logit(squeezed) - mu).abs()
    log_jacobian = torch.log(squeezed) + torch.log1p(-squeezed)
    return math.log(2.0) + log_scale + log_jacobian + distance * torch.exp(-log_scale)


def reconstruction_nll(output: Tensor, pixels: Tensor, likelihood: Likelihood) -> Tensor:
    """Mean over all pixel values of how badly `output` explains `pixels`.

    Args:
        output: Decoder output, shape (b, 6 or 3, y, x), see `output_channels`.
        pixels: Targets, -1...1, shape (b, 3, y, x).
        likelihood: Which score; `l1` and `l2` compare pixels in units of their half range.

    Returns:
        Scalar, float32. Nats per pixel value for `logit-laplace`.
    """
    output = output.float()
    if likelihood == "logit-laplace":
        mu, raw_log_scale = output.chunk(2, dim=1)  # b 3 y x each
        floor = torch.full((), math.log(MIN_SCALE), device=output.device)
        log_scale = torch.logaddexp(raw_log_scale, floor)
        return logit_laplace_nll(mu, log_scale, squeeze(pixels)).mean()
    difference = output - pixels
    return difference.abs().mean() if likelihood == "l1" else difference.square().mean()


def mean_pixels(output: Tensor, likelihood: Likelihood) -> Tensor:
    """The picture a decoder output stands for: its location, without its scale.

    Args:
        output: Decoder output, shape (b, 6 or 3, y, x).
        likelihood: What the decoder was trained with.

    Returns:
        Pixels, -1...1, shape (b, 3, y, x), float32.
    """
    output = output.float()
    if likelihood == "logit-laplace":
        return unsqueeze(torch.sigmoid(output[:, :3]))
    return output.clamp(-1.0, 1.0)


def kl_to_uniform(logits: Tensor) -> Tensor:
    """KL divergence of softmax(logits) from the uniform distribution over the codes.

    Args:
        logits: Scores of the codes, shape (b, k, h, w).

    Returns:
        Scalar in 0...ln k: nats per grid cell, averaged over cells.
    """
    log_q = torch.log_softmax(logits.float(), dim=1)
    negative_entropy = (log_q.exp() * log_q).sum(dim=1)  # b h w
    return negative_entropy.mean() + math.log(logits.shape[1])
