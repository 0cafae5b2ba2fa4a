"""Training in several processes, as torchrun starts them: the same numbers, stops and deaths."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.run
from PIL import Image
from safetensors.torch import load_file

from dalle.cli import main
from dalle.config import TrainClip, TrainTransformer, TrainVae
from dalle.errors import TrainingError
from dalle.flags import dump
from dalle.train.ranks import Ranks
from dalle.train.runs import train_transformer, train_vae
from tests.commands import Command
from tests.integration.runs import comparable_metrics
from tests.paths import ROOT

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="torch was built without gloo"
)

Settings = TrainVae | TrainTransformer | TrainClip


def config_of(settings: Settings) -> str:
    config = settings.out.with_suffix(".yaml")
    config.write_text(dump(settings))
    return str(config)


@contextlib.contextmanager
def two_processes(settings: Settings, verb: str) -> Iterator[list[Command]]:
    """Two processes that train together, told so as torchrun tells them, or any other launcher."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = ["train", verb, "--config", config_of(settings)]
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                Command(
                    words,
                    settings.out.with_name(f"rank-{rank}"),
                    environment={**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
            )
            for rank in range(2)
        ]


def torchrun(settings: Settings, verb: str) -> Command:
    """torchrun, which starts two such processes."""
    return Command(
        [
            *("--standalone", "--nproc-per-node=2", "-m"),
            *("dalle", "train", verb, "--config", config_of(settings)),
        ],
        settings.out.with_name("torchrun"),
        environment={"PYTHONPATH": str(ROOT)},
        program=torch.distributed.run.main,
    )


def assert_same_training(one: Path, two: Path) -> None:
    first, second = comparable_metrics(one), comparable_metrics(two)
    assert [line.keys() for line in first] == [line.keys() for line in second]
    for line, other in zip(first, second, strict=True):
        assert other == pytest.approx(line, rel=1e-4, abs=1e-6)
    for path in (one / "model").glob("*.safetensors"):
        weights, others = load_file(path), load_file(two / "model" / path.name)
        assert weights.keys() == others.keys()
        for name, tensor in weights.items():
            torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twenty pictures, half of which cannot be read: now and then a process finds none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        shade = (12 * number, 255 - 12 * number, number % 3 * 120)
        Image.new("RGB", (32, 32), shade).save(folder / f"{number:02}.png")
        if number % 2:
            (folder / f"{number:02}.png").write_bytes(b"torn")
    return folder


def test_two_processes_learn_what_one_does(
    pictures: Path, tmp_path: Path, vae_settings: Callable[..., TrainVae]
) -> None:
    """The nearest codes follow the features of both, and revive those of both."""
    alone = vae_settings(tmp_path / "alone", "nearest")
    data = replace(alone.data, train=pictures, max_bad_fraction=1.0)
    alone = replace(alone, data=data)
    assert train_vae(alone) == 0
    together = replace(alone, out=tmp_path / "together")
    with two_processes(together, "vae") as ranks:
        for rank in ranks:
            assert rank.ended() == 0, rank.stderr
        stderr = "".join(rank.stderr for rank in ranks)
    assert "in 2 processes" in stderr
    assert stderr.count("finished: the model is in") == 1, "one of them speaks for both"
    assert "skipped 07.png: the picture is damaged" in stderr, "whichever of them had it"
    assert comparable_metrics(together.out)[0]["bad_samples"] > 0
    assert_same_training(alone.out, together.out)


def test_a_signal_stops_both_and_one_process_may_go_on(
    tokens: Path, tmp_path: Path, transformer_settings: Callable[..., TrainTransformer]
) -> None:
    changes: dict[str, Any] = {"steps": 60, "save_every": 1000, "eval_every": 60, "log_every": 20}
    unbroken = transformer_settings(tmp_path / "unbroken", tokens, loop_changes=changes)
    assert train_transformer(unbroken) == 0
    stopped = replace(unbroken, out=tmp_path / "stopped")
    with torchrun(stopped, "transformer") as launcher:
        launcher.wait_until((stopped.out / "metrics.jsonl").exists, what="first line")
        launcher.send(signal.SIGTERM)  # which torchrun passes on
        assert launcher.ended() != 0
        stderr = launcher.stderr
    step = re.search(r"stopped after step (\d+); go on with the same command", stderr)
    assert step, stderr
    saved = [path.name for path in (stopped.out / "checkpoints").iterdir()]
    assert saved == [f"step-{int(step[1]):08}"]
    assert 0 < int(step[1]) < 60, "it was not over before the signal came"
    assert not (stopped.out / "lock").exists()
    words = ["train", "transformer", "--config", str(tmp_path / "stopped.yaml"), "--resume", "true"]
    assert main(words) == 0
    assert_same_training(unbroken.out, stopped.out)


def test_a_process_that_dies_ends_the_others(
    tokens: Path, tmp_path: Path, transformer_settings: Callable[..., TrainTransformer]
) -> None:
    changes: dict[str, Any] = {"steps": 100_000, "save_every": 5, "eval_every": 100_000}
    run = transformer_settings(tmp_path / "run", tokens, loop_changes=changes)
    checkpoints = run.out / "checkpoints"
    with two_processes(run, "transformer") as (first, second):
        first.wait_until(lambda: any(checkpoints.glob("step-????????")), what="checkpoint")
        second.send(signal.SIGKILL)
        assert first.ended() == 1
        assert "error: another process of this run has ended or cannot be reached" in first.stderr
    assert any((path / "manifest.json").exists() for path in checkpoints.glob("step-????????"))


def test_processes_that_differ_do_not_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that drift apart would still be added up."""
    ranks, model = Ranks(0, 3), torch.nn.Linear(2, 2)

    def told(mine: dict[str, str]) -> list[dict[str, str]]:
        return [mine, mine, {**mine, **other}]

    monkeypatch.setattr(ranks, "gather", told)
    other: dict[str, str] = {}
    ranks.require_same(model, data="a")
    other = {"data": "b"}
    with pytest.raises(TrainingError, match="process 2 has other data than the first"):
        ranks.require_same(model, data="a")
    other = {"weights": "of another model"}
    with pytest.raises(TrainingError, match="process 2 has other weights"):
        ranks.require_same(model, data="a")


def test_what_cannot_be_shared_out_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    tokens: Path,
    tmp_path: Path,
    transformer_settings: Callable[..., TrainTransformer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = transformer_settings(tmp_path / "run", tokens)
    config = tmp_path / "run.yaml"
    config.write_text(dump(settings))
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "transformer", "--config", str(config)]) == 2
    assert (
        "3 processes share a step's micro-batches, so loop.accumulate must be divisible by 3, "
        "got 2; start fewer, or give a new run --loop.accumulate 3 or a multiple of it"
    ) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
