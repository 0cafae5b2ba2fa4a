"""Small captioned sets that tests of the readers write."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image

from dalle.data.samples import SampleSet


def png(red: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_samples(path: Path, count: int) -> Path:
    members: dict[str, bytes] = {}
    for index in range(count):
        members[f"{index:04d}.png"] = png(index)
        members[f"{index:04d}.txt"] = f"picture {index}".encode()
    return write_tar(path, members)


def captions(samples: SampleSet) -> list[str]:
    return [samples[index].caption for index in range(len(samples))]
