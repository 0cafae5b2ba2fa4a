"""Training state on disk: complete and verified, or ignored.

Each checkpoint is a `torch.distributed.checkpoint` directory `step-00001000` inside the run's
`checkpoints` folder. It is written under another name, flushed, sealed with a manifest of SHA-256
hashes and renamed last, so a crash at any moment leaves the older ones the newest complete ones.

Loading such a directory can run code (its index is a pickle): only ever load your own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer

from dalle.checkpoint import file_sha256
from dalle.errors import TrainingError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
NAME = re.compile(r"step-(\d{8})")


def save_state(
    folder: Path, step: int, *, model: nn.Module, ema: nn.Module, optimizer: Optimizer, keep: int
) -> Path:
    """Write the checkpoint of `step` updates and delete all but the newest `keep`.

    Returns:
        The new checkpoint's directory.

    Raises:
        TrainingError: It could not be written; earlier checkpoints are untouched.
    """
    final = folder / f"step-{step:08d}"
    partial = folder / f"{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _save(partial, _tensors(model, ema, optimizer))
        hashes = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
        manifest = partial / MANIFEST
        manifest.write_text(json.dumps({"step": step, "sha256": hashes}), encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(folder)
    except OSError as err:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrainingError(f"checkpoint {final} could not be written: {err}") from err
    _purge(folder, keep)
    return final


def load_state(checkpoint: Path, *, model: nn.Module, ema: nn.Module, optimizer: Optimizer) -> int:
    """Fill model, averaged model and optimizer from `checkpoint`; returns its step.

    Raises:
        TrainingError: The checkpoint does not fit the model it is loaded into.
    """
    state = _tensors(model, ema, optimizer)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that no process group is running
            dcp.load(state, checkpoint_id=checkpoint, no_dist=True)
    except (RuntimeError, KeyError, ValueError, dcp.CheckpointException) as err:
        raise TrainingError(
            f"{checkpoint} does not fit this run's model: {err}; use the config it was started with"
        ) from err
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    ema.load_state_dict(state["ema"])
    return int(json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["step"])


def newest_complete(folder: Path) -> Path | None:
    """The newest checkpoint whose every file matches its manifest; None if there is none."""
    for checkpoint in _newest_first(folder):
        if fault := _fault(checkpoint):
            log.warning("checkpoint %s is ignored: %s", checkpoint, fault)
        else:
            return checkpoint
    return None


def _tensors(model: nn.Module, ema: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {"model": model_state, "optimizer": optimizer_state, "ema": ema.state_dict()}


def _save(folder: Path, state: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that no process group is running
        dcp.save(state, checkpoint_id=folder, no_dist=True)


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest["sha256"].items():
            if file_sha256(checkpoint / name) != expected:
                return f"{name} is damaged"
    except (OSError, ValueError, KeyError) as err:
        return f"{err}"
    return None


def _newest_first(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
        yield from sorted(found, reverse=True)


def _purge(folder: Path, keep: int) -> None:
    for old in list(_newest_first(folder))[keep:]:
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
