"""Layout of the joint sequence, and its loss worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dalle.model_config import SequenceConfig
from dalle.sequence import (
    SlotKind,
    _summed_cross_entropy,
    image_slot,
    joint_loss,
    null_caption,
    pad_caption,
    slot_layout,
    text_targets,
)

# t = 3, v = 5, a grid of 2 rows and 2 columns, k = 4.
CONFIG = SequenceConfig(text_len=3, text_vocab=5, grid_h=2, grid_w=2, image_vocab=4)


def test_slots_stand_where_the_module_says() -> None:
    layout = slot_layout(torch.arange(CONFIG.total_len), CONFIG)
    start, text, image = SlotKind.START, SlotKind.TEXT, SlotKind.IMAGE
    assert layout.kind.tolist() == [start, text, text, text, image, image, image]
    assert layout.text.tolist() == [-1, 0, 1, 2, -1, -1, -1]
    assert layout.row.tolist() == [-1, -1, -1, -1, 0, 0, 1]
    assert layout.column.tolist() == [-1, -1, -1, -1, 0, 1, 0]


def test_image_slot_agrees_with_the_layout() -> None:
    slots = torch.tensor([image_slot(position, CONFIG) for position in range(4)])
    layout = slot_layout(slots, CONFIG)
    assert (layout.row * 2 + layout.column).tolist() == [0, 1, 2, 3]


def test_each_position_without_text_has_a_pad_of_its_own() -> None:
    assert pad_caption([4], CONFIG).tolist() == [4, 6, 7]
    assert pad_caption([], CONFIG).tolist() == null_caption(CONFIG).tolist() == [5, 6, 7]
    assert pad_caption([0, 1, 2], CONFIG).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 1, 2, 3], r"at most text_len \(3\) tokens, got 4"),
        ([0, 5], "must lie in 0 to 4, got 0 to 5"),
        ([-1, 2], "must lie in 0 to 4, got -1 to 2"),
    ],
)
def test_captions_that_do_not_fit_are_refused(ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pad_caption(ids, CONFIG)


def test_text_targets_end_once() -> None:
    captions = torch.stack([pad_caption(ids, CONFIG) for ids in ([], [1], [1, 2], [4, 3, 2])])
    assert text_targets(captions, 5).tolist() == [
        [5, -100, -100],
        [1, 5, -100],
        [1, 2, 5],
        [4, 3, 2],
    ]


def test_loss_by_hand() -> None:
    """Two captions: `[1]` gets logits favouring its targets, `[4, 3, 2]` gets uniform ones.

    A favoured class with logit ln 5 among 5 others at 0 has probability 5/10, so each of the two
    tokens of the first caption (1, then the end) costs ln 2; the three of the second cost ln 6.
    Image logits are uniform but for one token with probability 3/6.
    """
    text_ids = torch.stack([pad_caption([1], CONFIG), pad_caption([4, 3, 2], CONFIG)])
    text_logits = torch.zeros(2, 3, 6)
    text_logits[0, 0, 1] = text_logits[0, 1, 5] = math.log(5)
    text_logits[0, 2, 0] = 99.0  # the second pad is not scored
    image_tokens = torch.tensor([[0, 1, 2, 3], [3, 3, 3, 3]])
    image_logits = torch.zeros(2, 4, 4)
    image_logits[1, 3, 3] = math.log(3)
    losses = joint_loss(
        text_logits,
        image_logits,
        text_ids=text_ids,
        image_tokens=image_tokens,
        text_weight=0.125,
        scored_text=torch.tensor([True, True]),
    )
    text = (2 * math.log(2) + 3 * math.log(6)) / 5
    image = (7 * math.log(4) + math.log(2)) / 8
    assert losses.text_loss.item() == pytest.approx(text, rel=1e-6)
    assert losses.image_loss.item() == pytest.approx(image, rel=1e-6)
    assert losses.loss.item() == pytest.approx(text / 8 + image * 7 / 8, rel=1e-6)


def test_dropped_captions_are_not_scored() -> None:
    text_ids = torch.stack([null_caption(CONFIG), pad_caption([1, 2], CONFIG)])
    text_logits = torch.zeros(2, 3, 6, requires_grad=True)
    image_logits = torch.zeros(2, 4, 4, requires_grad=True)
    losses = joint_loss(
        text_logits,
        image_logits,
        text_ids=text_ids,
        image_tokens=torch.zeros(2, 4, dtype=torch.int64),
        text_weight=0.5,
        scored_text=torch.tensor([False, True]),
    )
    torch.autograd.backward(losses.loss)
    assert losses.text_loss.item() == pytest.approx(math.log(6))
    assert text_logits.grad is not None
    assert text_logits.grad[0].count_nonzero() == 0
    assert (text_logits.grad[1].abs().sum(-1) > 0).all()
    assert image_logits.grad is not None
    assert (image_logits.grad.abs().sum(-1) > 0).all(), "the image is scored in every row"


def test_a_batch_of_dropped_captions_has_no_text_loss() -> None:
    text_logits = torch.randn(2, 3, 6, requires_grad=True)
    losses = joint_loss(
        text_logits,
        torch.zeros(2, 4, 4),
        text_ids=null_caption(CONFIG).expand(2, -1),
        image_tokens=torch.zeros(2, 4, dtype=torch.int64),
        text_weight=0.125,
        scored_text=torch.tensor([False, False]),
    )
    torch.autograd.backward(losses.loss)
    assert losses.text_loss.item() == 0
    assert text_logits.grad is not None
    assert text_logits.grad.count_nonzero() == 0


def test_loss_is_computed_in_float32() -> None:
    """In bfloat16 the mean over many tokens would keep three digits only."""
    generator = torch.Generator().manual_seed(0)
    text_logits = torch.randn(2, 3, 6, generator=generator).bfloat16()
    image_logits = torch.randn(2, 4, 4, generator=generator).bfloat16()
    losses = [
        joint_loss(
            text_logits.to(dtype),
            image_logits.to(dtype),
            text_ids=torch.stack([pad_caption([1], CONFIG)] * 2),
            image_tokens=torch.ones(2, 4, dtype=torch.int64),
            text_weight=0.125,
            scored_text=torch.ones(2, dtype=torch.bool),
        ).loss
        for dtype in (torch.bfloat16, torch.float32)
    ]
    assert torch.equal(losses[0], losses[1])


def test_the_gradient_of_the_loss_equals_autograd_s_over_more_rows_than_one_portion() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 120, 9, generator=generator, requires_grad=True)
    targets = torch.randint(9, (5, 120), generator=generator)
    targets[2, 10:] = -100
    total = _summed_cross_entropy(logits, targets)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="sum"
    )
    torch.testing.assert_close(total, expected)
    (found,) = torch.autograd.grad(3 * total, logits)
    (wanted,) = torch.autograd.grad(3 * expected, logits)
    torch.testing.assert_close(found, wanted)
