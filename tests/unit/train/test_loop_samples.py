"""Samples that cannot be read are left out and counted, and too many end the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalle.errors import DataError, TrainingError
from dalle.train.loading import too_many_bad
from tests.unit.train.running import (
    SPARSE,
    VaeRun,
    checkpoints,
    folder_with_bad,
    heldout,
    metrics,
    train,
)


def test_a_few_bad_pictures_are_skipped_named_and_counted(
    vae_run: VaeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=38, bad=2)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 20, "batch": 4, "log_every": 10} | SPARSE)
    train(run)
    # 20 steps of 4 are two whole epochs of 40, each with the two bad ones.
    assert [line["bad_samples"] for line in metrics(run)] == [2, 4]
    assert caplog.text.count("skipped 038.png: the picture is damaged") == 1
    assert caplog.text.count("skipped 039.png: the picture is damaged") == 1


def test_too_many_bad_pictures_end_the_run(vae_run: VaeRun, tmp_path: Path) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=20, bad=20)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(data=data, loop={"steps": 60} | SPARSE)
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
    run = vae_run(data=data, loop={"steps": 30, "batch": 1, "log_every": 30} | SPARSE)
    train(run)
    (line,) = metrics(run)
    assert (line["skipped_steps"], line["bad_samples"]) == (1, 1)


def test_an_empty_micro_batch_leaves_the_others_of_its_step(
    vae_run: VaeRun, tmp_path: Path
) -> None:
    pictures = folder_with_bad(tmp_path / "pictures", good=29, bad=1)
    data = {"train": pictures, "heldout": heldout(tmp_path)}
    run = vae_run(
        data=data, loop={"steps": 15, "batch": 2, "accumulate": 2, "log_every": 15} | SPARSE
    )
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
