"""Training from end to end: a run that was stopped, however, equals one that was not."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dalle.checkpoint import load_model, load_vae
from dalle.config import (
    DataConfig,
    LoopConfig,
    OptimConfig,
    Tokenize,
    TrainTransformer,
    TrainVae,
    VaeObjectiveConfig,
)
from dalle.data.images import fit_square, open_rgb
from dalle.data.samples import open_samples
from dalle.data.tokens import TokenFolder
from dalle.errors import DalleError, DataError
from dalle.flags import dump
from dalle.model_config import TransformerConfig
from dalle.train.loop import Trainer
from dalle.train.metrics import read_metrics
from dalle.train.runs import train_transformer, train_vae
from dalle.train.task import Batch, Loss, Task
from dalle.train.tokenize import tokenize
from dalle.train.transformer_task import TransformerTask
from dalle.train.vae_task import VaeTask
from vae import VaeConfig
from vae.pixels import to_pixels

ROOT = Path(__file__).parents[2]
SCENES = ROOT / "tests" / "data" / "scenes"
STEPS = 14


@pytest.fixture(autouse=True)
def _log_reaches_caplog(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("dalle")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])


def loop(**changes: Any) -> LoopConfig:
    """Steps of two micro-batches of two; logs and saves fall on different steps."""
    settings = {
        "steps": STEPS, "batch": 4, "accumulate": 2, "log_every": 5, "eval_every": 7,
        "sample_every": STEPS, "save_every": 4, "precision": "fp32", "device": "cpu", "seed": 3,
    }  # fmt: skip
    return LoopConfig(**(settings | changes))


def vae_settings(out: Path, quantizer: str = "gumbel", **loop_changes: Any) -> TrainVae:
    return TrainVae(
        out=out,
        data=DataConfig(train=SCENES, image_px=32, heldout_fraction=0.2, augment="paper"),
        model=VaeConfig(
            channels=8, groups=3, blocks_per_group=1, codebook_size=32, codebook_dim=4,
            quantizer=quantizer,  # type: ignore[arg-type]
        ),
        objective=VaeObjectiveConfig(tau_steps=20, kl_steps=10, min_usage=0.0),
        optim=OptimConfig(lr=2e-3, warmup_steps=3),
        loop=loop(**loop_changes),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a finished dVAE."""
    out = tmp_path_factory.mktemp("trained") / "vae"
    assert train_vae(vae_settings(out, "nearest", steps=6)) == 0
    return out


@pytest.fixture(scope="module")
def tokens(trained_vae: Path) -> Path:
    """Token folder of the committed scenes, two versions of each."""
    out = trained_vae.with_name("tokens")
    settings = Tokenize(
        data=SCENES, vae=trained_vae, out=out, image_px=32, crops=2, vocab_size=300, batch=5
    )
    assert tokenize(settings) == 0
    return out


def transformer_settings(out: Path, tokens: Path, **changes: Any) -> TrainTransformer:
    settings: dict[str, Any] = {
        "text_len": 12,
        "heldout_fraction": 0.2,
        "model": TransformerConfig(width=32, layers=2, heads=2),
        "optim": OptimConfig(lr=2e-3, warmup_steps=3),
        "loop": loop(),
        "sample_captions": ("a fox",),
    }
    return TrainTransformer(out=out, tokens=tokens, **(settings | changes))


# --------------------------------------------------------------------------- resuming, bit for bit


def trainer(task: Task, settings: TrainVae | TrainTransformer) -> Trainer:
    settings.out.mkdir(parents=True, exist_ok=True)
    return Trainer(
        task, loop=settings.loop, optim=settings.optim, out=settings.out, max_bad_fraction=0.05
    )


def make(kind: str, out: Path, tokens: Path) -> tuple[TrainVae | TrainTransformer, type[Any]]:
    if kind == "transformer":
        return transformer_settings(out, tokens), TransformerTask
    return vae_settings(out, kind), VaeTask


