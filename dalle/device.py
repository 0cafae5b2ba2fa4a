"""Where to compute, and in which precision."""

from __future__ import annotations

import ctypes
import math
import time

import torch

from dalle.config import Device, Precision

# Parameters of glibc's mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


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
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
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


def keep_freed_memory() -> None:
    """Make the C library keep memory that tensors free, instead of giving it back each time.

    Every training step asks for the same large blocks again; fetching them from the system anew
    cost a quarter of a dVAE step on a two-core machine (117 against 150 images/s). Does nothing
    where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
