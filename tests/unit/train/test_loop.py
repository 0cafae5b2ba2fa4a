"""The loop's promises: bad steps and bad samples are left out and counted, and too many end it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.utils.data import Dataset, get_worker_info

from dalle.checkpoint import load_vae
from dalle.config import TrainVae
from dalle.data.order import Draw
from dalle.data.pictures import Fault, Picture, PictureSet
from dalle.errors import DataError, TrainingError
from dalle.train.loop import Trainer, too_many_bad
from dalle.train.metrics import read_metrics
from dalle.train.task import Batch, Loss
from dalle.train.vae_task import VaeTask

VaeRun = Callable[..., TrainVae]


def trainer_of(task: VaeTask, run: TrainVae) -> Trainer:
    run.out.mkdir(parents=True, exist_ok=True)
    return Trainer(
        task, loop=run.loop, optim=run.optim, out=run.out,
        max_bad_fraction=run.data.max_bad_fraction,
    )  # fmt: skip


def train(run: TrainVae, task_type: type[VaeTask] = VaeTask, *, resume: bool = False) -> Trainer:
    trainer = trainer_of(task_type(run), run)
    assert trainer.run(resume=resume) == 0
    return trainer


def metrics(run: TrainVae) -> list[dict[str, float]]:
    """Lines of the training, without those of evaluations."""
    return [line for line in read_metrics(run.out / "metrics.jsonl") if "lr" in line]


def checkpoints(run: TrainVae) -> list[str]:
    return sorted(path.name for path in (run.out / "checkpoints").glob("*"))


# ------------------------------------------------------------------------------------ a whole run


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
    run = vae_run(loop={"steps": 40, "log_every": 10, "batch": 8})
    train(run)
    losses = [line["reconstruction"] for line in metrics(run)]
    assert losses[-1] < losses[0] - 0.2


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

    run = vae_run(loop={"steps": 30, "workers": 1, "save_every": 2})
    message = r"^a process that loads data died: DataLoader worker \(pid.* loop.workers \(now 1\)"
    with pytest.raises(TrainingError, match=message) as caught:
        train(run, Deadlier)
    assert "\n" not in str(caught.value)
    assert checkpoints(run), "what was saved stays"
    train(run, resume=True)


def test_other_errors_of_the_run_time_stay_what_they_are(vae_run: VaeRun) -> None:
    class Broken(VaeTask):
        def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(vae_run(), Broken)


# --------------------------------------------------------------------------------- numbers gone bad


class PoisonedTask(VaeTask):
    """Replaces the first weight by NaN while some steps compute their loss."""

    poisoned: tuple[int, ...] = ()
    heals = True

    def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
        weight = next(self.model.parameters()).data[0, 0, 0]
        whole = weight.clone()
        if step in self.poisoned:
            weight[0] = torch.nan
        loss = super().loss(batch, step, noise)
        if self.heals:
            weight.copy_(whole)
        return loss


def poisoned(*steps: int, heals: bool = True) -> type[PoisonedTask]:
    return type("Poisoned", (PoisonedTask,), {"poisoned": steps, "heals": heals})


def stored_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor in a checkpoint, read by torch's own converter."""
    whole = checkpoint.with_suffix(".pt")
    dcp_to_torch_save(checkpoint, whole)
    tensors: dict[str, torch.Tensor] = {}

    def collect(prefix: str, node: Any) -> None:
        if isinstance(node, torch.Tensor):
            tensors[prefix] = node
        elif isinstance(node, dict):
            for name, value in node.items():
                collect(f"{prefix}/{name}", value)

    collect("", torch.load(whole, weights_only=False))
    whole.unlink()
    return tensors


def test_a_step_that_is_not_finite_is_left_out_and_counted(
    vae_run: VaeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = vae_run(loop={"steps": 9, "log_every": 3})
    trainer = train(run, poisoned(1, 4, 5))
    assert [line["skipped_steps"] for line in metrics(run)] == [1, 2, 0]
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in metrics(run))
    assert caplog.text.count("skipped: loss nan, gradient norm nan") == 3
    for parameter in (*trainer.model.parameters(), *trainer.average.parameters()):
        assert parameter.isfinite().all()
    for name in checkpoints(run):
        tensors = stored_tensors(run.out / "checkpoints" / name)
        assert len(tensors) > 50
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_skipped_step_leaves_weights_and_moments_alone(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 4, "save_every": 1, "keep_checkpoints": 4})
    train(run, poisoned(2))
    before, after, later = (
        stored_tensors(run.out / "checkpoints" / f"step-0000000{step}") for step in (2, 3, 4)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(torch.equal(after[name], later[name]) for name in after)


def test_five_in_a_row_end_the_run_where_no_checkpoint_is_good(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 30, "save_every": 10})
    with pytest.raises(TrainingError, match=r"5 steps in a row had to be skipped, up to step 8 "):
        train(run, poisoned(*range(4, 30)))
    assert checkpoints(run) == []


