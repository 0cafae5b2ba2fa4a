"""The joint sequence: where captions and image tokens stand, and how a prediction is scored.

With t caption positions and m = h * w image positions, the *elements* are

    caption[0] ... caption[t-1]  image[0] ... image[m-1]

in that order, the image row by row. The model reads them shifted right by one behind a learned
start token: input *slot* 0 holds the start token, slot i holds element i - 1, and what the model
says at slot i is its prediction of element i. The first image token is thus predicted at slot t,
whose input is the last caption element, and the last image token is never an input.

A caption position without text holds a pad of its own: at position i the id `text_vocab + i`
(paper section 2.2). The caption of nothing but pads is the null caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

from dalle.captions import CaptionTokenizer
from dalle.model_config import TO_DRAW, SequenceConfig

_NOT_SCORED = -100

_ROWS_AT_ONCE = 256
"""Rows whose probabilities are computed together on a CPU: few enough to stay in its cache."""


class SlotKind(IntEnum):
    """What an input slot holds."""

    START = 0
    TEXT = 1
    IMAGE = 2


@dataclass(frozen=True, kw_only=True)
class SlotLayout:
    """Where input slots stand; coordinates that a kind does not have are -1.

    Attributes:
        kind: A `SlotKind` per slot, shape (s).
        text: Caption position, shape (s).
        row: Grid row, shape (s).
        column: Grid column, shape (s).
    """

    kind: Tensor
    text: Tensor
    row: Tensor
    column: Tensor


@dataclass(frozen=True, kw_only=True)
class JointLoss:
    """Losses of a batch, scalars in float32 and nats per token.

    Attributes:
        loss: The weighted sum that is minimised.
        text_loss: Mean over scored caption tokens; 0 if there are none.
        image_loss: Mean over image tokens.
    """

    loss: Tensor
    text_loss: Tensor
    image_loss: Tensor


def slot_layout(slots: Tensor, config: SequenceConfig) -> SlotLayout:
    """What each of `slots` holds and where it stands.

    Args:
        slots: Input slots in any order, shape (s), 0 to n (n itself would hold the last image
            token).
        config: Lengths of the sequence.
    """
    text = slots - 1
    image = text - config.text_len
    is_text = (text >= 0) & (image < 0)
    is_image = image >= 0
    kind = torch.full_like(slots, SlotKind.START)
    kind = kind.masked_fill(is_text, SlotKind.TEXT).masked_fill(is_image, SlotKind.IMAGE)
    return SlotLayout(
        kind=kind,
        text=text.masked_fill(~is_text, -1),
        row=(image // config.grid_w).masked_fill(~is_image, -1),
        column=(image % config.grid_w).masked_fill(~is_image, -1),
    )


def image_slot(position: int, config: SequenceConfig) -> int:
    """The input slot that holds the image token at raster `position`."""
    return config.text_len + 1 + position


def pad_caption(ids: Sequence[int], config: SequenceConfig) -> Tensor:
    """A caption of full length, shape (t), int64: `ids`, then the pad of each position left.

    Raises:
        ValueError: There are more ids than positions, or one lies outside the vocabulary.
    """
    if len(ids) > config.text_len:
        raise ValueError(
            f"a caption must have at most text_len ({config.text_len}) tokens, got {len(ids)}; "
            "cut it with CaptionTokenizer.fit"
        )
    if ids and not 0 <= min(ids) <= max(ids) < config.text_vocab:
        raise ValueError(
            f"caption tokens must lie in 0 to {config.text_vocab - 1}, got {min(ids)} to "
            f"{max(ids)}; the tokenizer does not belong to this model"
        )
    padded = null_caption(config)
    padded[: len(ids)] = torch.tensor(list(ids), dtype=torch.int64)
    return padded


def fit_caption(
    ids: Sequence[int], tokenizer: CaptionTokenizer, config: SequenceConfig
) -> tuple[Tensor, bool]:
    """A caption of full length, shape (t), int64, cut if it must be; and whether it was.

    Args:
        ids: Its tokens, any number of them.
        tokenizer: What made them; cuts between characters.
        config: Gives the length.
    """
    fitted, was_cut = tokenizer.fit(ids, config.text_len)
    return pad_caption(fitted, config), was_cut


def kept_first(image_prompt: Tensor) -> int:
    """How many tokens of an image prompt, shape (r), come before the first that is to be drawn."""
    to_draw = (image_prompt == TO_DRAW).nonzero()
    return int(to_draw[0]) if len(to_draw) else len(image_prompt)


def null_caption(config: SequenceConfig) -> Tensor:
    """The caption of nothing but pads, shape (t), int64."""
    return torch.arange(config.text_len) + config.text_vocab


def text_targets(text_ids: Tensor, text_vocab: int) -> Tensor:
    """The class to predict at each caption position, shape (b, t).

    Real tokens are their own class; the first pad is class `text_vocab`, "the caption ends here".
    The pads after it follow from that one, so they are not scored (-100).
    """
    is_pad = text_ids >= text_vocab
    is_end = is_pad & (is_pad.cumsum(dim=-1) == 1)
    return text_ids.masked_fill(is_pad, _NOT_SCORED).masked_fill(is_end, text_vocab)


class _SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy over the rows that are scored, some rows at a time and in float32.

    No table of float32 scores, probabilities or gradients is ever whole in memory, which on a CPU
    took longer to fill than to compute.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum, float32, for logits of shape (n, v) and classes of shape (n)."""
        ctx.save_for_backward(logits, targets)
        total = torch.zeros((), dtype=torch.float64)
        for rows, classes in zip(
            logits.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True
        ):
            total += nll_loss(
                rows.log_softmax(-1, dtype=torch.float32),
                classes,
                ignore_index=_NOT_SCORED,
                reduction="sum",
            )
        return total.float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient of the logits, in their own type."""
        logits, targets = ctx.saved_tensors
        of_logits = torch.empty_like(logits)
        for of_rows, rows, classes in zip(
            of_logits.split(_ROWS_AT_ONCE),
            logits.split(_ROWS_AT_ONCE),
            targets.split(_ROWS_AT_ONCE),
            strict=True,
        ):
            scored = (classes != _NOT_SCORED)[:, None]
            chosen = classes[:, None].clamp(min=0)
            surprise = rows.softmax(-1, dtype=torch.float32)
            surprise.scatter_add_(1, chosen, surprise.new_full((1, 1), -1.0).expand_as(chosen))
            of_rows.copy_(surprise.mul_(grad * scored))
        return of_logits, None


def _summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over the scored positions, for logits of shape (b, n, v) and classes (b, n)."""
    logits, targets = logits.flatten(0, 1), targets.flatten()
    if logits.device.type == "cpu":
        return cast(Tensor, _SummedCrossEntropy.apply(logits, targets))
    return cross_entropy(logits.float(), targets, ignore_index=_NOT_SCORED, reduction="sum")


