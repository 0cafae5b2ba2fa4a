"""Several processes that train one model, as torchrun starts them.

A step's micro-batches are shared out and their gradients added up, so that a run learns what one
process would have learnt with as many micro-batches, up to the rounding of sums. The first process
writes everything and looks at held-out data; the others wait for it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dalle.config import LoopConfig
from dalle.device import choose_device
from dalle.errors import TrainingError

Item = TypeVar("Item")

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the first one may evaluate and draw meanwhile."""
LOADER_DEATH = "DataLoader worker (pid"
"""How torch begins to tell that a process that loads data was killed."""
BUCKET_BYTES = 64 << 20
"""Gradients that are sent together."""


class Ranks:
    """This process among those of a run; it is alone unless others were started with it.

    Args:
        rank: Its number, from 0.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, microbatches: int) -> range:
        """Which of a step's micro-batches are this process' own."""
        each = microbatches // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def gather(self, mine: Item) -> list[Item]:
        """What each process gives, in their order; anything that can be pickled.

        Raises:
            TrainingError: Another process has ended.
        """
        if self.count == 1:
            return [mine]
        found: list[Item] = [mine] * self.count
        with _deaths_explained():
            dist.all_gather_object(found, mine)
        return found

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all processes, which have the same bits in each.

        Raises:
            TrainingError: Another process has ended.
        """
        if self.count == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with _deaths_explained():
                dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def add_up_gradients(self, trained: Sequence[nn.Parameter], graded: Sequence[bool]) -> None:
        """Give each process the gradients of all.

        Args:
            trained: The same weights in each.
            graded: Which of them have gradients in any process. One none of whose samples could be
                read has none, and adds zeros; what has one nowhere stays without.

        Raises:
            TrainingError: Another process has ended.
        """
        if self.count == 1:
            return
        gradients = []
        for parameter, anywhere in zip(trained, graded, strict=True):
            if anywhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        self.add_up(gradients)

    def require_same(self, model: nn.Module, **facts: str) -> None:
        """Refuse to train together where processes differ in weights, or in any of `facts`.

        Raises:
            TrainingError: They do, or another process has ended.
        """
        if self.count == 1:
            return
        facts["weights"] = _digest(model)
        first, *others = self.gather(facts)
        for rank, one in enumerate(others, 1):
            for name, value in first.items():
                if one[name] != value:
                    raise TrainingError(
                        f"process {rank} has other {name} than the first, so they cannot train one "
                        "model: start them by one command, with the same version and files"
                    )


@contextmanager
def joined(loop: LoopConfig) -> Iterator[Ranks]:
    """This process among those that torchrun started with it, while they train.

    All but the first say nothing from here on, unless they fail.

    Raises:
        ValueError: A step's micro-batches cannot be shared out evenly, or a process has no GPU.
        TrainingError: The others cannot be reached.
    """
    count = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if count == 1:
        yield Ranks()
        return
    if loop.accumulate % count:
        raise ValueError(
            f"{count} processes share a step's micro-batches, so loop.accumulate must be divisible "
            f"by {count}, got {loop.accumulate}; start fewer, or give a new run --loop.accumulate "
            f"{count} or a multiple of it"
        )
    if not dist.is_available() or not dist.is_gloo_available():
        raise ValueError("this build of torch has no gloo, by which processes train together")
    backend = "gloo"
    if choose_device(loop.device).type == "cuda":
        if not dist.is_nccl_available():
            raise ValueError(
                "this build of torch has no NCCL, by which GPUs train together; train on one"
            )
        backend = "cpu:gloo,cuda:nccl"
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU of its own, since there are "
                f"{torch.cuda.device_count()}; start as many with --nproc-per-node"
            )
        torch.cuda.set_device(local)
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except RuntimeError as err:
        raise TrainingError(f"the processes of this run do not find each other: {err}") from err
    ranks = Ranks(dist.get_rank(), count)
    if not ranks.first:
        logging.getLogger("dalle").setLevel(logging.ERROR)
    yield ranks
    # Not where training failed: whoever still waits would be waited for.
    dist.destroy_process_group()


def _digest(model: nn.Module) -> str:
    """A hash of the weights, whatever their layout in memory."""
    digest = hashlib.blake2b()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Tensors of one type, together no larger than `BUCKET_BYTES` unless one alone is."""
    for _, alike in groupby(tensors, key=lambda tensor: tensor.dtype):
        bucket: list[Tensor] = []
        size = 0
        for tensor in alike:
            if bucket and size + tensor.nbytes > BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.nbytes
        yield bucket


@contextmanager
def _deaths_explained() -> Iterator[None]:
    """One line instead of a network library's trace when another process is gone.

    Raises:
        TrainingError: That happened.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as err:
        # The death of a process that loads data arrives in whatever is done just then.
        if str(err).startswith(LOADER_DEATH):
            raise
        found = str(err).partition("\n")[0].partition(". ")[0]
        raise TrainingError(
            "another process of this run has ended or cannot be reached; see what it said, then go "
            f"on with the same command and --resume true if there is a checkpoint ({found})"
        ) from err