def test_bad_steps_that_go_on_after_going_back_end_the_run(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 30, "save_every": 3})
    with pytest.raises(TrainingError, match=r"5 steps in a row had to be skipped, up to step 13 "):
        train(run, poisoned(*range(4, 30)))
    assert checkpoints(run)[-1] == "step-00000012"
    for name in checkpoints(run):
        tensors = stored_tensors(run.out / "checkpoints" / name)
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_five_in_a_row_lead_back_to_the_last_good_weights_once(
    vae_run: VaeRun, caplog: pytest.LogCaptureFixture
) -> None:
    """The checkpoint at 8 holds the very weights that led nowhere: its last steps were skipped."""
    run = vae_run(loop={"steps": 11, "save_every": 4, "keep_checkpoints": 5})
    train(run, poisoned(*range(6, 11)))
    good, bad, after = (
        stored_tensors(run.out / "checkpoints" / f"step-{step:08}") for step in (4, 8, 11)
    )
    assert all(torch.equal(good[name], after[name]) for name in good)
    assert not all(torch.equal(bad[name], after[name]) for name in bad)
    assert "the weights of " in caplog.text
    assert "step-00000004; if that happens again, the run stops" in caplog.text
    noted = [json.loads(line) for line in (run.out / "skipped.jsonl").read_text().splitlines()]
    assert [line["step"] for line in noted] == [6, 7, 8, 9, 10]
    assert {len(line["samples"]) for line in noted} == {run.loop.batch}
    assert noted[0]["reason"] == "loss nan, gradient norm nan"


def test_weights_gone_bad_for_good_are_replaced(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 15, "save_every": 5})
    trainer = train(run, poisoned(5, heals=False))
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert sum(line["skipped_steps"] for line in metrics(run)) == 5
    assert (run.out / "model").exists()


def test_a_second_row_of_bad_steps_ends_the_run_also_after_a_restart(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 30, "save_every": 2, "keep_checkpoints": 30})
    bad = poisoned(*range(3, 8), *range(12, 17))
    message = r"5 steps in a row had to be skipped, up to step 16 .* all are in .*skipped\.jsonl"
    with pytest.raises(TrainingError, match=message):
        train(run, bad)
    for step in (12, 14, 16):
        shutil.rmtree(run.out / "checkpoints" / f"step-{step:08}")
    with pytest.raises(TrainingError, match=message):
        train(run, bad, resume=True)


def test_a_run_that_went_back_resumes_bit_for_bit(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 12, "save_every": 3, "keep_checkpoints": 9})
    bad = poisoned(*range(4, 9))
    whole = train(run, bad).model.state_dict()
    for start in (6, 9):  # in the midst of the bad steps, and after them
        shutil.rmtree(run.out / "checkpoints" / "step-00000012")
        if start == 6:
            shutil.rmtree(run.out / "checkpoints" / "step-00000009")
        again = train(run, bad, resume=True).model.state_dict()
        assert all(torch.equal(whole[name], again[name]) for name in whole), start


def test_four_in_a_row_do_not(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 12})
    train(run, poisoned(1, 2, 3, 4, 6, 7, 8, 9))
    assert sum(line["skipped_steps"] for line in metrics(run)) == 8


def test_weights_that_are_not_finite_are_never_saved_or_published(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 6, "save_every": 3})
    with pytest.raises(TrainingError, match=r"is not finite after step 6, so nothing was saved"):
        train(run, poisoned(4, heals=False))
    assert checkpoints(run) == ["step-00000003"]
    assert not (run.out / "model").exists()
    train(run, resume=True)
    assert checkpoints(run) == ["step-00000003", "step-00000006"]


def test_weights_that_are_not_finite_from_the_start_are_not_published_either(
    vae_run: VaeRun,
) -> None:
    run = vae_run(loop={"steps": 2})
    with pytest.raises(TrainingError, match="is not finite after step 2"):
        train(run, poisoned(0, heals=False))
    assert not (run.out / "model").exists()