def stopping(task_type: type[Any], at: int) -> type[Any]:
    """The same task, in whose step `at` a SIGTERM comes."""

    class Stopping(task_type):  # type: ignore[misc]
        def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
            if step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            loss: Loss = super().loss(batch, step, noise)
            return loss

    return Stopping


def comparable_metrics(out: Path) -> list[dict[str, float]]:
    """Every line, without the speed."""
    lines = read_metrics(out / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.endswith("_per_s")} for line in lines]


def assert_same_run(first: Trainer, second: Trainer) -> None:
    for one, two in ((first.model, second.model), (first.average, second.average)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, two.state_dict()[name]), name
    one_state, two_state = (run.optimizer.state_dict()["state"] for run in (first, second))
    for number, moments in one_state.items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, two_state[number][name]), (number, name)
    lines = comparable_metrics(first.out)
    assert len(lines) == 5
    assert lines == comparable_metrics(second.out)
    sums = [(run.out / "model" / "SHA256SUMS").read_bytes() for run in (first, second)]
    assert sums[0] == sums[1]
    sheets = [
        (run.out / "samples" / f"step-{STEPS:08d}.png").read_bytes() for run in (first, second)
    ]
    assert sheets[0] == sheets[1]


@pytest.mark.parametrize("stops", [(6,), (0, 1, 11)])
@pytest.mark.parametrize("kind", ["gumbel", "nearest", "transformer"])
def test_a_resumed_run_equals_an_unbroken_one(
    kind: str, stops: tuple[int, ...], tmp_path: Path, tokens: Path
) -> None:
    """Weights, averages, moments, metrics, samples and model, to the last bit.

    Steps draw 4 of 19 or 20 samples, so every stop falls within an epoch; lines of metrics come
    every 5 steps, so every stop falls within a window; noise, crops and dropouts are all on.
    """
    settings, task_type = make(kind, tmp_path / "unbroken", tokens)
    unbroken = trainer(task_type(settings), settings)
    assert unbroken.run(resume=False) == 0

    settings, _ = make(kind, tmp_path / "stopped", tokens)
    for number, stop in enumerate(stops):
        stopped = trainer(stopping(task_type, stop)(settings), settings)
        torch.manual_seed(1000 + number)  # the global stream must play no part
        assert stopped.run(resume=number > 0) == 143
        assert (settings.out / "checkpoints" / f"step-{stop + 1:08d}").is_dir()
        assert not (settings.out / "model").exists()
    resumed = trainer(task_type(settings), settings)
    assert resumed.run(resume=True) == 0
    assert_same_run(unbroken, resumed)


