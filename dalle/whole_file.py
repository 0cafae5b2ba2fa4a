"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, replacing what stood there once all of it is on disk.

    Raises:
        OSError: The file cannot be written; what stood there still stands.
    """
    # A name of its own, so that two programs that write the same file do not meet in it.
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def require_new(folder: Path) -> None:
    """Refuse to write a folder over something that stands there.

    Raises:
        ValueError: Something does.
    """
    if folder.exists():
        raise ValueError(f"out folder {folder} exists; give a new one or remove it")


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, gone in the end unless it was renamed.

    Raises:
        OSError: It cannot be made.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a crash may have left
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A partial folder beside `folder`, which gets that name on success and is gone otherwise.

    Raises:
        ValueError: Something stands there already.
        OSError: It cannot be written.
    """
    require_new(folder)
    with partial_folder(folder) as partial:
        yield partial
        partial.rename(folder)
