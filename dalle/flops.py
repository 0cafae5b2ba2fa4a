"""Operations that a joint transformer needs, two for each multiply-add.

Axis letters: t text positions, m image positions, d width, k vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from dalle.model_config import SequenceConfig, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What floors need to know of a transformer."""

    sequence: SequenceConfig
    config: TransformerConfig

    @property
    def block_weights(self) -> int:
        """Weights of all blocks that products read, biases and norms not counted."""
        return self.config.layers * (4 + 2 * self.config.mlp_ratio) * self.config.width**2

    @property
    def image_head_weights(self) -> int:
        """Weights of the image vocabulary's projection."""
        return self.sequence.image_vocab * self.config.width

    @property
    def text_head_weights(self) -> int:
        """Weights of the text vocabulary's projection."""
        return (self.sequence.text_vocab + 1) * self.config.width

    @property
    def numbers_per_slot(self) -> int:
        """Keys and values of one slot in all layers."""
        return 2 * self.config.layers * self.config.width


def prefill_flops(shape: Shape, captions: int) -> int:
    """Operations of reading captions, and of the first image token's scores."""
    slots = shape.sequence.text_len + 1
    per_caption = 2 * shape.block_weights * slots + 2 * shape.image_head_weights
    attention = 2 * shape.numbers_per_slot * slots * (slots + 1) // 2
    return captions * (per_caption + attention)


def training_flops(shape: Shape, batch: int) -> int:
    """Operations of a forward and a backward pass over `batch` sequences.

    The backward pass counts as two forward ones. Each head is applied to its own half. Attention
    is causal, so half of the square counts.
    """
    text, image = shape.sequence.text_len, shape.sequence.image_len
    slots = text + image
    forward = 2 * shape.block_weights * slots
    forward += 2 * (text * shape.text_head_weights + image * shape.image_head_weights)
    forward += 2 * shape.numbers_per_slot * slots * (slots + 1) // 2
    return 3 * batch * forward
