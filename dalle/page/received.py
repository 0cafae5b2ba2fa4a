"""Files named in what browsers and programs send: only those that this server has received itself.

Gradio copies files that a request names into its own folder, from where it serves them, and fetches
those at addresses. Its own check of what may be copied rests on the page having been launched by
Gradio, which is not so here; this one rests on nothing.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from gradio.utils import get_upload_folder

from dalle.page.faults import PageFault

_SERVED = "/gradio_api/file="
"""What stands before the path in the address of an uploaded file."""


def only_received(value: object) -> object:
    """`value`, once every file in it is known to be an upload; addresses of uploads are resolved.

    Args:
        value: Anything that JSON can say. A file is an object with a text called "path".

    Raises:
        PageFault: A file in it is none that this server has received.
    """
    if isinstance(value, list | tuple):
        return [only_received(item) for item in value]
    if not isinstance(value, dict):
        return value
    checked = {key: only_received(item) for key, item in value.items()}
    if isinstance(path := value.get("path"), str):
        checked["path"] = _received(path)
    return checked


def is_received(path: str) -> bool:
    """Whether `path` is a regular file in the folder of uploads and results, links followed.

    Nothing else may reach Gradio, which puts every path among the files that it deletes later on: a
    folder there, or a name too long for the system, would end its deleting for good.
    """
    try:
        file = Path(path).resolve()
        return file.is_relative_to(Path(get_upload_folder()).resolve()) and file.is_file()
    except (OSError, ValueError):  # such as a NUL in it
        return False


def _received(path: str) -> str:
    """The path of an upload.

    Raises:
        PageFault: It is none.
    """
    # A program that has uploaded a file knows its address; it is taken apart, never opened.
    _, served, rest = path.partition(_SERVED)
    local = unquote(rest) if served else path
    if not is_received(local):
        raise PageFault(
            "a file must be uploaded to this page first, or again after an hour or more; other "
            "paths and addresses are not opened"
        )
    return local
