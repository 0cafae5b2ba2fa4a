"""The linear layers of a transformer that draws: the type and the order of their weights.

Axis letters: i inputs, o outputs.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dalle.config import WeightType
from dalle.native.packing import quantize_rows
from dalle.transformer import Block, JointTransformer

MICROBATCH = 16
"""Candidates that torch decodes together on a CPU. Fixed, because its rounding depends on it."""


_TINY = torch.finfo(torch.float32).tiny
"""Least scale of a row, so that one of zeros is not divided by 0."""


class OneDnnLinear(nn.Module):
    """A linear layer of a CPU whose weights lie as oneDNN's kernels read them.

    On a processor by AMD, products with the few rows of a step took half as long so as with plain
    weights.
    """

    def __init__(self, source: nn.Linear, dtype: torch.dtype, *, activated: bool = False) -> None:
        """Round the weights of `source` to `dtype`, and lay them out.

        Args:
            source: The layer.
            dtype: Of weights and products; sums are float32.
            activated: Apply GELU to the sums, and leave the result in `dtype`, in which the next
                layer reads it; else it is float32.
        """
        super().__init__()
        self._dtype, self._activated = dtype, activated
        self._bias = None if source.bias is None else source.bias.detach().to(dtype)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(
            source.weight.detach().to(dtype), MICROBATCH
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., i) to (..., o)."""
        then, how = ("gelu", "none") if self._activated else ("none", "")
        sums: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._packed, self._bias, then, [], how
        )
        return sums if self._activated else sums.float()


class _QuantizedLinear(nn.Module):
    """The int8 weights of a linear layer, one scale for each output."""

    weight: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, source: nn.Linear) -> None:
        """Quantise `source`."""
        super().__init__()
        weight, scales = quantize_rows(source.weight.detach().float())
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("bias", source.bias.detach(), persistent=False)


Int8Product = Literal["packed", "plain", "float"]
"""What multiplies whole numbers: FBGEMM, whose weights are packed once; oneDNN, which packs them at
each call; or products of float32."""


def int8_product() -> Int8Product:
    """The fastest of them that this processor and this torch have.

    Without products of 8 bits (VNNI), oneDNN takes ten times as long as products of float32 do,
    whose sums of so small numbers are exact up to 1,040 inputs. Intel's tile registers (AMX) are
    known to oneDNN alone.
    """
    if not torch.cpu._is_vnni_supported():
        return "float"
    packs = torch.backends.quantized.engine in ("x86", "fbgemm")
    # torch will give up the type of tensor that is packed: until then.
    packs = packs and hasattr(torch, "_make_per_channel_quantized_tensor")
    return "packed" if packs and not torch.cpu._is_amx_tile_supported() else "plain"


