"""What is decayed, what is not, and averaged weights by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import Muon

from dalle.config import OptimConfig
from dalle.train.muon import Float32Muon
from dalle.train.optim import build_optimizers, update_average


class Small(nn.Module):
    """One of everything, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 2)
        self.positional_embedding = nn.Parameter(torch.ones(3, 2))  # as in open_clip
        self.inner = nn.ParameterDict({"codebook": torch.ones(3, 2)})  # as in the Gumbel quantiser
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
        self.register_buffer("codebook", torch.zeros(2))


def test_decay_touches_matrices_but_not_gains_biases_and_tables() -> None:
    """Bug: tables that are no `nn.Embedding`, such as CLIP's positions, were decayed."""
    model = Small()
    (optimizer,) = build_optimizers(model, OptimConfig(lr=0.1, weight_decay=0.5))
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
    (optimizer,) = build_optimizers(model, OptimConfig())
    trained = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    wanted = [id(weight) for name, weight in model.named_parameters() if name != "frozen"]
    assert sorted(trained) == sorted(wanted)


def test_the_optimizer_is_as_configured() -> None:
    config = OptimConfig(lr=3e-4, beta1=0.8, beta2=0.96, weight_decay=0.045)
    (optimizer,) = build_optimizers(Small(), config)
    assert {group["lr"] for group in optimizer.param_groups} == {3e-4}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.96)}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.045, 0.0]


def test_one_step_is_adams_by_hand() -> None:
    """The first update of Adam is lr * g / (|g| + eps), whatever the betas."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    (optimizer,) = build_optimizers(model, OptimConfig(lr=0.1, weight_decay=0.0))
    model.weight.grad = torch.full_like(model.weight, 5.0)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1.9)


@torch.no_grad()
def test_muon_takes_the_linear_matrices_and_adamw_the_rest() -> None:
    model = Small()
    adamw, muon = build_optimizers(model, OptimConfig(optimizer="muon", lr=0.1, weight_decay=0.5))
    assert [id(p) for group in muon.param_groups for p in group["params"]] == [
        id(model.linear.weight)
    ]
    rest = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert rest == {
        id(p)
        for p in (
            *(model.table.weight, model.positional_embedding, *model.inner.values()),
            *(model.linear.bias, model.norm.weight, model.norm.bias),
        )
    }


def test_a_muon_step_is_orthogonal_and_as_long_as_adams() -> None:
    """Its update is 0.2 * sqrt(larger side) times a matrix of orthonormal rows or columns."""
    torch.manual_seed(0)
    model = nn.Linear(8, 32, bias=False)
    before = model.weight.detach().clone()
    (muon,) = build_optimizers(model, OptimConfig(optimizer="muon", lr=0.1, weight_decay=0.0))
    model.weight.grad = torch.randn(32, 8)
    muon.step()
    update = (before - model.weight.detach()) / (0.1 * 0.2 * 32**0.5)
    singular = torch.linalg.svdvals(update)
    # Five Newton-Schulz iterations in bf16 leave singular values between about 0.7 and 1.2.
    assert 0.6 < singular.min() < singular.max() < 1.3


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_muon_in_float32_is_torchs_and_goes_on_from_its_state(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(4, *shape)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    in_float32 = Float32Muon([ours], lr=0.1, weight_decay=0.5)
    in_bf16 = Muon([theirs], lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    for number, gradient in enumerate(gradients):
        if number == 2:  # as if the run went on on the other kind of machine
            state = in_float32.state_dict()
            in_float32.load_state_dict(in_bf16.state_dict())
            in_bf16.load_state_dict(state)
        before = ours.detach().clone()
        for weight, optimizer in ((ours, in_float32), (theirs, in_bf16)):
            weight.grad = gradient.clone()
            optimizer.step()
        update = (ours.detach() - before).norm()
        # bf16 has 8 bits, and five iterations stretch what they lose by 3.4 each at first.
        assert (ours - theirs).norm() < 0.05 * (number + 1) * update
    momenta = (
        optimizer.state[weight]["momentum_buffer"]
        for weight, optimizer in ((ours, in_float32), (theirs, in_bf16))
    )
    assert torch.equal(*momenta)


@pytest.mark.parametrize(("native", "kind"), [(True, Muon), (False, Float32Muon)])
def test_muon_computes_in_what_the_processor_multiplies(
    native: bool, kind: type[Muon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    _, muon = build_optimizers(Small(), OptimConfig(optimizer="muon"))
    assert type(muon) is kind


def test_muon_in_float32_leaves_alone_what_has_no_gradient() -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    Float32Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weight, torch.ones(2, 3))


def test_muon_refuses_a_model_without_linear_layers() -> None:
    with pytest.raises(ValueError, match="Conv2d has none; use adamw"):
        build_optimizers(nn.Conv2d(3, 3, 3), OptimConfig(optimizer="muon"))


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
