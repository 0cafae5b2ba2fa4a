"""What `dalle train vae`, `transformer` and `clip` do around the loop: the run folder."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields, is_dataclass, replace
from importlib import metadata
from pathlib import Path

from dalle.config import TrainClip, TrainTransformer, TrainVae
from dalle.errors import DalleError, TrainingError
from dalle.flags import dump
from dalle.train.clip_task import ClipTask
from dalle.train.loop import Trainer
from dalle.train.ranks import Ranks, joined
from dalle.train.state import has_checkpoints
from dalle.train.transformer_task import TransformerTask
from dalle.train.vae_task import VaeTask
from dalle.version import __version__
from dalle.yaml_file import parse_yaml, read_yaml

log = logging.getLogger(__name__)

AnyRun = TrainVae | TrainTransformer | TrainClip
FREE_SETTINGS = {
    "out", "sample_captions", "data.max_bad_fraction", "loop.workers", "loop.keep_checkpoints",
    "loop.tensorboard", "loop.log_every", "loop.eval_every", "loop.sample_every", "loop.save_every",
}  # fmt: skip
"""What may change when a run goes on: no update depends on it, except where a run goes back to its
last good checkpoint, which is the last that it happened to have saved."""
PACKAGES = ("torch", "numpy", "pillow", "tokenizers", "safetensors", "einops", "open_clip_torch")


def train_vae(run: TrainVae) -> int:
    """Train the dVAE that `run` describes; returns the process' exit code.

    Raises:
        DataError: The pictures cannot be read, or too many of them are bad.
        TrainingError: The run folder is in use or holds another run, or training went wrong.
        OSError: The run folder or the finished model cannot be written.
    """
    with joined(run.loop) as ranks, _run_folder(run, ranks):
        trainer = Trainer(
            VaeTask(run),
            loop=run.loop,
            optim=run.optim,
            out=run.out,
            max_bad_fraction=run.data.max_bad_fraction,
            ranks=ranks,
        )
        return trainer.run(resume=run.resume)


def train_transformer(run: TrainTransformer) -> int:
    """Train the joint transformer that `run` describes; returns the process' exit code.

    Raises:
        DataError: The token folder cannot be read.
        ModelFormatError: Its dVAE or tokenizer cannot be read.
        TrainingError: The run folder is in use or holds another run, or training went wrong.
        OSError: The run folder or the finished model cannot be written.
    """
    with joined(run.loop) as ranks, _run_folder(run, ranks):
        # Token folders hold no unreadable samples: tokenize left them out.
        trainer = Trainer(
            TransformerTask(run),
            loop=run.loop,
            optim=run.optim,
            out=run.out,
            max_bad_fraction=0.0,
            ranks=ranks,
        )
        return trainer.run(resume=run.resume)


def train_clip(run: TrainClip) -> int:
    """Train the CLIP that `run` describes; returns the process' exit code.

    Raises:
        DataError: The pictures cannot be read, or too many of them are bad.
        ModelFormatError: The tokenizer or the dVAE cannot be read.
        TrainingError: The run folder is in use or holds another run, or training went wrong.
        OSError: The run folder or the finished model cannot be written.
    """
    with joined(run.loop) as ranks, _run_folder(run, ranks):
        trainer = Trainer(
            ClipTask(run),
            loop=run.loop,
            optim=run.optim,
            out=run.out,
            max_bad_fraction=run.data.max_bad_fraction,
            ranks=ranks,
        )
        return trainer.run(resume=run.resume)


@contextmanager
def _run_folder(run: AnyRun, ranks: Ranks) -> Iterator[None]:
    """Hold the run's folder for its first process, with the resolved config and versions in it.

    It is not left behind where what was asked for cannot be trained.
    """
    out = run.out
    if not ranks.first:
        yield
        return
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    if not run.resume and has_checkpoints(out / "checkpoints"):
        raise TrainingError(
            f"run folder {out} holds an earlier run; go on with it (--resume true), or give "
            "another --out"
        )
    with _gone_if_refused(out) if is_new else nullcontext(), _lock(out / "lock"):
        _keep_config(out / "config.yaml", run)
        versions = {name: metadata.version(name) for name in PACKAGES}
        versions |= {"dalle": __version__, "python": platform.python_version()}
        text = json.dumps(versions, indent=2) + "\n"
        (out / "versions.json").write_text(text, encoding="utf-8")
        yield


@contextmanager
def _gone_if_refused(out: Path) -> Iterator[None]:
    """Remove the folder of a run that ended in an error before it had anything to keep."""
    try:
        yield
    except (DalleError, ValueError):
        with suppress(OSError):
            # With a lock in it, it is somebody else's by now.
            if {path.name for path in out.iterdir()} <= {"config.yaml", "versions.json"}:
                shutil.rmtree(out)
        raise


def _keep_config(path: Path, run: AnyRun) -> None:
    """Write the resolved config; when resuming, make sure that what matters is still the same."""
    config = dump(replace(run, resume=False))
    if not (run.resume and path.is_file()):
        path.write_text(config, encoding="utf-8")
        return
    try:
        before = _settings(read_yaml(path))
    except ValueError as err:
        raise TrainingError(
            f"cannot resume {path.parent}, since its {path.name} cannot be read: {err}; start a "
            "new run with another --out"
        ) from err
    now = _settings(parse_yaml(config, name="the settings of this run"))
    other = {
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key) and not (key not in before and _is_default(run, key))
    }
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(other - FREE_SETTINGS)
    ]
    if changed:
        raise TrainingError(
            f"cannot resume {path.parent} with other settings than it was started with "
            f"({'; '.join(changed[:5])}); set them back, or start a new run with another --out"
        )
    if other:
        path.write_text(config, encoding="utf-8")


def _is_default(run: object, key: str) -> bool:
    """Whether a setting, by dotted key, is as it is when nobody sets it.

    A run that was started before there was this setting went by its default.
    """
    *sections, name = key.split(".")
    for section in sections:
        run = getattr(run, section)
    assert is_dataclass(run), "settings lie in dataclasses"
    default = next(one.default for one in fields(run) if one.name == name)
    return bool(getattr(run, name) == default)


def _settings(tree: Mapping[str, object]) -> dict[str, object]:
    """Values by dotted key, without `resume` itself, which is meant to change.

    Raises:
        ValueError: There are none.
    """
    flat: dict[str, object] = {}

    def collect(tree: Mapping[str, object], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                collect(value, f"{prefix}{name}.")
            else:
                flat[f"{prefix}{name}"] = value

    if not tree:
        raise ValueError("it holds no settings")
    collect(tree, "")
    flat.pop("resume", None)
    return flat


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
    """Whether the process of a lock may still run; one on another host is taken to.

    A lock with our own number is not ours, since we have not taken it yet: containers number their
    processes alike each time.
    """
    pid, _, host = holder.partition("@")
    if host != socket.gethostname() or not pid.isdigit():
        return True
    if int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
