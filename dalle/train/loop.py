"""The training loop, for every stage.

A run folder holds `config.yaml` (resolved), `versions.json`, `metrics.jsonl`, `samples/`,
`checkpoints/`, `skipped.jsonl` if steps were left out and, once finished, `model/`. A run that is
stopped, by Ctrl-C, by SIGTERM or by a crash, goes on from its newest checkpoint, on a CPU of the
same machine bit for bit: all randomness is derived from (seed, step), none of it from history. On a
GPU only the sums' rounding differs, since some of its kernels add in no fixed order.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from dalle.allocator import keep_freed_memory
from dalle.config import LoopConfig, OptimConfig
from dalle.console import bar_disabled
from dalle.device import autocast_dtype, choose_device
from dalle.errors import TrainingError
from dalle.seeds import generator
from dalle.train.compiling import compile_parts, require_compiler
from dalle.train.loading import SampleCount, step_batches, worker_deaths_explained
from dalle.train.memory import memory_shortage_explained
from dalle.train.metrics import SKIPPED_FILE, MetricsLog, Window, note_skipped
from dalle.train.mfu import Mfu
from dalle.train.optim import average_of, build_optimizers, count_text, update_average
from dalle.train.ranks import Ranks
from dalle.train.schedules import ema_decay, learning_rate
from dalle.train.shares import Share, combined
from dalle.train.signals import StopRequest
from dalle.train.state import (
    Progress,
    Trained,
    has_checkpoints,
    load_state,
    newest_complete,
    newest_good,
    save_state,
)
from dalle.train.task import Batch, Task

log = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 5
"""Steps without update that may follow each other before training stops."""


class Trainer:
    """Runs a task from its newest checkpoint, or from the start, to its last step."""

    def __init__(
        self,
        task: Task,
        *,
        loop: LoopConfig,
        optim: OptimConfig,
        out: Path,
        max_bad_fraction: float,
        ranks: Ranks | None = None,
    ) -> None:
        """Move the task's model to its device and make its optimizers.

        Args:
            task: What to train.
            loop: Steps, batch, device and how often to log, evaluate, draw and save.
            optim: Optimizer and schedule.
            out: Run folder; exists.
            max_bad_fraction: Training stops when more of the samples are unreadable.
            ranks: This process among those that train; None if it is the only one.

        Raises:
            ValueError: The device asked for is not there, or the optimizer does not suit the model.
            TrainingError: The model is to be compiled, and there is no compiler.
        """
        self.task = task
        self.loop = loop
        self.optim = optim
        self.out = out
        self.ranks = ranks or Ranks()
        self.samples = SampleCount(max_bad_fraction)
        self.device = choose_device(loop.device)
        self.autocast = autocast_dtype(loop.precision, self.device)
        self.model = task.model.to(self.device)
        self.average = average_of(self.model)
        if loop.compile:
            require_compiler(self.device)
            compile_parts(self.model)
        self.optimizers = build_optimizers(self.model, optim)
        self.window = Window()
        self.mfu = Mfu(
            flops_per_step=loop.batch * task.flops_per_sample,
            dtype=self.autocast or torch.float32,
            device=self.device,
            devices=self.ranks.count,
        )
        self.skipped_in_a_row = 0
        self.rolled_back = False
        self.saved = 0
        self.trained = [one for one in self.model.parameters() if one.requires_grad]
        self.stop = StopRequest()
        self.agreed = False
        """Whether all processes know of a signal."""

    def run(self, *, resume: bool) -> int:
        """Train to the end, or until asked to stop.

        Args:
            resume: Whether to go on from the newest complete checkpoint.

        Returns:
            0 when finished, else the exit code of the signal that stopped it.

        Raises:
            TrainingError: Step after step had to be skipped, memory ran out, a process that loads
                data died, or a checkpoint could not be read or written.
            DataError: Too many samples were unreadable.
            DalleError: TensorBoard events are asked for and TensorBoard is not installed.
            OSError: The finished model could not be written.
        """
        start = self.saved = self._resume() if resume else 0
        log.info(
            "training %s: %s parameters on %s%s, %s, steps %d to %d",
            self.task.name, count_text(self.model), self.device,
            f" in {self.ranks.count} processes" if self.ranks.count > 1 else "",
            self.autocast or "fp32", start, self.loop.steps,
        )  # fmt: skip
        keep_freed_memory()
        self.ranks.require_same(
            self.model,
            settings=repr((start, self.loop, self.optim)),
            data=self.task.data_fingerprint,
        )
        metrics = None
        if self.ranks.first:
            metrics = MetricsLog(self.out, tensorboard=self.loop.tensorboard, after=start)
        closed = nullcontext() if metrics is None else closing(metrics)
        with worker_deaths_explained(self.loop), closed, self.stop:
            # The signal of a death may also arrive while these are being left.
            with self._bar(start) as bar:
                step = self._train(start, bar, metrics)
            if step < self.loop.steps:
                self._stopped(step)
                return self.stop.exit_code
        if self.ranks.first:
            self.task.publish(self.average, self.out / "model")
            log.info("finished: the model is in %s", self.out / "model")
        return 0

    def _train(self, step: int, bar: tqdm[NoReturn], metrics: MetricsLog | None) -> int:
        """Steps from `step` on; returns the number made, saved if that is not all of them."""
        share = self.ranks.share(self.loop.accumulate)
        batches = step_batches(self.task, self.loop, start=step, share=share)
        if metrics is not None:
            self._make_up(step, metrics)
        alone = self.ranks.count == 1
        while step < self.loop.steps and not (self.stop.requested and (alone or self.agreed)):
            with self.window.timed(), memory_shortage_explained(step, self.task, self.loop):
                self._step(step, batches)
            step += 1
            bar.update()
            if metrics is not None:
                self._after_step(step, bar, metrics)
        if metrics is not None and self.saved != step:
            self._save(step)
        return step

    def _after_step(self, step: int, bar: tqdm[NoReturn], metrics: MetricsLog) -> None:
        """Log, save, evaluate and draw what is due after `step` steps."""
        if self._due(step, self.loop.log_every):
            self._log(step, bar, metrics)
        if self._due(step, self.loop.save_every):
            # Before anything that only looks: an error there costs no steps.
            self._save(step)
        if self.ranks.count > 1 and self.stop.requested and step < self.loop.steps:
            return  # torchrun is impatient; a resumed run makes up for it
        if self._due(step, self.loop.eval_every):
            self._evaluate(step, metrics)
        if self._due(step, self.loop.sample_every):
            self._draw_samples(step)

    def _make_up(self, step: int, metrics: MetricsLog) -> None:
        """Look at the weights that a process saved, and ended before it had looked at them."""
        if not step:
            return
        if self._due(step, self.loop.eval_every) and not metrics.holds_evaluation(step):
            self._evaluate(step, metrics)
        if self._due(step, self.loop.sample_every) and not self._sheet(step).exists():
            self._draw_samples(step)

    def _learnt(self) -> bool:
        """Whether any step was taken, so that there is something to keep."""
        return any(optimizer.state for optimizer in self.optimizers)

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.loop.steps

    def _stopped(self, step: int) -> None:
        """Say how to go on."""
        if self._learnt():
            log.warning(
                "stopped after step %d; go on with the same command and --resume true", step
            )
        else:
            log.warning("stopped before anything was learnt; start again with the same command")

    def _bar(self, step: int) -> tqdm[NoReturn]:
        return tqdm(
            total=self.loop.steps, initial=step, desc=self.task.name, unit="step",
            dynamic_ncols=True, disable=bar_disabled(),
        )  # fmt: skip

    def _precision(self) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def _step(self, step: int, batches: Iterator[Batch]) -> None:
        """One optimizer update, unless its loss or gradients are not finite."""
        rate = learning_rate(self.optim, step, self.loop.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        self.model.train()
        found = combined(self.ranks.gather(self._add_gradients(step, batches)))
        self.samples.add(len(found.keys), found.faults)
        if found.signal and self.ranks.count > 1:
            self.stop.signal, self.agreed = found.signal, True
        if not found.keys:
            self._skip(step, "none of its samples could be read", [])
            return
        means = found.means()
        self.ranks.add_up_gradients(self.trained, found.graded)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_norm))
        if not (math.isfinite(means["loss"]) and math.isfinite(norm)):
            self._skip(step, f"loss {means['loss']}, gradient norm {norm}", found.keys)
            return
        self.skipped_in_a_row = 0
        for optimizer in self.optimizers:
            optimizer.step()
        noise = generator(self.loop.seed, "after", step, device=self.device)
        self.task.after_step(step, noise, self.ranks)
        update_average(self.average, self.model, ema_decay(self.loop.ema_decay, step))
        self.window.add({**means, "grad_norm": norm})

    def _add_gradients(self, step: int, batches: Iterator[Batch]) -> Share:
        """Gradients of this process' micro-batches of a step, and what was found in them."""
        found = Share()
        sums: dict[str, torch.Tensor] = {}
        for micro in self.ranks.share(self.loop.accumulate):
            batch = next(batches)
            found.faults += batch.faults
            if not batch.keys:
                continue
            found.filled += 1
            found.keys += batch.keys
            noise = generator(self.loop.seed, "noise", step, micro, device=self.device)
            with self._precision():
                loss = self.task.loss(batch.to(self.device), step, noise)
            (loss.value / self.loop.accumulate).backward()
            for name, value in {"loss": loss.value, **loss.metrics}.items():
                # Read below, where a GPU has all work of the step before it.
                sums[name] = sums.get(name, 0) + value.detach().double()
        found.sums = {name: float(total) for name, total in sums.items()}
        found.graded = [parameter.grad is not None for parameter in self.trained]
        found.signal = self.stop.signal or 0
        return found

    def _skip(self, step: int, reason: str, keys: list[str]) -> None:
        """Leave out the update of a step; too many in a row lead back once, then stop the run."""
        self.skipped_in_a_row += 1
        self.window.skip()
        log.warning("step %d skipped: %s", step, reason)
        if self.ranks.first:
            note_skipped(self.out, step, reason, keys)
        if self.skipped_in_a_row < MAX_SKIPPED_IN_A_ROW or (keys and self._roll_back(step)):
            return
        raise TrainingError(
            f"{MAX_SKIPPED_IN_A_ROW} steps in a row had to be skipped, up to step {step} "
            f"({reason}; samples {', '.join(keys[:8]) or 'unreadable'}; all are in "
            f"{self.out / SKIPPED_FILE}); look at those samples, and start a new run (another "
            "--out) without them, or with a lower optim.lr if they are sound"
        )

    def _roll_back(self, step: int) -> bool:
        """Take the weights and moments of the newest good checkpoint, once in a run.

        Steps are counted on: the same samples would only lead to the same end.

        Returns:
            Whether there was such a checkpoint, and the run had not gone back before.
        """
        checkpoint = None if self.rolled_back else newest_good(self.out / "checkpoints")
        checkpoint = self.ranks.gather(checkpoint)[0]
        if checkpoint is None:
            return False
        load_state(checkpoint, self._trained())
        self.ranks.gather(None)  # the first one may delete it once all have read it
        self.rolled_back, self.skipped_in_a_row = True, 0
        log.warning(
            "%d steps in a row were skipped, so step %d is followed by the next samples with the "
            "weights of %s; if that happens again, the run stops",
            MAX_SKIPPED_IN_A_ROW, step, checkpoint,
        )  # fmt: skip
        return True

    def _log(self, step: int, bar: tqdm[NoReturn], metrics: MetricsLog) -> None:
        window, self.window = self.window, Window()
        units = self.loop.batch * self.task.units_per_sample
        throughput = window.steps_per_s() * units
        values = {
            **window.means(),
            **self.task.window_metrics(),
            "lr": float(self.optimizers[0].param_groups[0]["lr"]),
            f"{self.task.unit}_per_s": throughput,
            **self.mfu.values(window.steps_per_s()),
            "skipped_steps": float(window.skipped),
            "bad_samples": float(self.samples.bad),
        }
        metrics.write(step, values)
        loss = values.get("loss", math.nan)
        text = f"loss {loss:.3f}, {throughput:,.0f} {self.task.unit}/s"
        bar.set_postfix_str(text + self.mfu.text(window.steps_per_s()))

    @torch.inference_mode()
    def _evaluate(self, step: int, metrics: MetricsLog) -> None:
        with self._precision():
            values = self.task.evaluate(self.average)
        metrics.write(step, values)
        log.info("step %d: %s", step, ", ".join(f"{k} {v:.4g}" for k, v in values.items()))

    @torch.inference_mode()
    def _draw_samples(self, step: int) -> None:
        sheet = self._sheet(step)
        sheet.parent.mkdir(exist_ok=True)
        with self._precision():
            self.task.sample_sheet(self.average).save(sheet)

    def _sheet(self, step: int) -> Path:
        return self.out / "samples" / f"step-{step:08d}.png"

    def _save(self, step: int) -> None:
        """Write a checkpoint, unless there is nothing to keep yet or nothing worth keeping."""
        self.saved = step
        for name, tensor in (*self.model.state_dict().items(), *self.average.state_dict().items()):
            if not tensor.isfinite().all():
                raise TrainingError(
                    f"{name} is not finite after step {step}, so nothing was saved; start a new "
                    "run (another --out) with a lower optim.lr"
                )
        if not self._learnt():
            return
        progress = Progress(
            step=step,
            data=self.task.data_fingerprint,
            seen=self.samples.seen,
            bad=self.samples.bad,
            skipped_in_a_row=self.skipped_in_a_row,
            rolled_back=self.rolled_back,
            window=self.window.state(),
            task_window=self.task.window(),
        )
        save_state(
            self.out / "checkpoints", self._trained(), progress, keep=self.loop.keep_checkpoints
        )

    def _trained(self) -> Trained:
        return Trained(model=self.model, average=self.average, optimizers=self.optimizers)

    def _resume(self) -> int:
        """Everything as it was at the newest complete checkpoint; returns its step."""
        folder = self.out / "checkpoints"
        checkpoint = newest_complete(folder)
        if checkpoint is None:
            anew = "with another --out" if has_checkpoints(folder) else "without --resume"
            raise TrainingError(
                f"nothing to resume: {folder} holds no complete checkpoint; start anew {anew}"
            )
        progress = load_state(checkpoint, self._trained())
        if progress.data != self.task.data_fingerprint:
            raise TrainingError(
                f"the data, or the tokenizer or dVAE that they are read with, have changed since "
                f"{checkpoint} was written, so the run cannot go on as if nothing had happened; "
                "put them back, or start a new run"
            )
        self.samples.seen, self.samples.bad = progress.seen, progress.bad
        self.skipped_in_a_row = progress.skipped_in_a_row
        self.rolled_back = progress.rolled_back
        self.window.restore(progress.window)
        self.task.restore_window(progress.task_window)
        log.info("resumed from %s", checkpoint)
        return progress.step
