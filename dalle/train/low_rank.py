"""Low-rank additions to the matrices of a transformer, trained in their place (LoRA).

A matrix of o x i weights stays as it is, and the product of two narrow ones, o x r and r x i, is
added to it. Only these have gradients and moments, and they are merged into the matrix in the end.

Source: Hu et al., arXiv:2106.09685. Axis letters: o outputs, i inputs, r rank.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dalle.transformer import JointTransformer

SCALE = 2.0
"""Of what is added (the paper's alpha / r): the learning rate need not follow the rank."""


class LowRankLinear(nn.Linear):
    """A linear layer with an addition to its matrix, which is nothing before the first step."""

    def __init__(self, source: nn.Linear, rank: int) -> None:
        """A layer that has the weights of `source`, with an addition of rank `rank`."""
        super().__init__(source.in_features, source.out_features, device="meta")
        self.weight, self.bias = source.weight, source.bias
        self.down = nn.Parameter(torch.empty(rank, source.in_features))
        self.up = nn.Parameter(torch.zeros(source.out_features, rank))
        nn.init.normal_(self.down, std=source.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., i) to (..., o); no matrix of o x i is computed, nor its gradient."""
        return super().forward(x) + linear(linear(x, self.down), SCALE * self.up)

    def merged(self) -> nn.Linear:
        """The plain layer that does the same."""
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        plain.weight = nn.Parameter(torch.addmm(self.weight, self.up, self.down, alpha=SCALE))
        plain.bias = self.bias
        return plain


def train_low_rank(model: JointTransformer, rank: int, *, words: bool) -> None:
    """Freeze a model but for additions to the matrices of its blocks.

    Args:
        model: In float32.
        rank: Of the additions (r), at most the model's width.
        words: Train what belongs to each entry of the caption vocabulary as well, as a new one
            needs.

    Raises:
        ValueError: The rank is more than the model's width.
    """
    if rank > model.config.width:
        raise ValueError(
            f"lora_rank must be at most the model's width, {model.config.width}, got {rank}; 4 to "
            "64 are usual"
        )
    model.requires_grad_(False)
    for parent, name, layer in _layers(model):
        setattr(parent, name, LowRankLinear(layer, rank))
    if words:
        model.text_embedding.requires_grad_(True)
        if not model.config.tie_embeddings:
            model.text_unembedding.requires_grad_(True)


@torch.no_grad()
def merged(model: JointTransformer) -> JointTransformer:
    """`model` with plain matrices and the same other weights; itself if it has no additions."""
    if not any(isinstance(layer, LowRankLinear) for _, _, layer in _layers(model)):
        return model
    plain = copy.deepcopy(model, {id(one): one for one in model.parameters()})
    for parent, name, layer in _layers(plain):
        if isinstance(layer, LowRankLinear):
            setattr(parent, name, layer.merged())
    return plain


def _layers(model: JointTransformer) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer of the blocks, and where it stands: the module, and the name there."""
    for block in model.block_list():
        yield block.attention, "qkv", block.attention.qkv
        yield block.attention, "out", block.attention.out
        yield block, "mlp_in", block.mlp_in
        yield block, "mlp_out", block.mlp_out
