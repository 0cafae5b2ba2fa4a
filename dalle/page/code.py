"""The same drawing as code, beside the pictures: to copy, and what to mind about it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dalle.page.drawn import Drawn
from dalle.page.html import html
from dalle.page.snippets import as_command_line, as_python


class CodeView:
    """Python and command line, folded away; build it where it belongs in the layout.

    Args:
        held_px: Longest side of given pictures as the page holds them.
    """

    def __init__(self, held_px: int) -> None:
        self._held_px = held_px
        with gr.Accordion("Copy as Python or command line", open=False):
            self.note = html("")
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
        return self.note, self.python, self.shell

    def showing(self, drawn: Drawn, picked: int) -> dict[Any, Any]:
        """The updates with which they show what draws picture number `picked` of `drawn`."""
        settings, dtype = drawn.settings_of(picked), drawn.images[picked].recipe.dtype
        given = None if settings.image is None else drawn.picture
        note = ""
        if given is not None and max(given.size) >= self._held_px:
            note = (
                f'<p class="quiet">The page has reduced your picture to {self._held_px} px before '
                "it went on from it. The code reads the file as it is, so its pictures may differ "
                "a little; give it a copy of that size to draw these.</p>"
            )
        return {
            self.note: note,
            self.python: as_python(settings, dtype),
            self.shell: as_command_line(settings, dtype),
        }
