"""Checkpoints: complete and verified, or ignored in favour of an older one."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from dalle.errors import TrainingError
from dalle.train.optim import average_of
from dalle.train.state import (
    MANIFEST,
    PROGRESS,
    Progress,
    Trained,
    load_state,
    newest_complete,
    save_state,
)

PROGRESS_AT_1 = Progress(
    step=1,
    data="fingerprint",
    seen=40,
    bad=2,
    skipped_in_a_row=1,
    window={"sums": {"loss": 0.1 + 0.2}, "updates": 3, "skipped": 0},
    task_window={"counts": [1, 2]},
)


def at(step: int) -> Progress:
    return dataclasses.replace(PROGRESS_AT_1, step=step)


def trained(seed: int, *, steps: int = 2, width: int = 3) -> Trained:
    """A small model after `steps` updates, with its average and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(width, 4), nn.BatchNorm1d(4))
    optimizer = AdamW(model.parameters(), lr=0.1, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, width)).square().sum().backward()
        optimizer.step()
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(0.5)
    return Trained(model=model, average=average, optimizers=(optimizer,))


def assert_same(first: Trained, second: Trained) -> None:
    for one, two in ((first.model, second.model), (first.average, second.average)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, two.state_dict()[name]), name
    one_state, two_state = (run.optimizers[0].state_dict() for run in (first, second))
    assert one_state["param_groups"] == two_state["param_groups"]
    assert one_state["state"].keys() == two_state["state"].keys() != set()
    for number, moments in one_state["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, two_state["state"][number][name]), (number, name)


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved, loaded = trained(0), trained(1, steps=0)
    checkpoint = save_state(tmp_path, saved, PROGRESS_AT_1, keep=2)
    assert checkpoint == tmp_path / "step-00000001"
    assert newest_complete(tmp_path) == checkpoint
    assert load_state(checkpoint, loaded) == PROGRESS_AT_1
    assert_same(saved, loaded)


def test_loading_over_an_optimizer_with_a_history_replaces_it(tmp_path: Path) -> None:
    saved, loaded = trained(0), trained(1, steps=5)
    load_state(save_state(tmp_path, saved, at(1), keep=2), loaded)
    assert_same(saved, loaded)


def test_saving_changes_nothing(tmp_path: Path) -> None:
    state, untouched = trained(0), trained(0)
    save_state(tmp_path, state, at(1), keep=2)
    assert_same(state, untouched)


def test_what_is_not_trained_is_written_once(tmp_path: Path) -> None:
    def frozen_but_for_one(seed: int) -> Trained:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(500, 500).requires_grad_(False), nn.Linear(500, 1))
        optimizer = AdamW(model[1].parameters(), fused=True)
        model(torch.randn(5, 500)).sum().backward()
        optimizer.step()
        return Trained(model=model, average=average_of(model), optimizers=(optimizer,))

    saved, loaded = frozen_but_for_one(0), frozen_but_for_one(1)
    checkpoint = save_state(tmp_path, saved, at(1), keep=2)
    held = saved.model[0].weight.numel() * 4  # type: ignore[index]
    written = sum(path.stat().st_size for path in checkpoint.iterdir())
    assert held < written < 1.5 * held
    load_state(checkpoint, loaded)
    assert_same(saved, loaded)


# ------------------------------------------------------------------------------------------ damage


def two_checkpoints(folder: Path) -> tuple[Path, Path]:
    return tuple(save_state(folder, trained(0), at(step), keep=5) for step in (5, 10))  # type: ignore[return-value]


def files(checkpoint: Path) -> list[str]:
    return sorted(path.name for path in checkpoint.iterdir())


def test_one_flipped_byte_in_any_file_sends_back_to_the_older_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = two_checkpoints(tmp_path)
    assert {".metadata", MANIFEST, PROGRESS} < set(files(newer))
    for name in files(newer):
        content = (newer / name).read_bytes()
        for place in {0, len(content) // 3, len(content) // 2, len(content) - 2}:
            flipped = bytearray(content)
            flipped[place] ^= 0x01
            (newer / name).write_bytes(flipped)
            caplog.clear()
            assert newest_complete(tmp_path) == older, (name, place)
            assert f"checkpoint {newer} is ignored" in caplog.text
        (newer / name).write_bytes(content)
    assert newest_complete(tmp_path) == newer


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_file_sends_back_to_the_older_checkpoint(tmp_path: Path, share: float) -> None:
    older, newer = two_checkpoints(tmp_path)
    for name in files(newer):
        content = (newer / name).read_bytes()
        (newer / name).write_bytes(content[: int(len(content) * share)])
        assert newest_complete(tmp_path) == older, name
        (newer / name).write_bytes(content)


def test_a_missing_file_sends_back_to_the_older_checkpoint(tmp_path: Path) -> None:
    older, newer = two_checkpoints(tmp_path)
    for name in files(newer):
        content = (newer / name).read_bytes()
        (newer / name).unlink()
        assert newest_complete(tmp_path) == older, name
        (newer / name).write_bytes(content)


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"sha256": 3}', '{"sha256": {}}'])
def test_a_manifest_of_another_kind_is_no_seal(tmp_path: Path, content: str) -> None:
    older, newer = two_checkpoints(tmp_path)
    (newer / MANIFEST).write_text(content)
    assert newest_complete(tmp_path) == older


