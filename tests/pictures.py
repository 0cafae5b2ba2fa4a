"""Small captioned pictures that tests of training share."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def write_red_squares(folder: Path, *, damaged: int) -> None:
    """Write 0.png to 2.png with their captions, one of them without content."""
    for number in range(3):
        Image.new("RGB", (32, 32), "red").save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a red square")
    (folder / f"{damaged}.png").write_bytes(b"")
