"""Many captions from an uploaded file."""

from __future__ import annotations

import shlex
from pathlib import Path

from dalle.caption_file import caption_lines
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.settings import check_caption
from dalle.page.uploads import read_upload_bytes


def read_captions(path: object, limits: Limits) -> tuple[str, ...]:
    """The captions in an uploaded file, in its order; empty lines are left out.

    Args:
        path: Where the upload lies: an absolute path, str or Path. UTF-8, with or without byte
            order mark: `.txt` holds one caption a line, `.csv` and `.tsv` a column named `caption`.
        limits: The page's limits.

    Raises:
        PageFault: It is no such file, a line cannot be drawn (it is named), or it is larger or
            holds more captions than the page takes: then it shows the command line that draws them
            all.
    """
    name = Path(str(path)).name
    content = read_upload_bytes(
        path,
        limits.caption_file_bytes,
        remedy=f"this page draws {limits.batch_rows} captions; draw them all with: "
        f"{command_line(name)}",
    )
    try:
        lines = caption_lines(content, name=name).lines
    except ValueError as err:
        raise PageFault(str(err)) from err
    if len(lines) > limits.batch_rows:
        raise PageFault(
            f"{name} holds {len(lines):,} captions, more than the {limits.batch_rows} that this "
            f"page draws; draw them all with: {command_line(name)}"
        )
    for one in lines:
        try:
            check_caption(one.caption, limits)
        except PageFault as err:
            raise PageFault(f"{name}, line {one.line}: {err}") from err
    return tuple(one.caption for one in lines)


def command_line(name: str) -> str:
    """The command that draws all captions of the file called `name`, best four of each."""
    return shlex.join(["dalle", "generate", f"--caption-file={name}"])
