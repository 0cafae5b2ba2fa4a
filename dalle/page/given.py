"""Pictures that people give, and the widget that takes them, which opens nothing of the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Given:
    """A picture that a session goes on from."""

    picture: Image.Image
    """RGB, reduced to what the page holds."""
    name: str
    """Of its file, as the person knows it."""

    def named_like(self, other: Given | None) -> Given:
        """This picture, called as `other` if that is the same one, which came back to the page."""
        is_same = other is not None and self.picture == other.picture
        return other if is_same and other is not None else self


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
