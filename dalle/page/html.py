"""HTML on the page that follows our style sheet alone."""

from __future__ import annotations

from typing import Any

import gradio as gr


def html(value: str, **options: Any) -> gr.HTML:
    """`value` as a part of the page, without Gradio's styles for running text.

    Args:
        value: HTML whose texts are escaped.
        **options: As `gradio.HTML` takes them.
    """
    # The default script would tell the server of every click.
    return gr.HTML(value, apply_default_css=False, **{"js_on_load": None, **options})
