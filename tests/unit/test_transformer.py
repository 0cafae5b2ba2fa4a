"""The joint transformer: who sees whom, what it stores, and in which precision it speaks."""

from __future__ import annotations

import math
import weakref
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dalle.attention import causal_mask
from dalle.kv_cache import KeyValues
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.sequence import null_caption, pad_caption
from dalle.transformer import Block, JointTransformer

SEQUENCE = SequenceConfig(text_len=3, text_vocab=7, grid_h=4, grid_w=4, image_vocab=11)


def tiny(*, attention: str = "dense", layers: int = 3, **changes: object) -> JointTransformer:
    """A small model with weights large enough that every path shows in the logits."""
    torch.manual_seed(0)
    settings = {"width": 16, "heads": 2, "conv_kernel": 3} | changes
    config = TransformerConfig(layers=layers, attention=attention, **settings)  # type: ignore[arg-type]
    transformer = JointTransformer(SEQUENCE, config)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            parameter.mul_(1 if "norm" in name else 10)
    return transformer


def batch(rows: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    captions = torch.stack([pad_caption(list(range(row % 4)), SEQUENCE) for row in range(rows)])
    return captions, torch.randint(11, (rows, 16), generator=generator)


def changed_slots(transformer: JointTransformer, element: int) -> Tensor:
    """Slots whose logits move when `element` of the sequence is replaced, shape (n), bool."""
    text_ids, image_tokens = batch()
    other_text, other_image = text_ids.clone(), image_tokens.clone()
    if element < SEQUENCE.text_len:
        other_text[:, element] = (other_text[:, element] + 1) % SEQUENCE.text_vocab
    else:
        position = element - SEQUENCE.text_len
        other_image[:, position] = (other_image[:, position] + 1) % SEQUENCE.image_vocab
    with torch.inference_mode():
        before, after = transformer(text_ids, image_tokens), transformer(other_text, other_image)
    text_moved = (before.text != after.text).flatten(2).any(-1).any(0)
    image_moved = (before.image != after.image).flatten(2).any(-1).any(0)
    return torch.cat([text_moved, image_moved])


def reach(transformer: JointTransformer) -> Tensor:
    """Which slots each slot is told of through all layers together, shape (n, n), bool."""
    told = torch.eye(SEQUENCE.total_len)
    for kind in transformer.config.layer_masks():
        told = causal_mask(kind, SEQUENCE, transformer.config.conv_kernel).float() @ told
    return told > 0


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
@pytest.mark.parametrize("attention", ["dense", "paper"])
def test_logits_move_exactly_where_the_masks_let_a_token_through(
    attention: str, layers: int
) -> None:
    """Element j stands in slot j + 1, so nothing at positions 0 to j may move, to the last bit."""
    transformer = tiny(attention=attention, layers=layers)
    told = reach(transformer)
    for element in range(SEQUENCE.total_len):
        moved = changed_slots(transformer, element)
        assert not moved[: element + 1].any(), f"element {element} is seen before it is predicted"
        if element + 1 < SEQUENCE.total_len:
            assert torch.equal(moved, told[:, element + 1]), f"element {element}"
        else:
            assert not moved.any(), "the last image token is never an input"


def test_layers_take_the_papers_masks_in_order() -> None:
    config = TransformerConfig(width=16, heads=2, layers=6, attention="paper")
    assert config.layer_masks() == ("row", "column", "row", "row", "row", "conv")


def test_every_pad_position_is_learned_apart() -> None:
    transformer = tiny()
    transformer(null_caption(SEQUENCE)[None], batch(1)[1]).image.sum().backward()
    gradient = transformer.text_embedding.weight.grad
    assert gradient is not None
    assert gradient[7:].abs().sum(-1).gt(0).all()
    assert gradient[:7].count_nonzero() == 0


def test_every_parameter_takes_part() -> None:
    for tie_embeddings in (False, True):
        transformer = tiny(qk_norm=True, tie_embeddings=tie_embeddings)
        text_ids, image_tokens = batch(16)
        logits = transformer(text_ids, image_tokens)
        (logits.text.square().sum() + logits.image.square().sum()).backward()
        for name, parameter in transformer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("attention", ["dense", "paper"])
@pytest.mark.parametrize("narrow", [False, True])
def test_recomputing_saves_memory_and_changes_no_gradient(attention: str, *, narrow: bool) -> None:
    gradients, saved = [], []
    for recompute in (False, True):
        transformer = tiny(attention=attention)
        transformer.recompute = recompute
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with (
            torch.autocast("cpu", torch.bfloat16, enabled=narrow),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            logits = transformer(*batch())
        (logits.text.square().sum() + logits.image.square().sum()).backward()
        gradients.append([parameter.grad for parameter in transformer.parameters()])
        saved.append(kept)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert saved[1] < saved[0] / 2


def test_training_holds_no_keys_and_values_beside_what_the_backward_pass_needs() -> None:
    transformer = tiny()
    keys: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def remember(module: nn.Module, args: object, output: tuple[Tensor, KeyValues]) -> None:
        del module, args
        alive.append(sum(one() is not None for one in keys))
        keys.append(weakref.ref(output[1].keys))

    for block in transformer.blocks:
        cast(Block, block).attention.register_forward_hook(remember)
    transformer(*batch())
    assert max(alive) <= 1


def test_activations_are_computed_anew_and_change_no_gradient() -> None:
    block = Block(16, 2, mlp_ratio=4, qk_norm=False)
    calls: list[Tensor] = []
    block.activation.register_forward_hook(lambda *seen: calls.append(seen[2]))
    states = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    learnt = [states, *block.mlp_norm.parameters(), *block.mlp_in.parameters()]
    plain = states + block._from_hidden(block.mlp_in(block.mlp_norm(states)))
    kept = torch.autograd.grad(plain.square().sum(), learnt)
    calls.clear()
    anew = torch.autograd.grad(block._feed_forward(states).square().sum(), learnt)
    assert len(calls) == 2
    assert all(torch.equal(*pair) for pair in zip(kept, anew, strict=True))
    calls.clear()
    with torch.no_grad():
        block._feed_forward(states)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("table", "first_told"),
    [
        # A position is read in the slot of its token, so the element after it is told first.
        ("text_position", [1, 2, 3]),
        ("row_position", [4, 8, 12, 16]),
        ("column_position", [4, 5, 6, 7]),
    ],
)
def test_positions_are_added_where_they_belong(table: str, first_told: list[int]) -> None:
    transformer = tiny()
    positions = transformer.get_submodule(table)
    assert isinstance(positions, nn.Embedding)

    def logits() -> Tensor:
        joint = transformer(*batch())
        text, image = joint.text.abs().sum((0, 2)), joint.image.abs().sum((0, 2))
        return torch.cat([text, image])

    with torch.no_grad():
        before = logits()
        for index, first in enumerate(first_told):
            original = positions.weight[index].clone()
            positions.weight[index] = -original
            assert (logits() != before).nonzero()[0].item() == first
            positions.weight[index] = original


def test_heads_speak_for_their_own_half_only() -> None:
    logits = tiny()(*batch(3))
    assert logits.text.shape == (3, 3, 8), "seven word pieces and the end"
    assert logits.image.shape == (3, 16, 11)


def test_tied_embeddings_are_the_output_projections() -> None:
    transformer = tiny(tie_embeddings=True)
    states: list[Tensor] = []
    transformer.final_norm.register_forward_hook(lambda *call: states.append(call[2]))
    logits = transformer(*batch())
    text = states[0][:, :3] @ transformer.text_embedding.weight[:8].T
    image = states[0][:, 3:] @ transformer.image_embedding.weight.T
    torch.testing.assert_close(logits.text, text)
    torch.testing.assert_close(logits.image, image)


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_weights_survive_safetensors_and_masks_are_not_stored(
    tmp_path: Path, tie_embeddings: bool
) -> None:
    transformer = tiny(attention="paper", tie_embeddings=tie_embeddings)
    state = transformer.state_dict()
    assert not [name for name in state if "mask" in name]
    assert tie_embeddings == (not [name for name in state if "unembedding" in name])
    save_file(state, tmp_path / "transformer.safetensors")
    loaded = JointTransformer(SEQUENCE, transformer.config)
    loaded.load_state_dict(load_file(tmp_path / "transformer.safetensors"))
    assert torch.equal(loaded(*batch()).image, transformer(*batch()).image)


def test_initial_weights_have_the_stated_deviations() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(width=128, heads=2, layers=8)
    transformer = JointTransformer(SEQUENCE, config)
    for name, parameter in transformer.named_parameters():
        if name.endswith("bias"):
            assert parameter.count_nonzero() == 0, name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif parameter.numel() > 10_000:
            adds = name.endswith(("attention.out.weight", "mlp_out.weight"))
            expected = 0.02 / math.sqrt(16) if adds else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name


def test_an_untrained_model_is_close_to_uniform() -> None:
    """A first loss far from ln(classes) is the classic sign of a wrong initialisation."""
    torch.manual_seed(0)
    transformer = JointTransformer(SEQUENCE, TransformerConfig(width=64, heads=4, layers=4))
    text_ids, image_tokens = batch(32)
    logits = transformer(text_ids, image_tokens).image
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), image_tokens.flatten())
    assert loss.item() == pytest.approx(math.log(11), abs=0.05)


