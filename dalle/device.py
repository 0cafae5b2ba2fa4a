"""Where to compute, and in which precision."""

from __future__ import annotations

import math
import time

import torch

from dalle.config import Device, Precision


def choose_device(wanted: Device) -> torch.device:
    """The device to use; `auto` takes a GPU if torch can use one.

    Raises:
        ValueError: `cuda` was asked for and torch cannot use a GPU here.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError(
            "device is cuda, but torch finds no usable GPU; use device cpu, or install a torch "
            "build that fits this machine's driver"
        )
    return torch.device("cuda" if wanted != "cpu" and available else "cpu")


def autocast_dtype(wanted: Precision, device: torch.device) -> torch.dtype | None:
    """The autocast type, or None for plain fp32; `auto` is bf16 where it is computed natively."""
    if wanted == "bf16":
        return torch.bfloat16
    if wanted == "fp32":
        return None
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else None
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None


def gemm_rate(dtype: torch.dtype, device: torch.device, *, size: int = 1024) -> float:
    """Operations per second of square products of side `size`, two for each multiply-add.

    The best of four, after one that does not count; a tenth of a second or two on a CPU.
    """
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    shortest = math.inf
    for run in range(5):
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if run:
            shortest = min(shortest, time.perf_counter() - start)
    return 2 * size**3 / shortest
