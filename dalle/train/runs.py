"""What `dalle train vae` and `dalle train transformer` do around the loop: the run folder."""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from dalle.config import TrainTransformer, TrainVae
from dalle.errors import TrainingError
from dalle.flags import dump
from dalle.train.loop import Trainer
from dalle.train.transformer_task import TransformerTask
from dalle.train.vae_task import VaeTask
from dalle.version import __version__

log = logging.getLogger(__name__)

PACKAGES = ("torch", "numpy", "pillow", "tokenizers", "safetensors", "einops")


def train_vae(run: TrainVae) -> int:
    """Train the dVAE that `run` describes; returns the process' exit code.

    Raises:
        DataError: The pictures cannot be read, or too many of them are bad.
        TrainingError: The run folder is in use or cannot be written, or training went wrong.
    """
    with _run_folder(run.out, dump(run), resume=run.resume):
        trainer = Trainer(
            VaeTask(run),
            loop=run.loop,
            optim=run.optim,
            out=run.out,
            max_bad_fraction=run.data.max_bad_fraction,
        )
        return trainer.run(resume=run.resume)


def train_transformer(run: TrainTransformer) -> int:
    """Train the joint transformer that `run` describes; returns the process' exit code.

    Raises:
        DataError: The token folder cannot be read.
        TrainingError: The run folder is in use or cannot be written, or training went wrong.
    """
    with _run_folder(run.out, dump(run), resume=run.resume):
        # Token folders hold no unreadable samples: tokenize left them out.
        trainer = Trainer(
            TransformerTask(run), loop=run.loop, optim=run.optim, out=run.out, max_bad_fraction=0.0
        )
        return trainer.run(resume=run.resume)


@contextmanager
def _run_folder(out: Path, config: str, *, resume: bool) -> Iterator[None]:
    """Hold `out` for this process, with the resolved config and package versions in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise TrainingError(f"run folder {out} cannot be written: {err}") from err
    if not resume and (out / "checkpoints").exists():
        raise TrainingError(
            f"run folder {out} holds an earlier run; go on with it (--resume true), or give "
            "another --out"
        )
    with _lock(out / "lock"):
        _keep_config(out / "config.yaml", config, resume=resume)
        versions = {name: metadata.version(name) for name in PACKAGES}
        versions |= {"dalle": __version__, "python": platform.python_version()}
        text = json.dumps(versions, indent=2) + "\n"
        (out / "versions.json").write_text(text, encoding="utf-8")
        yield


def _keep_config(path: Path, config: str, *, resume: bool) -> None:
    """Write the resolved config, or when resuming make sure that it is still the same."""
    if resume and path.is_file():
        before = [line for line in path.read_text(encoding="utf-8").splitlines() if _counts(line)]
        now = [line for line in config.splitlines() if _counts(line)]
        changed = [f"{old.strip()} -> {new.strip()}" for old, new in zip(before, now) if old != new]
        if changed or len(before) != len(now):
            raise TrainingError(
                f"cannot resume with another config than {path}: {'; '.join(changed[:5])}; "
                "start a new run to change it"
            )
        return
    path.write_text(config, encoding="utf-8")


def _counts(line: str) -> bool:
    """Whether a config line must stay the same when a run is resumed."""
    return not line.lstrip().startswith("resume:")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Refuse a second process in the same run folder; a dead one's lock is taken over."""
    holder = f"{os.getpid()}@{socket.gethostname()}"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        other = path.read_text(encoding="utf-8")
        if _alive(other):
            raise TrainingError(
                f"run folder {path.parent} is in use by process {other}; wait for it, or delete "
                f"{path} if that process is gone"
            ) from None
        log.warning("taking over the lock of process %s, which is gone", other)
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(holder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _alive(holder: str) -> bool:
    """Whether the process of a lock may still run; one on another host is taken to."""
    pid, _, host = holder.partition("@")
    if host != socket.gethostname() or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
