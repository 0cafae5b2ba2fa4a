"""The run folder: one process at a time, one config for its whole life."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dalle.config import TrainVae
from dalle.errors import DataError, TrainingError
from dalle.flags import load
from dalle.train.runs import train_vae
from dalle.version import __version__

VaeRun = Callable[..., TrainVae]


def lock_of(process: int, host: str = "") -> str:
    return f"{process}@{host or socket.gethostname()}"


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_config_and_versions_lie_beside_the_results(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 1})
    assert train_vae(run) == 0
    assert load(TrainVae, run.out / "config.yaml") == run
    versions = json.loads((run.out / "versions.json").read_text())
    assert versions["dalle"] == __version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "numpy", "pillow", "safetensors"} < versions.keys()
    assert not (run.out / "lock").exists()


def test_a_run_that_cannot_begin_leaves_nothing_behind(vae_run: VaeRun, tmp_path: Path) -> None:
    run = vae_run(loop={"steps": 1})
    missing = replace(run, data=replace(run.data, train=tmp_path / "nowhere"))
    with pytest.raises(DataError):
        train_vae(missing)
    assert not run.out.exists()
    run.out.mkdir()
    (run.out / "notes.txt").write_text("mine")
    with pytest.raises(DataError):
        train_vae(missing)
    assert (run.out / "notes.txt").read_text() == "mine"


def test_an_earlier_run_is_not_trampled_on(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 1})
    train_vae(run)
    with pytest.raises(TrainingError, match=r"holds an earlier run; go on with it \(--resume true"):
        train_vae(run)


def test_a_run_from_before_a_setting_existed_goes_on_by_its_default(vae_run: VaeRun) -> None:
    """`loop.compile was None, is False`: every new setting had ended the runs of before."""
    run = vae_run(loop={"steps": 2})
    train_vae(run)
    config = run.out / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    older = [line for line in lines if line.strip() not in ("compile: false", "augment: none")]
    assert len(older) == len(lines) - 2
    config.write_text("".join(older))
    assert train_vae(replace(run, resume=True)) == 0
    other = replace(run, resume=True, loop=replace(run.loop, compile=True))
    with pytest.raises(TrainingError, match=r"\(loop.compile was None, is True\)"):
        train_vae(other)


def test_resuming_with_changed_settings_is_refused_by_name(vae_run: VaeRun) -> None:
    run = vae_run(loop={"steps": 1})
    train_vae(run)
    before = (run.out / "config.yaml").read_text()
    changed = replace(
        run, resume=True, optim=replace(run.optim, lr=0.5), loop=replace(run.loop, batch=2)
    )
    with pytest.raises(TrainingError) as caught:
        train_vae(changed)
    assert "loop.batch was 4, is 2; optim.lr was 0.001, is 0.5" in str(caught.value)
    assert "set them back, or start a new run" in str(caught.value)
    assert (run.out / "config.yaml").read_text() == before
    assert train_vae(replace(run, resume=True)) == 0


def test_what_changes_no_numbers_may_change(vae_run: VaeRun, tmp_path: Path) -> None:
    """Bug: an error told to lower loop.workers and to resume, which was then refused."""
    run = vae_run(loop={"steps": 1, "workers": 1})
    train_vae(run)
    moved = run.out.rename(tmp_path / "moved")
    loop = replace(
        run.loop, workers=0, keep_checkpoints=5, tensorboard=False, log_every=9, eval_every=9,
        sample_every=9, save_every=9,
    )  # fmt: skip
    data = replace(run.data, max_bad_fraction=0.5)
    again = replace(run, out=moved, resume=True, loop=loop, data=data)
    assert train_vae(again) == 0
    assert load(TrainVae, moved / "config.yaml") == replace(again, resume=False)


def test_a_folder_named_like_a_date_can_be_resumed(
    vae_run: VaeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: its config was written as YAML 1.2 and read as 1.1: month must be in 1..12."""
    monkeypatch.chdir(tmp_path)
    run = vae_run(loop={"steps": 1}, out=Path("2026-99-01"))
    train_vae(run)
    assert train_vae(replace(run, resume=True)) == 0


@pytest.mark.parametrize("content", ["[1, 2", "just text", ""])
def test_resuming_with_an_unreadable_config_is_refused(vae_run: VaeRun, content: str) -> None:
    run = vae_run(loop={"steps": 1})
    train_vae(run)
    (run.out / "config.yaml").write_text(content)
    with pytest.raises(TrainingError, match=r"since its config\.yaml cannot be read"):
        train_vae(replace(run, resume=True))


# -------------------------------------------------------------------------------------------- locks


@pytest.mark.parametrize(
    "holder", [lock_of(os.getppid()), lock_of(1), lock_of(12, "another-machine"), "gibberish", ""]
)
def test_a_second_process_is_refused(vae_run: VaeRun, holder: str) -> None:
    run = vae_run()
    run.out.mkdir()
    (run.out / "lock").write_text(holder)
    with pytest.raises(TrainingError, match=r"is in use by process .*wait for it, or delete"):
        train_vae(run)
    assert (run.out / "lock").read_text() == holder
    assert [path.name for path in run.out.iterdir()] == ["lock"]


def test_the_lock_of_a_process_that_is_gone_is_taken_over(
    vae_run: VaeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = vae_run(loop={"steps": 1})
    run.out.mkdir()
    holder = lock_of(dead_process())
    (run.out / "lock").write_text(holder)
    assert train_vae(run) == 0
    assert f"taking over the lock of process {holder}, which is gone" in caplog.text
    assert not (run.out / "lock").exists()


def test_a_lock_with_our_own_number_is_an_older_processs(vae_run: VaeRun) -> None:
    """In a container every training may be process 7; a crash locked such a folder for ever."""
    run = vae_run(loop={"steps": 1})
    run.out.mkdir()
    (run.out / "lock").write_text(lock_of(os.getpid()))
    assert train_vae(run) == 0


def test_a_run_that_fails_gives_its_lock_back(vae_run: VaeRun, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = vae_run(data={"train": tmp_path / "empty"})
    with pytest.raises(DataError, match=r"holds neither \.tar shards nor pictures"):
        train_vae(run)
    assert not (run.out / "lock").exists()
