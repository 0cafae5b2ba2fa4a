"""Results as files to download: pictures with their settings, all as one zip, a contact sheet."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dalle.labels import file_name
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.picture import GeneratedImage, save_png
from dalle.sheets import contact_sheet

NO_ROOM = "the server has no room for more files just now; try again in a few minutes"
_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a full disk, a user's quota and a limit of the process are called."""
_BLOCK_BYTES = 4096
"""What the smallest file takes up: a million of them are not nothing."""


def save_pictures(
    images: Sequence[GeneratedImage], folder: Path, limits: Limits
) -> tuple[Path, ...]:
    """A PNG for each picture, with its settings in it, in a new folder within `folder`.

    Names are ASCII: words of the caption, a hash, seed and number, as `dalle generate` gives them.

    Args:
        images: Finished pictures.
        folder: The page's own folder of results; all of it counts towards the quota.
        limits: The page's limits.

    Raises:
        PageFault: The quota is spent, or the disk is full.
    """
    with _new_folder(folder, limits) as target:
        files = tuple(target / file_name(image.recipe) for image in images)
        for image, file in zip(images, files, strict=True):
            image.save(file)
    return files


def save_zip(images: Sequence[GeneratedImage], folder: Path, limits: Limits) -> Path:
    """The files of `save_pictures`, in one zip file.

    Raises:
        PageFault: There are no pictures, the quota is spent, or the disk is full.
    """
    _check_any(images)
    with _new_folder(folder, limits) as target:
        path = target / "pictures.zip"
        # Stored as they are: PNGs hold nothing more to compress.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            # By name, since a session may have drawn the same picture twice.
            for name, image in {file_name(image.recipe): image for image in images}.items():
                file = target / name
                image.save(file)
                archive.write(file, name)
                file.unlink()
    return path


def save_sheet(images: Sequence[GeneratedImage], folder: Path, limits: Limits) -> Path:
    """The contact sheet of `dalle generate`: pictures with caption, score, seed and number.

    Raises:
        PageFault: There are no pictures, the quota is spent, or the disk is full.
    """
    _check_any(images)
    with _new_folder(folder, limits) as target:
        path = target / "sheet.png"
        save_png(contact_sheet(images), path)
    return path


@contextlib.contextmanager
def _new_folder(folder: Path, limits: Limits) -> Iterator[Path]:
    """A folder that no other download writes into; nothing of it stays if the block fails.

    Raises:
        PageFault: The quota is spent, or the disk is full.
    """
    if bytes_in(folder) >= limits.result_bytes:
        raise _full()
    try:
        with contextlib.ExitStack() as undo:
            target = Path(tempfile.mkdtemp(dir=folder))
            undo.callback(shutil.rmtree, target, ignore_errors=True)
            yield target
            undo.pop_all()
    except OSError as err:
        if err.errno in _FULL_DISK:
            raise _full() from err
        raise


def bytes_in(folder: Path) -> int:
    """What the files in `folder` take up; files and folders may be deleted meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):  # which passes over what has gone
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += max(_BLOCK_BYTES, Path(place, name).lstat().st_size)
    return total


def _full() -> PageFault:
    return PageFault(NO_ROOM)


def _check_any(images: Sequence[GeneratedImage]) -> None:
    if not images:
        raise PageFault("there are no pictures to save yet; draw some first")
