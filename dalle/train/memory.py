"""What is said when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dalle.config import LoopConfig
from dalle.errors import TrainingError
from dalle.train.task import Task
from dalle.transformer import JointTransformer


@contextmanager
def memory_shortage_explained(step: int, task: Task, loop: LoopConfig) -> Iterator[None]:
    """Advice instead of an allocator's own words, while step `step` is made.

    Raises:
        TrainingError: Memory ran out, on a GPU or a CPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as err:
        # torch has an error of its own for GPUs only; its CPU allocator just says so.
        known = isinstance(err, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(err):
            raise
        micro = loop.batch // loop.accumulate
        per_sample = task.units_per_sample
        units = f" ({micro * per_sample:,} {task.unit})" if per_sample > 1 else ""
        raise TrainingError(
            f"out of memory in step {step} with micro-batches of {micro} samples{units}; "
            f"{_remedy(task, loop)}, in a new run with another --out"
        ) from err


def _remedy(task: Task, loop: LoopConfig) -> str:
    """What needs less memory, as far as it can be had."""
    ways = []
    # CLIP compares what is in a micro-batch, and cannot compare one thing with nothing.
    if task.name != "clip" and loop.accumulate < loop.batch:
        ways.append(f"raise loop.accumulate (now {loop.accumulate})")
    if isinstance(task.model, JointTransformer) and not task.model.recompute:
        ways.append("train with --recompute true")
    ways.append("lower loop.batch" if loop.batch > 1 else "train a smaller model")
    return ", or ".join(ways)