def joint_loss(
    text_logits: Tensor,
    image_logits: Tensor,
    *,
    text_ids: Tensor,
    image_tokens: Tensor,
    text_weight: float,
    scored_text: Tensor,
) -> JointLoss:
    """Cross-entropy of both halves, each averaged over its own tokens, and their weighted sum.

    Args:
        text_logits: Scores for the caption, shape (b, t, text_vocab + 1); the last class ends it.
        image_logits: Scores for the image, shape (b, m, k).
        text_ids: Captions with pads, shape (b, t), int64.
        image_tokens: Shape (b, m), int64.
        text_weight: Weight of the text half, 0 to 1; the image half has the rest.
        scored_text: Rows whose caption counts, shape (b), bool; False where the caption was
            replaced by the null caption, which nothing should learn to predict.

    Source: Ramesh et al., arXiv:2102.12092, section 2.2; ours scores one end token instead of
    every pad.
    """
    targets = text_targets(text_ids, text_logits.shape[-1] - 1)  # b t
    targets = targets.masked_fill(~scored_text[:, None], _NOT_SCORED)
    text_sum = _summed_cross_entropy(text_logits, targets)
    text_loss = text_sum / (targets != _NOT_SCORED).sum().clamp(min=1)
    image_loss = _summed_cross_entropy(image_logits, image_tokens) / image_tokens.numel()
    loss = text_weight * text_loss + (1 - text_weight) * image_loss
    return JointLoss(loss=loss, text_loss=text_loss, image_loss=image_loss)
