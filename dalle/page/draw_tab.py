"""The tab that everybody begins with: a caption, a button, pictures."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from dalle.labels import shown
from dalle.page import tiles
from dalle.page.asking import place_of
from dalle.page.drawn import Drawn, Earlier
from dalle.page.easel import Easel, Shared, Updates
from dalle.page.faults import PageFault, guarded
from dalle.page.html import html
from dalle.page.restore import Begun, begun_by, read_settings, settings_of
from dalle.page.service import Task
from dalle.page.settings import DrawSettings
from dalle.page.variations import varying
from dalle.page.widgets import SettingsPanel

CANDIDATES, KEEP = 16, 9
CHOOSE = """
element.addEventListener('click', (event) => {
  const chip = event.target.closest('[data-example]');
  if (chip) trigger('choose', {place: Number(chip.dataset.example)});
});
"""


class DrawTab:
    """Caption to ranked pictures."""

    def __init__(self, shared: Shared, *, ranks: bool) -> None:
        """Build the tab where it is called; `connect` brings it to life."""
        self.shared = shared
        self.service = shared.service
        limits = self.service.limits
        self.easel = Easel(shared, "draw", verb="Draw", blanks=KEEP)
        with gr.Row(elem_classes="ask"):
            self.caption = gr.Textbox(
                label="Caption",
                placeholder=" Such as: ".join(
                    ["What should be drawn?", *self.service.examples[:1]]
                ),
                max_lines=1,
                max_length=limits.caption_chars,
                elem_classes="caption",
                scale=1,
                autofocus=True,
            )
            self.easel.buttons()
        self.examples = html(example_chips(self.service.examples), js_on_load=CHOOSE)
        self.begun = gr.State(None, time_to_live=6 * 3600)
        self.goes_on = gr.Checkbox(label="Go on from what was kept", container=False, visible=False)
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=3, min_width=320, elem_classes="left"):
                self.easel.stage_parts()
            with gr.Column(scale=2, min_width=300, elem_classes="right"):
                self.easel.chosen_parts()
                self.panel = SettingsPanel(
                    self.service.facts, limits, ranks=ranks, candidates=CANDIDATES, keep=KEEP
                )
                self.easel.code_parts()
                with gr.Accordion("Restore settings from a picture", open=False):
                    self.dropped = gr.File(
                        label="Drop a PNG that was drawn here",
                        file_types=[".png"],
                        type="filepath",
                        height=120,
                        elem_classes="dropped",
                    )

    def connect(self) -> None:
        """Let the widgets act."""
        easel, panel = self.easel, self.panel
        easel.connect()
        draw: dict[str, Any] = {
            "outputs": [*easel.outputs, panel.seed],
            "trigger_mode": "once",
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        inputs = [self.shared.earlier, *panel.inputs]
        asked = [self.caption, self.begun, self.goes_on]
        gr.on([easel.go.click, self.caption.submit], self._draw, [*asked, *inputs], **draw)
        easel.vary.click(varying(easel, panel), [easel.current, easel.picked, *inputs], **draw)
        quiet: dict[str, Any] = {
            "api_visibility": "private", "show_progress": "hidden", "queue": False,
        }  # fmt: skip
        self.examples.choose(self._example, None, self.caption, **quiet)
        self.dropped.upload(
            self._restore,
            self.dropped,
            [self.dropped, easel.status, *self.restored_parts],
            **quiet,
        )

    def _draw(
        self,
        request: gr.Request,
        caption: str,
        begun: Begun | None,
        goes_on: bool,
        earlier: Earlier,
        *values: Any,
    ) -> Iterator[Updates]:
        def steps() -> Iterator[Updates]:
            if begun is None or not goes_on:
                task = Task(settings=self.panel.read(values, caption=caption))
            else:
                task = begun.task(self.panel.read(values, caption=caption, vary=begun.file))
            shown = self.panel.showing_seed(task.settings)
            yield from self.easel.drawing([task], earlier, request, also=shown)

        yield from self.easel.guarded(steps)

    def _example(self, event: gr.EventData) -> Any:
        place = place_of(event)
        captions = self.service.examples
        return captions[place] if 0 <= place < len(captions) else gr.skip()

    def _restore(self, path: str | None) -> Updates:
        try:
            with guarded("restoring"):
                recipe = read_settings(path, self.service.limits)
                begun = begun_by(recipe, self.service.facts, file=Path(str(path)).name)
                # Until the model is there, nobody knows whose picture this is.
                is_foreign = (
                    self.service.is_ready and recipe.model != self.service.model().fingerprint
                )
                settings = settings_of(recipe, model=self.service.facts.name)
                updates = self._filled(settings, None if is_foreign else begun)
        except PageFault as fault:
            return {
                self.dropped: None,
                self.easel.status: tiles.status(str(fault), tone="fault"),
            }
        note = f"Settings restored: seed {recipe.seed}, candidate {recipe.index}."
        if is_foreign:
            note += " Another model drew this picture, so this one will draw a different one."
            if begun is not None:
                note += " What it went on from means nothing here and is left out."
        line = tiles.status(note, tone="notice" if is_foreign else "")
        return {**updates, self.dropped: None, self.easel.status: line}

    def showing(self, drawn: Drawn) -> Updates:
        """The widgets as they were for `drawn`, if it was drawn here.

        Raises:
            PageFault: They cannot show a value.
        """
        settings, begun = drawn.settings[0], None
        if settings.vary is not None:
            begun = begun_by(drawn.images[0].recipe, self.service.facts, file=settings.vary)
        return self._filled(settings, begun)

    def _filled(self, settings: DrawSettings, begun: Begun | None) -> Updates:
        """The widgets with `settings` in them, and what they go on from.

        Raises:
            PageFault: They cannot show a value.
        """
        return {
            self.caption: settings.caption or "",
            **self.panel.filled(settings),
            **self._going_on(begun),
        }

    def _going_on(self, begun: Begun | None) -> Updates:
        """The rows that the next drawing goes on from, and the widget that leaves them out."""
        if begun is None:
            return {self.begun: None, self.goes_on: gr.update(value=False, visible=False)}
        kept = "the first row" if begun.rows == 1 else f"the first {begun.rows} rows"
        if begun.region is not None:
            kept = "all but a part"
        label = f"Keep {kept} of tokens, which the restored picture was given"
        return {self.begun: begun, self.goes_on: gr.update(value=True, visible=True, label=label)}

    @property
    def restored_parts(self) -> list[Any]:
        """The components that `showing` changes."""
        return [self.caption, self.begun, self.goes_on, *self.panel.inputs]


def example_chips(captions: tuple[str, ...]) -> str:
    """Captions to click; the room for them where there are none yet."""
    chips = "".join(
        f'<button type="button" data-example="{place}">{escape(shown(caption, 60))}</button>'
        for place, caption in enumerate(captions)
    )
    said = "<span>Try</span>" if captions else ""
    return f'<div class="examples" role="group" aria-label="Examples">{said}{chips}</div>'
