"""What is decayed, what is not, and averaged weights by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dalle.config import OptimConfig
from dalle.train.optim import build_adamw, update_average


class Small(nn.Module):
    """One of everything, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 2)
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
        self.register_buffer("codebook", torch.zeros(2))


def test_decay_touches_matrices_but_not_gains_biases_and_tables() -> None:
    model = Small()
    optimizer = build_adamw(model, OptimConfig(lr=0.1, weight_decay=0.5))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        # Without gradient AdamW multiplies by 1 - lr * decay = 0.95.
        factor = 0.95 if name == "linear.weight" else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)


def test_every_weight_is_trained_once_unless_it_is_frozen() -> None:
    model = Small()
    optimizer = build_adamw(model, OptimConfig())
    trained = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    wanted = [id(weight) for name, weight in model.named_parameters() if name != "frozen"]
    assert sorted(trained) == sorted(wanted)


def test_the_optimizer_is_as_configured() -> None:
    config = OptimConfig(lr=3e-4, beta1=0.8, beta2=0.96, weight_decay=0.045)
    optimizer = build_adamw(Small(), config)
    assert {group["lr"] for group in optimizer.param_groups} == {3e-4}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.96)}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.045, 0.0]


def test_one_step_is_adams_by_hand() -> None:
    """The first update of Adam is lr * g / (|g| + eps), whatever the betas."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    optimizer = build_adamw(model, OptimConfig(lr=0.1, weight_decay=0.0))
    model.weight.grad = torch.full_like(model.weight, 5.0)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1.9)


def test_the_average_moves_by_one_minus_decay_and_takes_buffers_whole() -> None:
    average, model = Small(), Small()
    with torch.no_grad():
        average.linear.weight.fill_(1.0)
        model.linear.weight.fill_(3.0)
        model.get_buffer("codebook").fill_(7.0)
    update_average(average, model, 0.75)
    assert average.linear.weight.unique().tolist() == [1.5]
    assert average.get_buffer("codebook").tolist() == [7, 7]
    assert model.linear.weight.unique().tolist() == [3]
    update_average(average, model, 0.75)
    assert average.linear.weight.unique().tolist() == [1.875]
