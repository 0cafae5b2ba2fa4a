"""The training loop, for every stage.

A run folder holds `config.yaml` (resolved), `versions.json`, `metrics.jsonl`, `samples/`,
`checkpoints/` and, once finished, `model/`. A run that is stopped, by Ctrl-C, by SIGTERM or by a
crash, goes on bit for bit from its newest checkpoint on the same machine: all randomness is
derived from (seed, step), none of it from history.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dalle.config import LoopConfig, OptimConfig
from dalle.device import autocast_dtype, choose_device, keep_freed_memory
from dalle.errors import DataError, TrainingError
from dalle.seeds import generator
from dalle.train.metrics import MetricsLog
from dalle.train.optim import build_adamw, update_average
from dalle.data.order import StepBatches
from dalle.train.schedules import ema_decay, learning_rate
from dalle.train.signals import StopRequest
from dalle.train.state import load_state, newest_complete, save_state
from dalle.train.task import Batch, Task

log = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 5
"""Non-finite steps that may follow each other before training stops."""


class Trainer:
    """Runs a task from its newest checkpoint, or from the start, to its last step."""

    def __init__(
        self, task: Task, *, loop: LoopConfig, optim: OptimConfig, out: Path, max_bad_fraction: float
    ) -> None:
        self.task = task
        self.loop = loop
        self.optim = optim
        self.out = out
        self.max_bad_fraction = max_bad_fraction
        self.device = choose_device(loop.device)
        self.autocast = autocast_dtype(loop.precision, self.device)
        self.model = task.model.to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = build_adamw(self.model, optim)
        self.metrics = MetricsLog(out, tensorboard=loop.tensorboard)
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.seen = 0
        self.bad = 0
        self.skipped_in_a_row = 0

    def run(self, *, resume: bool) -> int:
        """Train to the end, or until asked to stop.

        Returns:
            0 when finished, else the exit code of the signal that stopped it.

        Raises:
            TrainingError: The loss stayed non-finite, or a checkpoint could not be read or written.
            DataError: Too many samples were unreadable.
        """
        step = self._resume() if resume else 0
        log.info(
            "training %s: %s parameters on %s, %s, steps %d to %d",
            self.task.name, f"{sum(p.numel() for p in self.model.parameters()):,}", self.device,
            self.autocast or "fp32", step, self.loop.steps,
        )  # fmt: skip
        keep_freed_memory()
        with StopRequest() as stop, self._bar(step) as bar:
            batches = self._batches(step)
            window_start, window_step = time.perf_counter(), step
            while step < self.loop.steps and not stop.requested:
                self._step(step, batches)
                step += 1
                bar.update()
                if self._due(step, self.loop.log_every):
                    elapsed = time.perf_counter() - window_start
                    self._log(step, bar, steps=step - window_step, seconds=elapsed)
                    window_start, window_step = time.perf_counter(), step
                if self._due(step, self.loop.eval_every):
                    self._evaluate(step)
                if self._due(step, self.loop.sample_every):
                    self._draw_samples(step)
                if self._due(step, self.loop.save_every) or stop.requested:
                    self._save(step)
        if stop.requested and step < self.loop.steps:
            log.warning("stopped after step %d; go on with the same command and --resume true", step)
            return stop.exit_code
        self.task.publish(self.average, self.out / "model")
        log.info("finished: the model is in %s", self.out / "model")
        return 0

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.loop.steps

    def _bar(self, step: int) -> tqdm[None]:
        return tqdm(
            total=self.loop.steps, initial=step, desc=self.task.name, unit="step",
            dynamic_ncols=True, disable=None,
        )  # fmt: skip

    def _batches(self, start: int) -> Iterator[Batch]:
        dataset = self.task.dataset()
        order = StepBatches(
            size=len(dataset),  # type: ignore[arg-type]  # torch's Dataset does not declare __len__
            microbatch=self.loop.batch // self.loop.accumulate,
            accumulate=self.loop.accumulate,
            seed=self.loop.seed,
            start=start,
            stop=self.loop.steps,
        )
        return iter(
            DataLoader(
                dataset,
                batch_sampler=order,
                collate_fn=self.task.collate,
                num_workers=self.loop.workers,
                # A generator of its own keeps the loader from drawing on the global stream.
                generator=generator(self.loop.seed, "loader"),
            )
        )

    def _precision(self) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def _step(self, step: int, batches: Iterator[Batch]) -> None:
        """One optimizer update, unless its loss or gradients are not finite."""
        rate = learning_rate(self.optim, step, self.loop.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.model.train()
        keys: list[str] = []
        totals: defaultdict[str, float] = defaultdict(float)
        for micro in range(self.loop.accumulate):
            batch = self._admit(next(batches))
            keys += batch.keys
            noise = generator(self.loop.seed, "noise", step, micro, device=self.device)
            with self._precision():
                loss = self.task.loss(batch.to(self.device), step, noise)
            (loss.value / self.loop.accumulate).backward()
            for name, value in {"loss": loss.value, **loss.metrics}.items():
                totals[name] += float(value.detach()) / self.loop.accumulate
        norm = float(
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_norm)
        )
        if not (math.isfinite(totals["loss"]) and math.isfinite(norm)):
            self._skip(step, totals["loss"], norm, keys)
            return
        self.skipped_in_a_row = 0
        self.optimizer.step()
        self.task.after_step(step, generator(self.loop.seed, "after", step, device=self.device))
        update_average(self.average, self.model, ema_decay(self.loop.ema_decay, step))
        for name, total in {**totals, "grad_norm": norm, "updates": 1.0}.items():
            self.sums[name] += total

    def _admit(self, batch: Batch) -> Batch:
        """Count what could not be loaded, and stop when it is too much."""
        self.seen += len(batch.keys) + len(batch.faults)
        self.bad += len(batch.faults)
        for key, reason in batch.faults:
            log.warning("skipped %s: %s", key, reason)
        enough = self.seen >= self.loop.batch
        if not batch.keys or (enough and self.bad > self.max_bad_fraction * self.seen):
            raise DataError(
                f"{self.bad} of the {self.seen} samples read so far were unreadable, more than "
                f"max_bad_fraction ({self.max_bad_fraction}) allows; the last: {batch.faults[-1:]}"
            )
        return batch

    def _skip(self, step: int, loss: float, norm: float, keys: list[str]) -> None:
        """Leave out the update of a non-finite step; too many in a row stop the run."""
        self.skipped_in_a_row += 1
        self.sums["skipped_steps"] += 1
        log.warning("step %d skipped: loss %s, gradient norm %s", step, loss, norm)
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"the loss was not finite for {MAX_SKIPPED_IN_A_ROW} steps, up to step {step}; "
                f"nothing was saved after it went wrong. Last samples: {', '.join(keys[:8])}. "
                "Lower optim.lr, or resume from the newest checkpoint"
            )

    def _log(self, step: int, bar: tqdm[None], *, steps: int, seconds: float) -> None:
        updates = max(self.sums.pop("updates", 0.0), 1.0)
        skipped = self.sums.pop("skipped_steps", 0.0)
        values = {name: total / updates for name, total in self.sums.items()}
        self.sums.clear()
        units = steps * self.loop.batch * self.task.units_per_sample
        values |= self.task.window_metrics()
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        values[f"{self.task.unit}_per_s"] = units / seconds
        values["skipped_steps"] = skipped
        values["bad_samples"] = float(self.bad)
        self.metrics.write(step, values)
        bar.set_postfix_str(
            f"loss {values.get('loss', math.nan):.3f}, {units / seconds:,.0f} {self.task.unit}/s"
        )

    @torch.inference_mode()
    def _evaluate(self, step: int) -> None:
        with self._precision():
            values = self.task.evaluate(self.average)
        self.metrics.write(step, values)
        log.info("step %d: %s", step, ", ".join(f"{k} {v:.4g}" for k, v in values.items()))

    @torch.inference_mode()
    def _draw_samples(self, step: int) -> None:
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        with self._precision():
            self.task.sample_sheet(self.average).save(folder / f"step-{step:08d}.png")

    def _save(self, step: int) -> None:
        save_state(
            self.out / "checkpoints", step, model=self.model, ema=self.average,
            optimizer=self.optimizer, keep=self.loop.keep_checkpoints,
        )  # fmt: skip

    def _resume(self) -> int:
        checkpoint = newest_complete(self.out / "checkpoints")
        if checkpoint is None:
            raise TrainingError(
                f"nothing to resume: {self.out / 'checkpoints'} holds no complete checkpoint; "
                "leave out --resume to start anew"
            )
        step = load_state(
            checkpoint, model=self.model, ema=self.average, optimizer=self.optimizer
        )
        self.metrics.forget_after(step)
        log.info("resumed from %s", checkpoint)
        return step