def test_running_out_of_memory_is_answered_with_advice(vae_run: VaeRun) -> None:
    class Hungry(VaeTask):
        def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
            if step == 2:
                raise torch.OutOfMemoryError("tried to allocate 20 GiB")
            return super().loss(batch, step, noise)

    run = vae_run(loop={"accumulate": 2})
    with pytest.raises(TrainingError, match=r"step 2 with micro-batches of 2 samples; raise loop"):
        train(run, Hungry)


# ------------------------------------------------------------------------------ samples gone bad


def folder_with_bad(folder: Path, *, good: int, bad: int) -> Path:
    folder.mkdir()
    for number in range(good + bad):
        image = Image.new("RGB", (32, 32), (10 * number % 256, 90, 40))
        image.save(folder / f"{number:03}.png")
        (folder / f"{number:03}.txt").write_text("a square")
        if number >= good:
            (folder / f"{number:03}.png").write_bytes(b"torn")
    return folder


def heldout(tmp_path: Path) -> Path:
    return folder_with_bad(tmp_path / "heldout", good=2, bad=0)


def test_a_few_bad_pictures_are_skipped_named_and_counted(
    vae_run: VaeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=38, bad=2)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 20, "batch": 4, "log_every": 10})
    train(run)
    # 20 steps of 4 are two whole epochs of 40, each with the two bad ones.
    assert [line["bad_samples"] for line in metrics(run)] == [2, 4]
    assert caplog.text.count("skipped 038.png: the picture is damaged") == 2
    assert caplog.text.count("skipped 039.png: the picture is damaged") == 2


def test_too_many_bad_pictures_end_the_run(vae_run: VaeRun, tmp_path: Path) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=20, bad=20)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 60})
    message = r"\d+ of the \d+ samples read so far were unreadable.*the last was 0\d\d\.png"
    with pytest.raises(DataError, match=message):
        train(run)
    assert metrics(run)[-1]["step"] < 25, "half of the samples are bad, which shows early"


@pytest.mark.parametrize("batch", [1, 16])
def test_nothing_but_bad_pictures_ends_at_once(vae_run: VaeRun, tmp_path: Path, batch: int) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=0, bad=40)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 60, "batch": batch})
    with pytest.raises((DataError, TrainingError), match=r"unreadable|could be read"):
        train(run)
    assert not checkpoints(run)


def test_a_step_without_a_single_readable_picture_is_skipped(
    vae_run: VaeRun, tmp_path: Path
) -> None:
    """With one sample per step a single bad picture once ended the run."""
    pictures = folder_with_bad(tmp_path / "pictures", good=29, bad=1)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 30, "batch": 1, "log_every": 30})
    train(run)
    (line,) = metrics(run)
    assert (line["skipped_steps"], line["bad_samples"]) == (1, 1)


def test_an_empty_micro_batch_leaves_the_others_of_its_step(
    vae_run: VaeRun, tmp_path: Path
) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=29, bad=1)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 15, "batch": 2, "accumulate": 2, "log_every": 15})
    train(run)
    (line,) = metrics(run)
    assert (line["skipped_steps"], line["bad_samples"]) == (0, 1)


@pytest.mark.parametrize(
    ("bad", "seen", "allowed", "verdict"),
    [
        (0, 0, 0.0, False),
        (1, 4, 0.0, True),
        (2, 16, 0.05, False),  # bad luck in the first batch
        (12, 16, 0.05, True),
        (60, 1000, 0.05, False),  # 50 expected, 7 the standard deviation
        (90, 1000, 0.05, True),
        (5_400, 100_000, 0.05, True),  # the more is read, the less is left to chance
        (5_100, 100_000, 0.05, False),
        (100, 100, 1.0, False),
    ],
)
def test_chance_is_told_from_rot(bad: int, seen: int, allowed: float, verdict: bool) -> None:
    assert too_many_bad(bad, seen, allowed) is verdict


# ---------------------------------------------------------------------------------- resuming


def test_resuming_needs_a_checkpoint(vae_run: VaeRun) -> None:
    with pytest.raises(TrainingError, match=r"nothing to resume: .*leave out --resume"):
        train(vae_run(), resume=True)


def test_resuming_with_other_data_is_refused(vae_run: VaeRun, tmp_path: Path) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=12, bad=0)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 3})
    train(run)
    (pictures / "000.txt").write_text("another caption")
    with pytest.raises(TrainingError, match=r"the data have changed since .*step-00000003"):
        train(run, resume=True)


def test_a_finished_run_that_is_resumed_publishes_again(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 3})
    train(run)
    before = (run.out / "model" / "SHA256SUMS").read_bytes()
    (run.out / "model" / "SHA256SUMS").unlink()
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
