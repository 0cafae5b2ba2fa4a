"""Steps that are not finite are left out and counted, and too many end the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from dalle.errors import TrainingError
from dalle.train.task import Batch, Loss
from dalle.train.vae_task import VaeTask
from tests.unit.train.running import SPARSE, VaeRun, checkpoints, metrics, train


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
    run = vae_run(loop=SPARSE | {"steps": 30, "save_every": 10})
    with pytest.raises(TrainingError, match=r"5 steps in a row had to be skipped, up to step 8 "):
        train(run, poisoned(*range(4, 30)))
    assert checkpoints(run) == []


def test_bad_steps_that_go_on_after_going_back_end_the_run(vae_run: VaeRun) -> None:
    run = vae_run(loop=SPARSE | {"steps": 30, "save_every": 3})
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
    run = vae_run(loop=SPARSE | {"steps": 30, "save_every": 2, "keep_checkpoints": 30})
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
    run = vae_run(loop={"steps": 12} | SPARSE)
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


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_running_out_of_memory_is_answered_with_advice(vae_run: VaeRun, device: str) -> None:
    """Bug: the allocator of a CPU, which raises a bare RuntimeError, was not understood."""

    class Hungry(VaeTask):
        def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
            if step == 2 and device == "cpu":
                torch.empty(2**60, dtype=torch.uint8)
            if step == 2:
                raise torch.OutOfMemoryError("tried to allocate 20 GiB")
            return super().loss(batch, step, noise)

    run = vae_run(loop={"accumulate": 2})
    advice = r"of 2 samples; raise loop.accumulate \(now 2\), or lower loop.batch, in a new run"
    with pytest.raises(TrainingError, match=rf"step 2 with micro-batches {advice}"):
        train(run, Hungry)
    # Of one sample each there can be no more of them.
    run = vae_run(loop={"accumulate": 4}, out=run.out.with_name("other"))
    with pytest.raises(TrainingError, match=r"micro-batches of 1 samples; lower loop.batch, in a"):
        train(run, Hungry)
    run = vae_run(loop={"batch": 1, "accumulate": 1}, out=run.out.with_name("third"))
    with pytest.raises(TrainingError, match=r"of 1 samples; train a smaller model, in a new run"):
        train(run, Hungry)