def test_nothing_complete_is_none(tmp_path: Path) -> None:
    assert newest_complete(tmp_path / "nowhere") is None
    (tmp_path / "step-00000005").mkdir()
    (tmp_path / "notes").mkdir()
    assert newest_complete(tmp_path) is None


CRASH = """
    import os, sys, torch
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_state import at, save_state, trained

    count = 0
    def trap(event, details):
        global count
        if event in ("open", "os.rename", "os.mkdir") and {folder!r} in str(details[0]):
            count += 1
            if count == {point}:
                os._exit(9)
    state = trained(0)
    sys.addaudithook(trap)
    save_state(Path({folder!r}), state, at(10), keep=1)
    print(count)
"""


def crash_while_saving(folder: Path, point: int) -> subprocess.CompletedProcess[str]:
    """Save a checkpoint in a process that dies at its `point`-th opening, naming or making."""
    script = textwrap.dedent(CRASH).format(
        tests=str(Path(__file__).parent), folder=str(folder), point=point
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip


@pytest.mark.slow
def test_death_at_any_point_of_saving_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    older = save_state(tmp_path, trained(0), at(5), keep=5)
    points = int(crash_while_saving(tmp_path / "rehearsal", -1).stdout)
    assert points > 5
    for point in range(1, points + 1):
        died = crash_while_saving(tmp_path, point)
        assert died.returncode == 9, died.stderr
        found = newest_complete(tmp_path)
        assert found is not None
        assert found == older or found.name == "step-00000010"
        load_state(found, trained(1))
    save_state(tmp_path, trained(0), at(15), keep=1)
    assert [path.name for path in tmp_path.iterdir() if path.name != "rehearsal"] == [
        "step-00000015"
    ], "what the dead processes left is swept up"


def test_a_half_written_checkpoint_is_ignored_and_swept_up(tmp_path: Path) -> None:
    older, newer = two_checkpoints(tmp_path)
    newer.rename(tmp_path / "step-00000010.partial")
    assert newest_complete(tmp_path) == older
    save_state(tmp_path, trained(0), at(12), keep=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000012"]


def test_a_full_disk_is_reported_and_the_older_checkpoint_stays(tmp_path: Path) -> None:
    """The limit on file sizes makes writing fail as a full disk does, without needing one.

    Python ignores the signal that a file over it brings.
    """
    save_state(tmp_path, trained(0), at(5), keep=5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(TrainingError, match="step-00000010 could not be written"):
            save_state(tmp_path, trained(0), at(10), keep=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_files_reach_the_disk_before_the_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut could leave the final name on files without content."""
    order: list[str] = []
    flush, rename = os.fsync, os.rename

    def note_flush(descriptor: int) -> None:
        order.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        flush(descriptor)

    def note_rename(source: str, target: str) -> None:
        order.append(f"name {Path(target).name}")
        rename(source, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see which file a descriptor belongs to")
    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "rename", note_rename)
    checkpoint = save_state(tmp_path, trained(0), at(5), keep=5)
    named = order.index(f"name {checkpoint.name}")
    for name in files(checkpoint):
        assert f"flush {name}" in order[:named]
    assert f"flush {tmp_path.name}" in order[named:]


# ------------------------------------------------------------------------------------------- purge


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save_state(tmp_path, trained(0), at(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]


def test_an_old_checkpoint_that_cannot_be_deleted_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "step-00000001").write_text("a file, so that removing it as a folder fails")
    save_state(tmp_path, trained(0), at(5), keep=1)
    assert "step-00000001 could not be deleted" in caplog.text
    assert newest_complete(tmp_path) == tmp_path / "step-00000005"


# ------------------------------------------------------------------------------------------ misfits


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoint = save_state(tmp_path, trained(0), at(5), keep=5)
    with pytest.raises(TrainingError, match=r"does not fit this run: .*use the settings") as caught:
        load_state(checkpoint, trained(0, width=7))
    assert "Traceback" not in str(caught.value)


def test_a_checkpoint_whose_weights_are_grouped_otherwise_is_refused(tmp_path: Path) -> None:
    """Bug: torch takes it without a word; the next step ended with KeyError, or decayed others."""
    before, after = (trained(0, steps=0) for _ in range(2))
    groups = {"before": [1, 0, 0, 0], "after": [0, 1, 0, 0]}
    made = {}
    for one, numbers in ((before, groups["before"]), (after, groups["after"])):
        weights = list(zip(one.model.parameters(), numbers, strict=True))
        optimizer = AdamW(
            [{"params": [p for p, n in weights if n == group]} for group in (0, 1)], lr=0.1
        )
        one.model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        made[id(one)] = dataclasses.replace(one, optimizers=(optimizer,))
    checkpoint = save_state(tmp_path, made[id(before)], at(5), keep=5)
    with pytest.raises(TrainingError, match=r"does not fit this run: .*use the settings"):
        load_state(checkpoint, made[id(after)])


def test_progress_of_another_version_is_refused(tmp_path: Path) -> None:
    checkpoint = save_state(tmp_path, trained(0), at(5), keep=5)
    (checkpoint / PROGRESS).write_text(json.dumps({"step": 5}))
    with pytest.raises(TrainingError, match=r"does not fit this run: .*version"):
        load_state(checkpoint, trained(0))
