"""The same drawing as code, beside the pictures, to copy."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dalle.page.drawn import Drawn
from dalle.page.snippets import as_command_line, as_python


class CodeView:
    """Python and command line, folded away; build it where it belongs in the layout."""

    def __init__(self) -> None:
        with gr.Accordion("Copy as Python or command line", open=False):
            self.python = gr.Code(
                label="Python", language="python", interactive=False, lines=4, max_lines=20
            )
            self.shell = gr.Code(
                label="Command line",
                language="shell",
                interactive=False,
                lines=2,
                max_lines=8,
                wrap_lines=True,
            )

    @property
    def parts(self) -> tuple[Any, ...]:
        """The components that `showing` changes."""
        return self.python, self.shell

    def showing(self, drawn: Drawn, picked: int) -> dict[Any, Any]:
        """The updates with which they show what draws picture number `picked` of `drawn`."""
        settings, dtype = drawn.settings_of(picked), drawn.images[picked].recipe.dtype
        return {
            self.python: as_python(settings, dtype),
            self.shell: as_command_line(settings, dtype),
        }
