"""Uploaded pictures as pixels, without letting a hostile file near the server's own process."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from PIL import Image

from dalle.data.images import why_unreadable
from dalle.given_picture import reduced
from dalle.page.decode import HEAD_BYTES, DecodeLimits
from dalle.page.faults import PageFault
from dalle.page.headers import read_header
from dalle.page.limits import Limits

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
"""The folder that holds the package, from which the child finds it wherever the server runs."""
# What an interpreter may need to start; nothing of the server's secrets reaches the child.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# Links are not followed, and a pipe in place of a file must not keep us waiting.
_OPEN_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)


def read_upload_bytes(
    path: object, most: int, *, what: str = "file", remedy: str = "give a smaller copy"
) -> bytes:
    """The content of an uploaded file.

    Args:
        path: Where the upload lies: an absolute path, str or Path.
        most: Bytes that it may have.
        what: What the person was asked for, for messages: "picture".
        remedy: What to do about a larger one, for messages.

    Raises:
        PageFault: `path` is a URL or no path, no regular file is there, or it is too large.
    """
    if path is None:
        raise PageFault(f"there is no {what} yet; choose one first")
    if not isinstance(path, str | Path) or not Path(path).is_absolute():
        raise PageFault(f"a {what} must be uploaded from your device; addresses are not opened")
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PageFault(f"the {what} is no file; upload one")
            content = file.read(most + 1)
    except (OSError, ValueError) as err:
        raise PageFault(f"the {what} is not on the server any more; upload it again") from err
    if len(content) > most:
        raise PageFault(f"the {what} has over {most / 1024**2:.3g} MiB; {remedy}")
    return content


class Uploads:
    """Opens uploaded pictures, a few at a time; one serves all clients and threads.

    The file's bytes are counted, and its format and size read from its header, in this process, by
    code that decodes nothing. Its pixels are decoded in a child process that may use so much memory
    and time and no more (`dalle.page.decode`).

    Args:
        limits: The page's limits.
        longest_px: A longer side is reduced to this, before anybody else's turn to read; None keeps
            every pixel.
    """

    def __init__(self, limits: Limits, *, longest_px: int | None = None) -> None:
        self._limits = limits
        self._longest_px = longest_px
        self._places = threading.BoundedSemaphore(limits.decoding)

    def read(self, path: object) -> Image.Image:
        """The picture in a local file: RGB, the right way up, transparency laid over white.

        Args:
            path: Where the upload lies: an absolute path, str or Path. A URL is refused, and so is
                everything that is no regular file.

        Raises:
            PageFault: There is no picture, or it is another format than PNG, JPEG and WebP,
                damaged, too large, too thin, or took too long. The server goes on.
        """
        # Taken before the file is read, so that waiting takes no memory.
        if not self._places.acquire(timeout=self._limits.decode_seconds):
            raise PageFault("too many pictures are being opened just now; try again in a minute")
        try:
            data = read_upload_bytes(path, self._limits.upload_bytes, what="picture")
            self._check_header(data)
            image = self._decode(data)
            return image if self._longest_px is None else reduced(image, self._longest_px)
        finally:
            self._places.release()

    def _check_header(self, data: bytes) -> None:
        header = read_header(data)
        if header is None:
            raise PageFault(why_unreadable(data))
        if header.width * header.height > self._limits.pixels:
            raise PageFault(
                f"the picture has {header.width:,} x {header.height:,} pixels, more than "
                f"{self._limits.pixels:,}; give a smaller copy"
            )

    def _decode(self, data: bytes) -> Image.Image:
        """The pixels of a file, by way of a child process."""
        seconds = self._limits.decode_seconds
        asked = DecodeLimits(
            pixels=self._limits.pixels,
            memory_bytes=self._limits.decode_bytes,
            cpu_seconds=seconds,
        )
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        # A file, not a pipe: the system itself keeps the answer from growing without end.
        with tempfile.TemporaryFile() as answer:
            try:
                child = subprocess.run(
                    [sys.executable, "-m", "dalle.page.decode", asked.to_json()],
                    input=data, stdout=answer, stderr=subprocess.DEVNULL, timeout=seconds,
                    cwd=_ROOT, env=kept | _ONE_THREAD, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as err:
                raise PageFault(
                    f"opening the picture took over {seconds} s; give a smaller copy"
                ) from err
            if child.returncode != 0:
                log.warning(
                    "decoding a picture of %d bytes ended with status %d",
                    len(data), child.returncode,
                )  # fmt: skip
                raise PageFault(
                    "the picture cannot be opened safely; save it anew with another program, and "
                    "give that file"
                )
            return _picture(answer)


def _picture(answer: IO[bytes]) -> Image.Image:
    """The picture that the child wrote.

    Raises:
        PageFault: It refused the file, and says why.
    """
    answer.seek(0)
    head = json.loads(answer.readline(HEAD_BYTES))
    if "refused" in head:
        raise PageFault(head["refused"])
    return Image.frombytes("RGB", (head["width"], head["height"]), answer.read())
