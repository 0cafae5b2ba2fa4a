"""The widget that takes a picture: it hands over a file, and nothing of it is opened on the way."""

from __future__ import annotations

from typing import Any

import gradio as gr


def given_picture(**options: Any) -> gr.Image:
    """A picture to upload, paste or photograph, as the path of the uploaded file.

    Gradio's own widget would open the file with every decoder that Pillow has, and take pictures
    written out as data URLs; here `dalle.page.uploads` is the only one to open anything.

    Args:
        **options: As `gradio.Image` takes them.
    """
    widget = gr.Image(
        type="filepath", image_mode=None, format="png", buttons=[], elem_classes="given", **options
    )
    # Not a class of our own: Gradio writes a stub file beside the source of each one.
    widget.preprocess = _path_of  # type: ignore[method-assign]
    return widget


def _path_of(payload: Any) -> str | None:
    """Where an upload lies; None if there is none."""
    return None if payload is None else payload.path