class Int8Linear(_QuantizedLinear):
    """A linear layer with int8 weights, whose inputs are quantised row by row as they come.

    torch's own dynamic quantisation has one scale for a whole batch, so that a picture would
    depend on its neighbours.
    """

    def __init__(self, source: nn.Linear, *, product: Int8Product | None = None) -> None:
        """Quantise `source`.

        Args:
            source: The layer.
            product: What multiplies; None is the fastest that there is.
        """
        super().__init__(source)
        self._product = product or int8_product()
        if self._product == "packed":
            self._packed = _packed_int8(self.weight, self.scales)
            del self.weight
        elif self._product == "float":
            self.weight = self.weight.float()

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., i) to (..., o), float32."""
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min_(_TINY)
        if self._product == "packed":
            # Rounds to 127ths, and multiplies by them and the scales of the weights, in one call.
            sums = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
                x / largest, 1 / 127, 128, self._packed
            )
            return torch.addcmul(self.bias, sums, largest)
        steps = largest.div_(127)
        whole = (x / steps).round_()
        if self._product == "plain":
            rows = whole.to(torch.int8).view(-1, x.shape[-1])
            sums = torch._int_mm(rows, self.weight.t()).to(x.dtype).view(*x.shape[:-1], -1)
        else:
            sums = linear(whole, self.weight)
        return torch.addcmul(self.bias, sums, steps * self.scales)


def _packed_int8(weight: Tensor, scales: Tensor) -> Any:
    """Weights (o, i), int8, one scale for each output (o), as FBGEMM's kernels read them."""
    with warnings.catch_warnings():
        # Said of the type of tensor that is packed.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation")
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        quantized = torch._make_per_channel_quantized_tensor(weight, scales.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(quantized, None)


class Int8WeightLinear(_QuantizedLinear):
    """A linear layer of a GPU whose weights alone are int8, in half of the memory of bfloat16.

    It is not faster: the wide weights are written before they are multiplied, compiled or not,
    unless torch fuses the two.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., i) to (..., o), of the type of `x`."""
        sums = linear(x, self.weight.to(x.dtype))
        return torch.addcmul(self.bias.to(x.dtype), sums, self.scales.to(x.dtype))


def in_dtype(transformer: JointTransformer, dtype: WeightType) -> JointTransformer:
    """`transformer` with weights of `dtype`, laid out for its device; itself where nothing changes.

    On a CPU only the products with weights are narrow, and keys and values are kept as float16
    where that is no detour: it has the bits of bfloat16's weights and eight times their precision.
    """
    on_cpu = transformer.start.device.type == "cpu"
    if dtype == "fp32" and not (on_cpu and torch.backends.mkldnn.is_available()):
        return transformer
    other = copy.deepcopy(transformer)
    if on_cpu and dtype != "fp32":
        other.kept_dtype = torch.float16
    if not on_cpu:
        other.bfloat16()
        if not other.config.tie_embeddings:
            # Scores are computed in float32, and would be of widened weights at every step.
            other.image_unembedding.data = transformer.image_unembedding.detach().clone()
    elif torch.backends.mkldnn.is_available():
        other.image_head = _head(transformer)
    if on_cpu or dtype == "int8":
        for block, source in zip(other.block_list(), transformer.block_list(), strict=True):
            _narrow(block, source, dtype, on_cpu=on_cpu)
    return other


def _narrow(block: Block, source: Block, dtype: WeightType, *, on_cpu: bool) -> None:
    """Put layers made of those of `source` in the places of those of `block`."""
    kind: Callable[[nn.Linear], Any] = Int8Linear if on_cpu else Int8WeightLinear
    mlp_in = kind
    if dtype != "int8":
        kind = mlp_in = partial(_rounded, dtype=dtype)
        if torch.backends.mkldnn.is_available():
            kind = partial(_packed, dtype=dtype)
            mlp_in = partial(_packed, dtype=dtype, activated=True)
            block.activation = nn.Identity()
    block.attention.qkv = kind(source.attention.qkv)
    block.attention.out = kind(source.attention.out)
    block.mlp_in = mlp_in(source.mlp_in)
    block.mlp_out = kind(source.mlp_out)


def _head(transformer: JointTransformer) -> OneDnnLinear:
    """The scores of image tokens, in float32 whatever the type of the other layers."""
    weight = transformer.image_unembedding_weight().detach()
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    return OneDnnLinear(plain, torch.float32)


def _rounded(source: nn.Linear, *, dtype: WeightType) -> nn.Linear:
    """`source`, its weights rounded to `dtype` but kept in float32.

    For processors that have products of float32 alone: torch takes a hundred times as long for
    those of bfloat16 there.
    """
    if dtype == "fp32":
        return source
    rounded = copy.deepcopy(source)
    rounded.weight.data = source.weight.detach().bfloat16().float()
    return rounded


def _packed(source: nn.Linear, *, dtype: WeightType, activated: bool = False) -> OneDnnLinear:
    """`source` as oneDNN reads it, multiplied in `dtype` if the processor can, else in float32."""
    if dtype == "bf16" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return OneDnnLinear(source, torch.bfloat16, activated=activated)
    return OneDnnLinear(_rounded(source, dtype=dtype), torch.float32, activated=activated)
