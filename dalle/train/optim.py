"""The optimizers and the averaged weights."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from dalle.config import OptimConfig
from dalle.device import autocast_dtype
from dalle.train.muon import Float32Muon

BARE_TABLES = ("positional_embedding", "codebook")
"""Tables that are parameters by themselves: open_clip's positions, the Gumbel quantiser's codes."""


def build_optimizers(model: nn.Module, config: OptimConfig) -> tuple[Optimizer, ...]:
    """The optimizers that together train every weight of `model` once.

    With `adamw` that is one AdamW; weight decay touches matrices and kernels, not gains, biases
    and tables. With `muon` the matrices of linear layers go to Muon (Jordan et al., 2024), whose
    updates are orthogonalised and scaled to the size that AdamW's have (Liu et al.,
    arXiv:2502.16982), so that one learning rate serves both; AdamW keeps the rest.

    The paper's second-moment clip at 5 is left out: it guards 16-bit optimizer state, and ours is
    fp32.

    Raises:
        ValueError: Muon is asked for and the model has no linear layer.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "adamw":
        return (_adamw(model, trained, config),)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    matrices = [layer.weight for layer in layers if layer.weight.requires_grad]
    if not matrices:
        raise ValueError(
            "optimizer is muon, which trains the matrices of linear layers, and "
            f"{type(model).__name__} has none; use adamw"
        )
    lr, decay = config.lr, config.weight_decay
    muon: Muon
    if autocast_dtype("auto", matrices[0].device) is None:
        muon = Float32Muon(matrices, lr=lr, weight_decay=decay)
    else:
        muon = Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    taken = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in trained if id(parameter) not in taken]
    return (_adamw(model, rest, config), muon) if rest else (muon,)


def _adamw(model: nn.Module, parameters: list[nn.Parameter], config: OptimConfig) -> AdamW:
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tables |= {id(p) for name, p in model.named_parameters() if name.split(".")[-1] in BARE_TABLES}
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in tables]
    others = [p for p in parameters if p.ndim < 2 or id(p) in tables]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(
        # An empty one, as Muon leaves where embeddings are tied, would keep a run from resuming.
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=1e-8,
        fused=True,
    )


def count_text(model: nn.Module) -> str:
    """How many parameters a model has, and how many of them are trained if not all are."""
    count = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return f"{count:,}" if trained == count else f"{trained:,} of {count:,}"


def average_of(model: nn.Module) -> nn.Module:
    """A copy of `model` to be averaged; parameters that are not trained are the same tensors."""
    frozen = {id(one): one for one in model.parameters() if not one.requires_grad}
    return copy.deepcopy(model, frozen).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move `average` towards `model`: what is trained by 1 - decay, buffers all the way."""
    pairs = [
        (averaged.data, current.data)
        for averaged, current in zip(average.parameters(), model.parameters(), strict=True)
        if current.requires_grad
    ]
    torch._foreach_lerp_([one for one, _ in pairs], [other for _, other in pairs], 1 - decay)
    for averaged, current in zip(average.buffers(), model.buffers(), strict=True):
        averaged.copy_(current)
