"""The optimizer and the averaged weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import AdamW

from dalle.config import OptimConfig


def build_adamw(model: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW over `model`; weight decay touches matrices and kernels, not gains, biases, tables.

    The paper's second-moment clip at 5 is left out: it guards 16-bit optimizer state, and ours is
    fp32.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2 and id(p) not in tables]
    others = [p for p in trained if p.ndim < 2 or id(p) in tables]
    return AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=1e-8,
        fused=True,
    )


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move `average` towards `model`: parameters by 1 - decay, buffers all the way."""
    torch._foreach_lerp_(
        [parameter.data for parameter in average.parameters()],
        [parameter.data for parameter in model.parameters()],
        1 - decay,
    )
    for averaged, current in zip(average.buffers(), model.buffers(), strict=True):
        averaged.copy_(current)
