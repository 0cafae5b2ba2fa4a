"""The loop's promises: what a run writes, what changes nothing, and how it is resumed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, get_worker_info

from dalle.checkpoint import load_vae
from dalle.config import LoopConfig
from dalle.data.order import Draw
from dalle.data.pictures import Fault, Picture, PictureSet
from dalle.errors import DataError, TrainingError
from dalle.train.loading import fetched
from dalle.train.metrics import read_metrics
from dalle.train.runs import train_vae
from dalle.train.task import Batch, Loss
from dalle.train.vae_task import VaeTask
from tests.unit.train.running import (
    SPARSE,
    VaeRun,
    checkpoints,
    folder_with_bad,
    heldout,
    metrics,
    train,
)

# -------------------------------------------------------------------------------------- a whole run


def test_a_run_writes_what_its_folder_should_hold(vae_run: VaeRun) -> None:
    run = vae_run(loop={"tensorboard": True, "steps": 7})
    trainer = train(run)
    lines = list(read_metrics(run.out / "metrics.jsonl"))
    assert [line["step"] for line in lines] == [3, 6, 6, 7, 7]
    for line in metrics(run):
        assert line.keys() == {
            "step", "loss", "reconstruction", "kl_nats_per_token", "tau", "kl_weight", "grad_norm",
            "codebook_usage", "codebook_perplexity", "lr", "images_per_s", "skipped_steps",
            "bad_samples",
        }  # fmt: skip
    assert "heldout_psnr_db" in lines[-1]
    assert checkpoints(run) == ["step-00000006", "step-00000007"]
    assert sorted(path.name for path in (run.out / "samples").iterdir()) == [
        "step-00000006.png", "step-00000007.png",
    ]  # fmt: skip
    with Image.open(run.out / "samples" / "step-00000007.png") as sheet:
        assert sheet.mode == "RGB"
    assert list((run.out / "tensorboard").glob("events.out.tfevents.*"))
    stored = load_vae(run.out / "model").state_dict()
    for name, tensor in trainer.average.state_dict().items():
        assert torch.equal(stored[name], tensor), "the averaged weights are the ones published"


def test_the_loss_falls(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 40, "log_every": 10, "batch": 8} | SPARSE)
    train(run)
    losses = [line["reconstruction"] for line in metrics(run)]
    assert losses[-1] < losses[0] - 0.2


def test_the_speed_does_not_count_evaluations(
    vae_run: VaeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluating = [0.0]

    class Slow(VaeTask):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            evaluating[0] += 1000
            return super().evaluate(model)

    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + evaluating[0])
    monkeypatch.setattr("dalle.train.metrics.time", clock)
    run = vae_run(loop={"steps": 6, "eval_every": 3})
    train(run, Slow)
    speeds = [line["images_per_s"] for line in metrics(run)]
    # Three steps of four pictures, which with the pause would be 0.012 a second.
    assert all(0.1 < speed < 10_000 for speed in speeds), speeds


def test_splitting_a_step_changes_its_gradient_by_rounding_alone(vae_run: VaeRun) -> None:
    """With the nearest quantiser there is no noise, so both ways see the very same samples."""
    norms = []
    for accumulate in (1, 2, 4):
        run = vae_run(
            model={"quantizer": "nearest"},
            loop={"steps": 1, "log_every": 1, "accumulate": accumulate},
            out=vae_run().out.with_name(f"run{accumulate}"),
        )
        train(run)
        (line,) = metrics(run)
        norms.append([line["loss"], line["grad_norm"]])
    torch.testing.assert_close(torch.tensor(norms[0]), torch.tensor(norms[1]))
    torch.testing.assert_close(torch.tensor(norms[0]), torch.tensor(norms[2]))


def test_processes_that_load_data_change_nothing(vae_run: VaeRun) -> None:
    weights = []
    for workers in (0, 2):
        run = vae_run(
            data={"augment": "paper"}, loop={"workers": workers, "steps": 3},
            out=vae_run().out.with_name(f"run{workers}"),
        )  # fmt: skip
        weights.append(train(run).model.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


class Deadly(Dataset[Any]):
    """Kills the process that loads one of the later samples."""

    def __init__(self, pictures: PictureSet) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, draw: Draw) -> Picture | Fault:
        if get_worker_info() is not None and draw.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.pictures[draw]


def test_a_loading_process_that_is_killed_ends_the_run_with_one_line(vae_run: VaeRun) -> None:
    class Deadlier(VaeTask):
        def dataset(self) -> Dataset[Any]:
            return Deadly(self.train_set)

    run = vae_run(loop=SPARSE | {"steps": 12, "workers": 1, "save_every": 2})
    message = r"^a process that loads data died: DataLoader worker \(pid.* \(now 1\) and resume"
    with pytest.raises(TrainingError, match=message) as caught:
        train(run, Deadlier)
    assert "\n" not in str(caught.value)
    assert checkpoints(run), "what was saved stays"
    train(run, resume=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_is_one_line_wherever_they_are_loaded(
    vae_run: VaeRun, workers: int
) -> None:
    """Bug: from a loading process it came as the text of its trace, 1,300 characters of it."""

    class Damaged(VaeTask):
        def dataset(self) -> Dataset[Any]:
            return Torn(self.train_set)

    run = vae_run(loop=SPARSE | {"steps": 12, "workers": workers})
    with pytest.raises(DataError) as caught:
        train(run, Damaged)
    assert str(caught.value) == "picture 7 has token 999 of 16 codes"


class Torn(Deadly):
    """Refuses one of the later samples."""

    def __getitem__(self, draw: Draw) -> Picture | Fault:
        if draw.epoch == 1:
            raise DataError("picture 7 has token 999 of 16 codes")
        return self.pictures[draw]


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()]
)
def test_a_loading_process_that_dies_while_a_batch_is_fetched_is_named_too(
    error: Exception,
) -> None:
    """Bug: a batch that was announced, but not yet handed over, ended the run with a trace."""

    def dying() -> Iterator[Batch]:
        yield from ()
        raise error

    with pytest.raises(TrainingError, match=r"^a process that loads data died: .*; if memory ran"):
        next(fetched(dying(), LoopConfig(workers=1)))
    with pytest.raises(type(error)):
        next(fetched(dying(), LoopConfig(workers=0)))


def test_other_errors_of_the_run_time_stay_what_they_are(vae_run: VaeRun) -> None:
    class Broken(VaeTask):
        def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(vae_run(), Broken)


# ----------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("look", ["evaluate", "sample_sheet"])
def test_an_error_while_looking_costs_no_steps_and_what_was_missed_is_made_up(
    look: str, vae_run: VaeRun
) -> None:
    """Bug: sheets were drawn before saving, so that a sheet that failed cost the steps before."""

    def fail(self: VaeTask, model: object) -> None:
        raise RuntimeError("no sheet today")

    run = vae_run(loop={"steps": 6, "eval_every": 3, "sample_every": 3, "save_every": 3})
    with pytest.raises(RuntimeError, match="no sheet today"):
        train(run, type("Blind", (VaeTask,), {look: fail}))
    assert checkpoints(run) == ["step-00000003"]
    train(run, resume=True)
    lines = list(read_metrics(run.out / "metrics.jsonl"))
    assert [line["step"] for line in lines if "heldout_psnr_db" in line] == [3, 6]
    assert len(list((run.out / "samples").iterdir())) == 2


def test_resuming_needs_a_checkpoint(vae_run: VaeRun) -> None:
    with pytest.raises(TrainingError, match=r"nothing to resume: .*start anew without --resume"):
        train(vae_run(), resume=True)


def test_a_run_whose_first_checkpoint_was_never_finished_starts_anew(vae_run: VaeRun) -> None:
    """Bug: without --resume it was an earlier run, and with it there was nothing to resume."""
    run = vae_run(loop={"steps": 3})
    (run.out / "checkpoints" / "step-00000003.partial").mkdir(parents=True)
    assert train_vae(run) == 0
    assert checkpoints(run) == ["step-00000003"]


def test_a_run_whose_checkpoints_are_all_damaged_needs_another_folder(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 3})
    train(run)
    (run.out / "checkpoints" / "step-00000003" / "manifest.json").unlink()
    with pytest.raises(TrainingError, match=r"nothing to resume: .*start anew with another --out"):
        train(run, resume=True)


def test_resuming_with_other_data_is_refused(vae_run: VaeRun, tmp_path: Path) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=12, bad=0)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 3})
    train(run)
    (pictures / "000.txt").write_text("another caption")
    with pytest.raises(TrainingError, match=r"the data, or .* have changed since .*step-00000003"):
        train(run, resume=True)


def test_a_finished_run_that_is_resumed_publishes_again(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 3})
    train(run)
    before = (run.out / "model" / "SHA256SUMS").read_bytes()
    shutil.rmtree(run.out / "model")
    train(run, resume=True)
    assert (run.out / "model" / "SHA256SUMS").read_bytes() == before


def test_a_new_run_in_the_folder_of_one_that_died_early_starts_a_new_record(
    vae_run: VaeRun,
) -> None:
    run = vae_run(loop={"steps": 3, "log_every": 1})
    run.out.mkdir()
    (run.out / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 9}) + "\n")
    train(run)
    assert [line["step"] for line in metrics(run)] == [1, 2, 3]


def test_the_log_says_where_training_stands(
    vae_run: VaeRun, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dalle")
    run = vae_run(loop={"steps": 3})
    train(run)
    assert "training vae: " in caplog.text
    assert "on cpu, fp32, steps 0 to 3" in caplog.text
    assert f"finished: the model is in {run.out / 'model'}" in caplog.text


def test_compiling_without_a_compiler_is_refused_with_the_remedy(vae_run: VaeRun) -> None:
    """Bug: InvalidCxxCompiler, said to be unexpected, once everything had been loaded."""
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(TrainingError, match=r"needs a C\+\+ compiler.*install one .*leave out loop"),
    ):
        train(vae_run(loop={"compile": True}))
