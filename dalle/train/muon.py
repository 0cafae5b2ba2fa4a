"""Muon for machines that have no products of bf16."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon


class Float32Muon(Muon):
    """torch's Muon, except that it orthogonalises in float32 instead of bf16.

    A processor that multiplies no bf16 takes forty times as long for it, which was four fifths of a
    training step of the bundled model. State and settings are those of torch's class, so that a
    run may go on on a machine of the other kind.

    Source: Jordan et al., https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(self, matrices: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        """Train `matrices`, each of shape (o, i), with updates as long as AdamW's."""
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every matrix that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)
        return loss

    def _update(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Decay a matrix (o, i), and move it along its orthogonalised momentum."""
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        if group["nesterov"]:
            momentum = gradient.lerp(momentum, group["momentum"])
        direction = orthogonalised(
            momentum, group["ns_coefficients"], steps=group["ns_steps"], eps=group["eps"]
        )
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        # Liu et al., arXiv:2502.16982, section 2.2.
        matrix.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))


def orthogonalised(
    matrix: Tensor, coefficients: tuple[float, float, float], *, steps: int, eps: float
) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, roughly: singular values near 1.

    Args:
        matrix: Shape (o, i), float32.
        coefficients: Of x, x^3 and x^5, which each step makes of a singular value x.
        steps: Newton-Schulz iterations.
        eps: What the norm of `matrix` is at least taken for.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
