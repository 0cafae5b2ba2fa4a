"""Where to compute, and in which precision."""

from __future__ import annotations

import math
import os
import time
from functools import cache, partial

import torch

from dalle.config import Device, Precision

CPU_GEMM_SIZE = 1024
GPU_GEMM_SIZE = 8192
"""Sides of the squares that rates are measured with: a GPU is done with small ones sooner than the
next can be launched."""
GPU_QUEUED = 20


@cache
def outlive_forks() -> None:
    """Let processes that are forked from now on compute, each by one thread.

    What has computed has OpenMP's other threads, which are not there in a forked process: it waited
    for them for ever. Where there is only one, it waits for nobody.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


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


def gemm_rate(dtype: torch.dtype, device: torch.device, *, size: int | None = None) -> float:
    """Operations per second of square products, two for each multiply-add.

    The best of four measurements, after one that does not count; a tenth of a second or two.

    Args:
        dtype: Of the factors.
        device: Where they are multiplied.
        size: Side of the squares; None takes one that keeps the device busy.
    """
    on_gpu = device.type == "cuda"
    size = size or (GPU_GEMM_SIZE if on_gpu else CPU_GEMM_SIZE)
    queued = GPU_QUEUED if on_gpu else 1  # a GPU would wait for each to be launched
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    shortest = math.inf
    for run in range(5):
        start = time.perf_counter()
        for _ in range(queued):
            left @ right
        if on_gpu:
            torch.cuda.synchronize(device)
        if run:
            shortest = min(shortest, time.perf_counter() - start)
    return 2 * size**3 * queued / shortest
