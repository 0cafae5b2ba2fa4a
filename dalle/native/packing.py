"""Weights in the order in which the compiled decode step reads them.

Axis letters: o outputs, i inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from dalle.config import WeightType
from dalle.native.structures import Linear

WEIGHT_BYTES: dict[WeightType, int] = {"fp32": 4, "bf16": 2, "int8": 1}
PANEL = 16
"""Outputs of a panel; outputs are padded to pairs of panels."""
_GROUP_BYTES = 4
_GROUPS = 16
"""Inputs come in groups of 4 bytes, padded to sixteens of groups: the width of a tile register."""
_INT8_MAX = 127
_INPUT_OFFSET = 128
"""The step holds int8 inputs plus this, because the processor multiplies unsigned with signed."""


@dataclass(frozen=True, kw_only=True)
class PackedLinear:
    """A linear layer's tensors; they must live as long as `structure` is used."""

    weights: Tensor
    """Shape (panels, groups, 16 outputs, inputs of a group)."""
    bias: Tensor | None
    """Shape (o), padded, float32."""
    scales: Tensor | None
    """int8: what one step of each output's weights is worth, shape (o), padded, float32."""
    sums: Tensor | None
    """int8: 128 times the sum of each output's weights, shape (o), padded, int32."""

    @property
    def structure(self) -> Linear:
        """Addresses of the tensors."""
        panels, groups = self.weights.shape[:2]
        return Linear(
            weights=self.weights.data_ptr(),
            bias=address(self.bias),
            scales=address(self.scales),
            sums=address(self.sums),
            groups=groups,
            panels=panels,
        )


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers lie; None stays None."""
    return None if tensor is None else tensor.data_ptr()


def pack_linear(weight: Tensor, bias: Tensor | None, kind: WeightType) -> PackedLinear:
    """A linear layer in the format `kind`, padded with zeros.

    int8 weights have a scale for each output, which maps their largest magnitude to 127.

    Args:
        weight: Shape (o, i), any float type.
        bias: Shape (o), or None.
        kind: Format of the packed weights.
    """
    wide = weight.detach().float()
    inputs = _GROUP_BYTES // WEIGHT_BYTES[kind]  # per group
    pads = (0, -wide.shape[1] % (inputs * _GROUPS), 0, -wide.shape[0] % (2 * PANEL))
    wide = pad(wide, pads)
    scales = sums = None
    if kind == "int8":
        narrow, scales = quantize_rows(wide)
        sums = _INPUT_OFFSET * narrow.sum(dim=1, dtype=torch.int32)
    else:
        narrow = wide.bfloat16() if kind == "bf16" else wide
    panels = rearrange(narrow, "(p o) (g i) -> p g o i", o=PANEL, i=inputs).contiguous()
    return PackedLinear(
        weights=panels,
        bias=None if bias is None else pad(bias.detach().float(), (0, pads[3])).contiguous(),
        scales=scales,
        sums=sums,
    )


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of (o, i) in int8, and the value of its unit, shape (o), float32."""
    scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_MAX
    return (weight / scales[:, None]).round().to(torch.int8), scales