def test_logits_are_float32_under_autocast_and_in_a_bfloat16_model() -> None:
    transformer = tiny()
    exact = transformer(*batch())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = transformer(*batch())
    half = tiny().bfloat16()(*batch())
    for logits in (mixed, half):
        assert logits.text.dtype == logits.image.dtype == torch.float32
        # States are rounded to 8 bits several times; logits here are of the order of 3.
        torch.testing.assert_close(logits.image, exact.image, rtol=0.1, atol=0.5)


@torch.inference_mode()
def test_logits_to_sample_from_are_not_rounded() -> None:
    text_ids, image_tokens = batch()
    with torch.autocast("cpu", torch.bfloat16):
        mixed, cache = tiny().prefill(text_ids, None, candidates=1)
        later = tiny().decode_step(image_tokens[:, :1], 0, cache)
    half, _ = tiny().bfloat16().prefill(text_ids, None, candidates=1)
    for logits in (mixed, later, half):
        assert logits.dtype == torch.float32
        # Rounded logits would be bfloat16 numbers written in float32.
        assert not torch.equal(logits, logits.bfloat16().float())


def test_output_does_not_depend_on_the_training_switch() -> None:
    transformer = tiny()
    training = transformer.train()(*batch())
    assert torch.equal(training.image, transformer.eval()(*batch()).image)
