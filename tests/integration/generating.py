"""What the tests of `dalle generate` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

FOX = "a fox on a blue background"

Generate = Callable[..., tuple[int, str, str]]
"""Runs the command with words of its own: status, stdout, stderr."""


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []
