"""Training state on disk: complete and verified, or ignored.

Each checkpoint is a `torch.distributed.checkpoint` directory `step-00001000` inside the run's
`checkpoints` folder. It is written under another name, flushed, sealed with a manifest of SHA-256
hashes and renamed last, so a crash at any moment leaves the older ones the newest complete ones.

Loading such a directory can run code (its index is a pickle): only ever load your own.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer

from dalle.checksums import file_sha256
from dalle.errors import TrainingError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
NAME = re.compile(r"step-(\d{8})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, apart from its tensors; plain JSON values."""

    step: int
    """Updates made, or left out."""
    data: str
    """Fingerprint of the data that the run reads."""
    seen: int
    """Samples read so far."""
    bad: int
    """Those of them that were unreadable."""
    skipped_in_a_row: int
    """Newest steps without update."""
    window: Mapping[str, Any]
    """What the loop has gathered for its next log line."""
    task_window: Mapping[str, Any]
    """What the task has gathered for it."""
    rolled_back: bool = False
    """Whether the run has gone back to an older checkpoint's weights once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """The tensors of a run."""

    model: nn.Module
    average: nn.Module
    optimizers: tuple[Optimizer, ...]


def save_state(folder: Path, trained: Trained, progress: Progress, *, keep: int) -> Path:
    """Write a checkpoint and delete all but the newest `keep`.

    Returns:
        The new checkpoint's directory.

    Raises:
        TrainingError: It could not be written; earlier checkpoints are untouched.
    """
    final = folder / f"step-{progress.step:08d}"
    partial = folder / f"{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with _quiet():
            dcp.save(_tensors(trained), checkpoint_id=partial, no_dist=True)
        _write_json(partial / PROGRESS, dataclasses.asdict(progress))
        hashes = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
        _write_json(partial / MANIFEST, {"sha256": hashes})
        for path in (*partial.iterdir(), partial):
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(folder)
    except (OSError, dcp.CheckpointException) as err:
        shutil.rmtree(partial, ignore_errors=True)
        then = "resume from the newest checkpoint" if has_checkpoints(folder) else "start again"
        raise TrainingError(
            f"checkpoint {final} could not be written: {_cause(err)}; make room or mend the "
            f"folder, then {then}"
        ) from err
    _purge(folder, keep)
    return final


def load_state(checkpoint: Path, trained: Trained) -> Progress:
    """Fill model, averaged model and optimizers from `checkpoint`; returns where the run stood.

    Raises:
        TrainingError: The checkpoint does not fit the model it is loaded into.
    """
    state = _tensors(trained)
    groups = _groups(state)
    try:
        with _quiet():
            dcp.load(state, checkpoint_id=checkpoint, no_dist=True)
        if _groups(state) != groups:
            # torch would take it without a word, and give one group's settings to another.
            raise ValueError("its optimizers put the weights into other groups")
        progress = _progress(checkpoint)
        set_state_dict(
            trained.model,
            trained.optimizers,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizers"],
        )
    except (RuntimeError, TypeError, ValueError, KeyError, dcp.CheckpointException) as err:
        raise TrainingError(
            f"{checkpoint} does not fit this run: {_cause(err)}; use the settings and the version "
            "of this program that it was started with"
        ) from err
    return progress  # the averaged tensors were filled in place


def has_checkpoints(folder: Path) -> bool:
    """Whether there is any, damaged or not; what was never finished is none."""
    return next(_newest_first(folder), None) is not None


def newest_complete(folder: Path) -> Path | None:
    """The newest checkpoint whose every file matches its manifest; None if there is none."""
    for checkpoint in _newest_first(folder):
        if fault := _fault(checkpoint):
            log.warning("checkpoint %s is ignored: %s", checkpoint, fault)
        else:
            return checkpoint
    return None


def newest_good(folder: Path) -> Path | None:
    """The newest complete checkpoint whose last step was an update; None if there is none."""
    for checkpoint in _newest_first(folder):
        if _fault(checkpoint) is None and not _progress(checkpoint).skipped_in_a_row:
            return checkpoint
    return None


def _progress(checkpoint: Path) -> Progress:
    return Progress(**json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))


def _tensors(trained: Trained) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(trained.model, trained.optimizers)
    model = trained.model.state_dict()
    averaged = {  # what is not trained is the model's own, and written once
        name: tensor
        for name, tensor in trained.average.state_dict().items()
        if tensor.data_ptr() != model[name].data_ptr()
    }
    return {"model": model_state, "optimizers": optimizer_state, "average": averaged}


def _groups(state: Mapping[str, Any]) -> list[list[str]]:
    """Names of the weights that are trained by the same settings."""
    return [sorted(group["params"]) for group in state["optimizers"]["param_groups"]]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that no process group is running, which is as it should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _cause(err: BaseException) -> str:
    """What went wrong, without the traces that torch puts into the text of its own errors."""
    if isinstance(err, dcp.CheckpointException):
        return "; ".join(str(failure) for failure, _ in err.failures.values())
    return str(err)


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree) + "\n", encoding="utf-8")


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        hashes = dict(manifest["sha256"])
        if PROGRESS not in hashes:
            return f"{MANIFEST} does not list {PROGRESS}; another version of this program wrote it"
        for name, expected in hashes.items():
            if file_sha256(checkpoint / name) != expected:
                return f"{name} is damaged"
    except (OSError, ValueError, TypeError, KeyError) as err:
        return f"{type(err).__name__}: {err}"
    return None


def _newest_first(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
        yield from sorted(found, reverse=True)


def _purge(folder: Path, keep: int) -> None:
    """Delete old checkpoints, and what a process that was killed has left half-written."""
    for old in (*list(_newest_first(folder))[keep:], *folder.glob("step-*.partial")):
        try:
            shutil.rmtree(old)
        except OSError as err:
            log.warning("old checkpoint %s could not be deleted: %s", old, err)


def _flush(path: Path) -> None:
    """Ask the system to put a file or directory on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
