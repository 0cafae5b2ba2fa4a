"""The tab for many captions at once, from a file."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from dalle.page import tiles
from dalle.page.batch import read_captions
from dalle.page.drawn import Collection, Earlier
from dalle.page.easel import Easel, Shared, Updates
from dalle.page.faults import PageFault, guarded
from dalle.page.html import html
from dalle.page.service import Task
from dalle.page.widgets import SettingsPanel

CANDIDATES = 4


class BatchTab:
    """A file of captions to the best picture of each."""

    def __init__(self, shared: Shared, *, ranks: bool) -> None:
        """Build the tab where it is called; `connect` brings it to life."""
        self.shared = shared
        self.service = shared.service
        facts, limits = self.service.facts, self.service.limits
        self.easel = Easel(shared, "batch", verb="Draw all", blanks=9, collects=True)
        self.captions = gr.State(None, time_to_live=6 * 3600)  # name of the file, what it holds
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=3, min_width=320, elem_classes="left"):
                self.file = gr.File(
                    label="Captions", file_types=[".txt", ".csv", ".tsv"], type="filepath",
                    height=150, elem_classes="captions-file",
                )  # fmt: skip
            with gr.Column(scale=2, min_width=300, elem_classes="right"):
                self.list = html(self._listed(()))
                with gr.Row():
                    self.easel.buttons()
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=3, min_width=320, elem_classes="left"):
                self.easel.stage_parts()
            with gr.Column(scale=2, min_width=300, elem_classes="right"):
                self.easel.chosen_parts()
                self.panel = SettingsPanel(
                    facts, limits, ranks=ranks, candidates=CANDIDATES, keep=None
                )
                self.easel.code_parts()

    def connect(self) -> None:
        """Let the widgets act."""
        easel = self.easel
        easel.connect()
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        self.file.change(
            self._read, self.file, [self.captions, self.list], concurrency_limit=4, **quiet
        )
        easel.go.click(
            self._draw,
            [self.captions, self.shared.earlier, *self.panel.inputs],
            [*easel.outputs, self.panel.seed],
            trigger_mode="once",
            concurrency_limit=None,
            **quiet,
        )

    def _read(self, path: str | None) -> Updates:
        """The captions of a new file."""
        if path is None:
            return {self.captions: None, self.list: self._listed(())}
        try:
            with guarded("reading captions"):
                captions = read_captions(path, self.service.limits)
        except PageFault as fault:
            return {self.captions: None, self.list: tiles.status(str(fault), tone="fault")}
        return {self.captions: (Path(path).name, captions), self.list: self._listed(captions)}

    def _draw(
        self,
        request: gr.Request,
        given: tuple[str, tuple[str, ...]] | None,
        earlier: Earlier,
        *values: Any,
    ) -> Iterator[Updates]:
        def steps() -> Iterator[Updates]:
            if given is None:
                raise PageFault("give a file of captions first")
            name, captions = given
            seeded = self.panel.settled(values)
            tasks = [
                Task(settings=self.panel.read(seeded, caption=caption, keep=1))
                for caption in captions
            ]
            shown = self.panel.showing_seed(tasks[0].settings)
            batch = Collection(title=name, labels=captions)
            yield from self.easel.drawing(tasks, earlier, request, collection=batch, also=shown)

        yield from self.easel.guarded(steps)

    def _listed(self, captions: tuple[str, ...]) -> str:
        """The captions of a file as people check them."""
        if not captions:
            return (
                '<p class="quiet">A text file with a caption on each line, or a CSV with a column '
                f"named caption; up to {self.service.limits.batch_rows} of them. The best of a few "
                "candidates is kept for each.</p>"
            )
        items = "".join(f"<li>{escape(caption)}</li>" for caption in captions)
        count = "1 caption" if len(captions) == 1 else f"{len(captions)} captions"
        return (
            f'<div class="captions"><p>{count}</p>'
            f'<ol tabindex="0" aria-label="{count}">{items}</ol></div>'
        )
