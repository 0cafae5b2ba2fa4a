"""What this machine can do, measured; and what a measurement took."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from dalle.config import WeightType
from dalle.device import gemm_rate

GEMM_SIZE = 2048
"""Side of the products that a CPU's rates are measured with; training's are of this order."""
PROBE_SIZE = 256
"""Side of the products that show whether a type is worth measuring at all."""
HOPELESS = 0.2
"""Of the rate of float32: a processor without products of a type can be a hundred times slower."""
READ_BYTES = 1 << 30
"""Read to measure bandwidth: more than any cache holds."""
_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The machine's own limits."""

    flops: dict[WeightType, float]
    """Operations per second of large products, two for each multiply-add."""
    bytes_per_s: float
    """Bytes read per second from memory."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds that something took, over several runs."""

    median: float
    shortest: float
    longest: float
    runs: int
    lost_cores: float
    """Cores that other programs had meanwhile, on average; figures with much of it are too high.
    Processes that were started to be measured are not among them."""


def measure(work: Callable[[], object], *, runs: int, device: torch.device) -> Timing:
    """Time `work`, after one run that does not count."""
    _finished(work, device)
    seconds = []
    own, busy, begun = own_seconds(), _busy_seconds(), time.perf_counter()
    for _ in range(runs):
        start = time.perf_counter()
        _finished(work, device)
        seconds.append(time.perf_counter() - start)
    elapsed = time.perf_counter() - begun
    lost = (_busy_seconds() - busy) - (own_seconds() - own)
    return Timing(
        median=statistics.median(seconds),
        shortest=min(seconds),
        longest=max(seconds),
        runs=runs,
        lost_cores=max(0.0, lost / elapsed),
    )


def measure_rates(device: torch.device) -> Rates:
    """Measure what the machine can do; takes a second or two."""
    block = torch.ones(READ_BYTES // 4, device=device)
    seconds = _best(block.sum, device)
    flops = _gpu_flops(device) if device.type == "cuda" else _cpu_flops(device)
    return Rates(flops=flops, bytes_per_s=READ_BYTES / seconds)


def _gpu_flops(device: torch.device) -> dict[WeightType, float]:
    """Operations per second by type; int8 weights are multiplied in bf16."""
    narrow = gemm_rate(torch.bfloat16, device)
    return {"fp32": gemm_rate(torch.float32, device), "bf16": narrow, "int8": narrow}


def _cpu_flops(device: torch.device) -> dict[WeightType, float]:
    """Operations per second by type."""
    wide = gemm_rate(torch.float32, device, size=GEMM_SIZE)
    least = HOPELESS * gemm_rate(torch.float32, device, size=PROBE_SIZE)
    flops: dict[WeightType, float] = {"fp32": wide}
    narrow: dict[WeightType, Callable[..., float]] = {
        "bf16": partial(gemm_rate, torch.bfloat16, device),
        "int8": partial(_int8_rate, device),
    }
    for dtype, rate in narrow.items():
        # A processor without products of a narrow type can always widen it first; large products
        # would take it minutes.
        hopeless = rate(size=PROBE_SIZE) < least
        flops[dtype] = wide if hopeless else max(wide, rate(size=GEMM_SIZE))
    return flops


def describe(device: torch.device) -> dict[str, str | int]:
    """The machine and the programs that a figure belongs to."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif (info := Path("/proc/cpuinfo")).exists():
        lines = (line.partition(":") for line in info.read_text(encoding="utf-8").splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 0,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this process has had: of the GPU, or its peak resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _int8_rate(device: torch.device, *, size: int) -> float:
    left = torch.randint(-128, 128, (size, size), dtype=torch.int8, device=device)
    right = left.t()
    return 2 * size**3 / _best(lambda: torch._int_mm(left, right), device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of some runs: a limit is what can be reached, not what usually is."""
    return measure(work, runs=_REPEATS, device=device).shortest


def _finished(work: Callable[[], object], device: torch.device) -> None:
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def own_seconds() -> float:
    """Processor seconds of this process and of those that it started and waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _busy_seconds() -> float:
    """Seconds that all cores together have worked since the system began; 0 where unknown."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:9]
    except OSError:
        return 0.0
    ticks = [int(field) for field in first]
    idle, waiting = ticks[3], ticks[4]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")
