"""What a stage must offer so that the one training loop can train it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from dalle.train.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A micro-batch's objective, and the numbers worth logging beside it."""

    value: Tensor
    """What is minimised, scalar."""
    metrics: Mapping[str, Tensor]
    """Scalars; averaged over the steps between two log lines."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Loaded samples of one micro-batch, and what could not be loaded."""

    tensors: Mapping[str, Tensor]
    keys: tuple[str, ...]
    """Names of the samples, for error messages."""
    faults: tuple[tuple[str, str], ...] = field(default=())
    """(key, reason) of each sample that was skipped."""

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        moved = {name: one.to(device, non_blocking=True) for name, one in self.tensors.items()}
        return Batch(tensors=moved, keys=self.keys, faults=self.faults)

    def pin_memory(self) -> Batch:
        """The same batch where a GPU can fetch it by itself; a `DataLoader` asks for it."""
        pinned = {name: tensor.pin_memory() for name, tensor in self.tensors.items()}
        return Batch(tensors=pinned, keys=self.keys, faults=self.faults)


class Task(Protocol):
    """One stage's model, data and objective; the loop owns steps, saving and stopping."""

    name: str
    unit: str
    """What throughput is counted in: images or tokens."""
    units_per_sample: int
    flops_per_sample: int
    """Operations of training on a sample, two for each multiply-add; 0 where nobody counts them."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    @property
    def data_fingerprint(self) -> str:
        """A hash that changes when the training or held-out data do."""

    def dataset(self) -> Dataset[Any]:
        """Map-style training set, indexed by `dalle.data.order.Draw`."""

    @staticmethod
    def collate(samples: list[Any]) -> Batch:
        """A batch of what `dataset` returned, faults set aside.

        Apart from the task, so that processes that load data are not sent its model.
        """

    def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
        """Objective of a micro-batch; every random number comes from `noise`."""

    def after_step(self, step: int, noise: torch.Generator, ranks: Ranks) -> None:
        """Whatever must happen to the model after its optimizer step.

        Where several processes train, each has seen its own micro-batches, and must come to the
        same end.
        """

    def window_metrics(self) -> dict[str, float]:
        """Numbers over the steps since the last call, such as codebook usage."""

    def window(self) -> dict[str, Any]:
        """What `window_metrics` has gathered so far, as plain JSON values, for a checkpoint."""

    def restore_window(self, window: Mapping[str, Any]) -> None:
        """Go on gathering from what `window` returned in an earlier process."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Held-out numbers of `model` (the averaged weights), names starting `heldout_`."""

    def sample_sheet(self, model: nn.Module) -> Image.Image:
        """A picture that shows a person how far training is."""

    def publish(self, model: nn.Module, folder: Path) -> None:
        """Write the finished model."""
