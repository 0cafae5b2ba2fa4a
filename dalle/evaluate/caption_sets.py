"""Captions to evaluate on, read from a file that a person wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dalle.caption_file import read_caption_lines, warn_skipped
from dalle.prompts import check_prompt


@dataclass(frozen=True, kw_only=True)
class CaptionSet:
    """The captions of a file."""

    captions: tuple[str, ...]
    """In the file's order, as written, without white space around them; never empty."""
    skipped: int
    """Empty lines, or rows without caption, that were left out."""


def read_captions(path: Path) -> CaptionSet:
    """The captions in a text file or a table, each one that a model can be asked to draw.

    Args:
        path: As `dalle.caption_file.read_caption_lines` reads it.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such file, or holds a caption that cannot be drawn.
    """
    found = read_caption_lines(path)
    warn_skipped(found)
    for one in found.lines:
        try:
            check_prompt(one.caption)
        except ValueError as err:
            raise ValueError(f"{found.name}, line {one.line}: {err}") from err
    captions = tuple(one.caption for one in found.lines)
    return CaptionSet(captions=captions, skipped=len(found.empty))
