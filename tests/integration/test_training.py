"""Training from end to end: a run that was stopped, however, equals one that was not."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dalle.cli import main
from dalle.config import OptimConfig, TrainClip, TrainTransformer, TrainVae
from dalle.flags import dump
from dalle.train.clip_task import ClipTask
from dalle.train.loop import Trainer
from dalle.train.task import Batch, Loss, Task
from dalle.train.transformer_task import TransformerTask
from dalle.train.vae_task import VaeTask
from tests.commands import Command
from tests.integration.runs import comparable_metrics

STEPS = 14

VaeSettings = Callable[..., TrainVae]
TransformerSettings = Callable[..., TrainTransformer]
ClipSettings = Callable[..., TrainClip]
Settings = TrainVae | TrainTransformer | TrainClip
Make = Callable[[str, Path], tuple[Settings, type[Any]]]

pytestmark = pytest.mark.usefixtures("log_reaches_caplog")


# --------------------------------------------------------------------------- resuming, bit for bit


def trainer(task: Task, settings: Settings) -> Trainer:
    settings.out.mkdir(parents=True, exist_ok=True)
    return Trainer(
        task, loop=settings.loop, optim=settings.optim, out=settings.out, max_bad_fraction=0.05
    )


@pytest.fixture
def make(
    vae_settings: VaeSettings,
    transformer_settings: TransformerSettings,
    clip_settings: ClipSettings,
    tokens: Path,
    trained_vae: Path,
) -> Make:
    """Makes settings and task of a run of some kind."""

    def made(kind: str, out: Path) -> tuple[Settings, type[Any]]:
        if kind == "transformer":
            return transformer_settings(out, tokens), TransformerTask
        if kind == "muon":
            optim = OptimConfig(optimizer="muon", lr=2e-3, warmup_steps=3)
            return transformer_settings(out, tokens, optim=optim), TransformerTask
        if kind == "tied":  # all that is left to AdamW decays, or nothing of it
            optim = OptimConfig(optimizer="muon", warmup_steps=3)
            tied = transformer_settings(out, tokens, optim=optim)
            return replace(tied, model=replace(tied.model, tie_embeddings=True)), TransformerTask
        if kind == "clip":
            return clip_settings(out, vae=trained_vae), ClipTask
        if kind == "decoder":
            run = vae_settings(out, "nearest")
            model = replace(run.model, decoder_channels=16)
            return replace(run, model=model, codes_of=trained_vae), VaeTask
        return vae_settings(out, kind), VaeTask

    return made


def stopping(task_type: type[Any], at: int) -> type[Any]:
    """The same task, in whose step `at` a SIGTERM comes."""

    class Stopping(task_type):  # type: ignore[misc]
        def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
            if step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            loss: Loss = super().loss(batch, step, noise)
            return loss

    return Stopping


def assert_same_run(first: Trainer, second: Trainer) -> None:
    for one, two in ((first.model, second.model), (first.average, second.average)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, two.state_dict()[name]), name
    for one_optimizer, two_optimizer in zip(first.optimizers, second.optimizers, strict=True):
        one_state, two_state = one_optimizer.state, two_optimizer.state
        for moments, others in zip(one_state.values(), two_state.values(), strict=True):
            for name, tensor in moments.items():
                assert torch.equal(tensor, others[name]), name
    lines = comparable_metrics(first.out)
    assert len(lines) == 5
    assert lines == comparable_metrics(second.out)
    sums = [(run.out / "model" / "SHA256SUMS").read_bytes() for run in (first, second)]
    assert sums[0] == sums[1]
    sheets = [
        (run.out / "samples" / f"step-{STEPS:08d}.png").read_bytes() for run in (first, second)
    ]
    assert sheets[0] == sheets[1]


@pytest.mark.parametrize(
    "kind", ["gumbel", "nearest", "decoder", "transformer", "muon", "tied", "clip"]
)
def test_a_resumed_run_equals_an_unbroken_one(kind: str, tmp_path: Path, make: Make) -> None:
    """Weights, averages, moments, metrics, samples and model, to the last bit.

    It stops in its first step, in the one after, before an evaluation and before the last lines of
    metrics. Steps draw 4 of 19 or 20 samples, so every stop falls within an epoch; lines of metrics
    come every 5 steps, so every stop falls within a window; noise, crops and dropouts are all on.
    """
    settings, task_type = make(kind, tmp_path / "unbroken")
    unbroken = trainer(task_type(settings), settings)
    assert unbroken.run(resume=False) == 0

    settings, _ = make(kind, tmp_path / "stopped")
    for number, stop in enumerate((0, 1, 6, 11)):
        stopped = trainer(stopping(task_type, stop)(settings), settings)
        torch.manual_seed(1000 + number)  # the global stream must play no part
        assert stopped.run(resume=number > 0) == 143
        assert (settings.out / "checkpoints" / f"step-{stop + 1:08d}").is_dir()
        assert not (settings.out / "model").exists()
    resumed = trainer(task_type(settings), settings)
    assert resumed.run(resume=True) == 0
    assert_same_run(unbroken, resumed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["gumbel", "nearest", "transformer", "clip"])
def test_a_compiled_run_learns_what_a_plain_one_does(kind: str, tmp_path: Path, make: Make) -> None:
    """Compiled for a minute and more, hence slow. Sums are put together otherwise, no more."""
    weights = []
    for compile in (False, True):
        settings, task_type = make(kind, tmp_path / str(compile))
        loop = replace(settings.loop, compile=compile, steps=3, precision="fp32")
        run = trainer(task_type(settings), replace(settings, loop=loop))
        assert run.run(resume=False) == 0
        weights.append(run.model.state_dict())
    plain, compiled = weights
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        # The gradient of a key's bias is nothing but rounding, which AdamW takes for a direction.
        if not name.endswith("in_proj_bias"):
            torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_a_run_that_was_killed_goes_on_from_its_newest_complete_checkpoint(
    tmp_path: Path, vae_settings: VaeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """No signal to catch, lines of metrics past the checkpoint, and the newest one torn."""
    settings = vae_settings(tmp_path / "unbroken")
    unbroken = trainer(VaeTask(settings), settings)
    unbroken.run(resume=False)

    settings = vae_settings(tmp_path / "killed")

    class Killed(VaeTask):
        def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
            if step == 11:
                raise KeyboardInterrupt
            return super().loss(batch, step, noise)

    with pytest.raises(KeyboardInterrupt):
        trainer(Killed(settings), settings).run(resume=False)
    assert comparable_metrics(settings.out)[-1]["step"] == 10
    torn = settings.out / "checkpoints" / "step-00000008" / "__0_0.distcp"
    torn.write_bytes(torn.read_bytes()[:-100])
    resumed = trainer(VaeTask(settings), settings)
    assert resumed.run(resume=True) == 0
    assert "step-00000008 is ignored: __0_0.distcp is damaged" in caplog.text
    assert_same_run(unbroken, resumed)


# ------------------------------------------------------------------- signals to a real command line


def dalle_that_waits(words: Sequence[str]) -> int:
    """`dalle`, which waits for a sign in a step, and once more while it saves what it has.

    Args:
        words: The folder of signs, then the arguments of `dalle`.
    """
    signs = Path(words[0])

    def wait_for_go(place: str) -> None:
        (signs / place).touch()
        while not (signs / f"{place}, go").exists():
            time.sleep(0.01)

    def loss_in_its_time(self: VaeTask, batch: Batch, step: int, noise: torch.Generator) -> Loss:
        if step == 3:
            wait_for_go("step")
            os.fsync = flushed_in_its_time  # type: ignore[assignment]
        return loss(self, batch, step, noise)

    def flushed_in_its_time(descriptor: Any) -> None:
        os.fsync = flushed
        wait_for_go("save")
        flushed(descriptor)

    loss, VaeTask.loss = VaeTask.loss, loss_in_its_time  # type: ignore[method-assign]
    flushed = os.fsync
    return main(list(words[1:]))


def interrupted(words: list[str], number: signal.Signals, folder: Path) -> tuple[int, str, str]:
    """What a command ends with, and writes, that gets a signal in a step and while it saves.

    Its whole process group gets it.
    """
    (signs := folder / "signs").mkdir()
    with Command([str(signs), *words], folder / "log", program=dalle_that_waits) as command:
        for place in ("step", "save"):
            command.wait_until((signs / place).exists, what=place)
            os.killpg(command.pid, number)
            (signs / f"{place}, go").touch()
        return command.ended(), command.stdout, command.stderr


@pytest.mark.parametrize(
    ("number", "status", "workers"),
    [(signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 0), (signal.SIGTERM, 143, 2)],
)
def test_signals_save_and_the_resumed_run_equals_the_unbroken_one(
    number: signal.Signals, status: int, workers: int, tmp_path: Path, vae_settings: VaeSettings
) -> None:
    """Impatience, a second signal while the checkpoint is written, must not tear it.

    Bug: SIGTERM, which `timeout` sends to the whole group, killed the processes that load data, and
    with them the run.
    """
    settings = vae_settings(tmp_path / "unbroken", "nearest", save_every=STEPS, workers=workers)
    assert trainer(VaeTask(settings), settings).run(resume=False) == 0

    out = tmp_path / "stopped"
    config = tmp_path / "vae.yaml"
    config.write_text(dump(replace(settings, out=out)))
    words = ["train", "vae", "--config", str(config)]
    found, stdout, stderr = interrupted(words, number, tmp_path)
    assert (found, stdout) == (status, ""), stderr
    assert re.search("stopped after step 4; go on with the same command and --resume", stderr), (
        stderr
    )
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004"]
    assert not (out / "lock").exists()
    assert not (out / "model").exists()

    assert main([*words, "--resume", "true"]) == 0
    assert comparable_metrics(out) == comparable_metrics(tmp_path / "unbroken")
    sums = [
        (tmp_path / name / "model" / "SHA256SUMS").read_bytes() for name in ("unbroken", "stopped")
    ]
    assert sums[0] == sums[1]


def test_a_second_run_in_the_same_folder_is_answered_in_one_line(
    tmp_path: Path, vae_settings: VaeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = vae_settings(tmp_path / "run", steps=1)
    config = tmp_path / "vae.yaml"
    config.write_text(dump(settings))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").write_text("1@" + os.uname().nodename)
    assert main(["train", "vae", "--config", str(config), "--quiet"]) == 1
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert re.fullmatch(
        r"error: run folder .*run is in use by process 1@.*; wait for it.*\n", stderr
    )