def test_a_run_that_was_killed_goes_on_from_its_newest_complete_checkpoint(
    tmp_path: Path, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No signal to catch, lines of metrics past the checkpoint, and the newest one torn."""
    settings, task_type = make("gumbel", tmp_path / "unbroken", tokens)
    unbroken = trainer(task_type(settings), settings)
    unbroken.run(resume=False)

    settings, _ = make("gumbel", tmp_path / "killed", tokens)

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
    resumed = trainer(task_type(settings), settings)
    assert resumed.run(resume=True) == 0
    assert "step-00000008 is ignored: __0_0.distcp is damaged" in caplog.text
    assert_same_run(unbroken, resumed)


# ------------------------------------------------------------------- signals to a real command line


@contextmanager
def command(config: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """`dalle train vae` as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dalle", "train", "vae", "--config", str(config), *flags],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_steps(out: Path, process: subprocess.Popen[str], *, steps: int) -> None:
    """Return once the run has logged `steps` lines."""
    path = out / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not path.is_file() or path.read_text().count("\n") < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run does not get going"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_the_resumed_run_equals_the_unbroken_one(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    def settings(name: str) -> TrainVae:
        steps = {"steps": 150, "log_every": 1, "eval_every": 150, "sample_every": 150}
        return vae_settings(tmp_path / name, "nearest", **steps, save_every=150)

    unbroken = trainer(VaeTask(settings("unbroken")), settings("unbroken"))
    assert unbroken.run(resume=False) == 0

    config = tmp_path / "vae.yaml"
    config.write_text(dump(settings("stopped")))
    out = tmp_path / "stopped"
    with command(config) as process:
        wait_for_steps(out, process, steps=2)
        process.send_signal(number)
        time.sleep(0.05)
        process.send_signal(number)  # impatience must not tear the checkpoint
        stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == status, stderr
    assert stdout == ""
    stopped = re.search(
        r"stopped after step (\d+); go on with the same command and --resume", stderr
    )
    assert stopped is not None, stderr
    step = int(stopped[1])
    assert 2 <= step < 150
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{step:08d}"]
    assert not (out / "lock").exists()
    assert not (out / "model").exists()

    with command(config, "--resume", "true") as process:
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert comparable_metrics(out) == comparable_metrics(tmp_path / "unbroken")
    sums = [
        (tmp_path / name / "model" / "SHA256SUMS").read_bytes() for name in ("unbroken", "stopped")
    ]
    assert sums[0] == sums[1]


def test_a_second_run_in_the_same_folder_is_answered_in_one_line(tmp_path: Path) -> None:
    settings = vae_settings(tmp_path / "run", steps=1)
    config = tmp_path / "vae.yaml"
    config.write_text(dump(settings))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").write_text("1@" + os.uname().nodename)
    with command(config, "--quiet") as process:
        stdout, stderr = process.communicate(timeout=240)
    assert (process.returncode, stdout) == (1, "")
    assert re.fullmatch(
        r"error: run folder .*run is in use by process 1@.*; wait for it.*\n", stderr
    )


# --------------------------------------------------------------------------------- from end to end


def test_tokens_are_what_the_dvae_says(tokens: Path, trained_vae: Path) -> None:
    folder, samples = TokenFolder(tokens), open_samples(SCENES)
    assert len(folder) == len(samples) == 24
    vae = load_vae(trained_vae / "model")
    differing = 0
    for index in (0, 7, 23):
        assert folder.caption(index) == samples[index].caption.lower()
        image = np.array(fit_square(open_rgb(samples[index].image), 32))
        plain = vae.encode(to_pixels(torch.from_numpy(image)[None]))[0]
        assert np.array_equal(folder.grid(index, 0), plain.numpy())
        differing += not np.array_equal(folder.grid(index, 1), plain.numpy())
    assert differing, "the second version is a random crop"
    assert (folder.meta.crops, folder.meta.grid_h, folder.meta.grid_w) == (2, 8, 8)
    assert folder.meta.source == samples.fingerprint
    assert not (tokens.parent / "tokens.partial").exists()


def test_tokenizing_again_gives_the_same_bytes(
    tokens: Path, trained_vae: Path, tmp_path: Path
) -> None:
    settings = Tokenize(
        data=SCENES, vae=trained_vae / "model", out=tmp_path / "again", image_px=32, crops=2,
        vocab_size=300, batch=64,
    )  # fmt: skip
    tokenize(settings)
    assert TokenFolder(tmp_path / "again").fingerprint == TokenFolder(tokens).fingerprint
    name = "captions.txt"
    assert (tmp_path / "again" / name).read_bytes() == (tokens / name).read_bytes()
    # At another batch size a rounding may tip a code that was almost even; hardly ever, though.
    one, two = (
        np.fromfile(folder / "tokens.u16", "<u2") for folder in (tokens, tmp_path / "again")
    )
    assert (one != two).mean() < 0.01


def test_a_transformer_is_trained_on_tokens_and_published_whole(
    tokens: Path, tmp_path: Path
) -> None:
    settings = transformer_settings(
        tmp_path / "run", tokens, publish_dtype="fp16",
        loop=loop(steps=60, batch=8, accumulate=1, log_every=10, save_every=60),
    )  # fmt: skip
    assert train_transformer(settings) == 0
    lines = [line for line in read_metrics(settings.out / "metrics.jsonl") if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    first = lines[0]
    assert first["loss"] == pytest.approx(
        0.125 * first["text_loss"] + 0.875 * first["image_loss"], abs=0.02
    )
    held = [
        line for line in read_metrics(settings.out / "metrics.jsonl") if "heldout_text_loss" in line
    ]
    assert held[-1]["heldout_image_loss"] < math.log(32) + 0.5
    parts = load_model(settings.out / "model")
    assert parts.transformer.sequence.text_len == 12
    assert parts.tokenizer.vocab_size == TokenFolder(tokens).tokenizer().vocab_size
    assert "| sequence | 12 caption tokens" in (settings.out / "model" / "README.md").read_text()
    with Image.open(settings.out / "samples" / "step-00000060.png") as sheet:
        assert sheet.width > 4 * 32


def test_held_out_tokens_of_another_dvae_are_refused(tokens: Path, tmp_path: Path) -> None:
    other = vae_settings(tmp_path / "other", "nearest", steps=1)
    train_vae(replace(other, loop=replace(other.loop, seed=9)))
    tokenize(Tokenize(data=SCENES, vae=tmp_path / "other", out=tmp_path / "foreign", image_px=32))
    settings = transformer_settings(tmp_path / "run", tokens, heldout_tokens=tmp_path / "foreign")
    with pytest.raises(DataError, match=r"foreign has vae .*tokenize both with the same dVAE"):
        train_transformer(settings)


def test_held_out_captions_are_read_with_the_models_own_vocabulary(
    tokens: Path, trained_vae: Path, tmp_path: Path
) -> None:
    """A held-out folder once brought its own tokenizer, whose numbers mean other words."""
    tokenize(
        Tokenize(
            data=SCENES, vae=trained_vae, out=tmp_path / "heldout", image_px=32, vocab_size=280
        )
    )
    task = TransformerTask(
        transformer_settings(tmp_path / "run", tokens, heldout_tokens=tmp_path / "heldout")
    )
    own = task.tokenizer
    ids, _ = own.fit(own.encode(TokenFolder(tokens).caption(0)), 12)
    assert task.heldout.tensors["text_ids"][0, : len(ids)].tolist() == ids


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image_px": 30}, ValueError, r"image_px \(30\) must be divisible by the stride .*\(4\)"),
        ({"vae": SCENES}, DalleError, "is not a model folder"),
        ({"data": ROOT / "nowhere"}, DataError, "nowhere is not a folder"),
        ({"tokenizer": ROOT / "nowhere"}, DalleError, "cannot read the caption tokenizer"),
    ],
)
def test_tokenizing_with_bad_settings_writes_nothing(
    changes: dict[str, Any], error: type[Exception], message: str, trained_vae: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"data": SCENES, "vae": trained_vae, "image_px": 32}
    with pytest.raises(error, match=message):
        tokenize(Tokenize(out=tmp_path / "out", **(settings | changes)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("bad", "allowed"), [(1, True), (4, False)])
def test_bad_pictures_are_left_out_until_they_are_too_many(
    bad: int, allowed: bool, trained_vae: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(20):
        Image.new("RGB", (32, 32), (12 * number, 0, 0)).save(pictures / f"{number:02}.png")
        (pictures / f"{number:02}.txt").write_text(f"shade {number}")
    for number in range(bad):
        (pictures / f"{number:02}.png").write_bytes(b"torn")
    settings = Tokenize(data=pictures, vae=trained_vae, out=tmp_path / "out", image_px=32)
    if not allowed:
        with pytest.raises(DataError, match=r"2 of 20 samples are unreadable, more than max_bad"):
            tokenize(settings)
        assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
        return
    assert tokenize(settings) == 0
    folder = TokenFolder(tmp_path / "out")
    assert (len(folder), folder.meta.skipped) == (19, 1)
    assert folder.caption(0) == "shade 1"
    assert "skipped 00.png: the picture is damaged" in caplog.text
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["skipped"] == 1
