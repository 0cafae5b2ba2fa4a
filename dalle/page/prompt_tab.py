"""The tab that goes on from a given picture: its upper part is kept, the rest is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from dalle.image_prompt import prepare, seam_preview
from dalle.page import tiles
from dalle.page.asking import client_of
from dalle.page.drawn import Collection, Drawn, Earlier
from dalle.page.easel import Easel, Shared, Updates
from dalle.page.faults import PageFault, guarded
from dalle.page.given import Given, given_picture
from dalle.page.html import html
from dalle.page.service import Task
from dalle.page.settings import DrawSettings
from dalle.page.variations import varying
from dalle.page.widgets import SettingsPanel
from dalle.transforms import TRANSFORMS, transform_caption

CANDIDATES, KEEP = 16, 9
SHEET_CANDIDATES = 4
"""Most candidates of each transform when all are drawn."""
ON_TOP = "Whole picture on top"
LAYOUTS = {"Keep its top": "top-half", ON_TOP: "place-on-top"}
CROPS = {"Cut the centre": "center", "Cut from the top": "top", "Pad": "pad"}
NO_TRANSFORM = "none"
EXAMPLE = Path(__file__).parent / "examples" / "fox.png"
BLANK = (
    '<figure class="framed blank"><span class="hole"></span><figcaption>'
    "Give a picture to see which part of it is kept</figcaption></figure>"
)


class PromptTab:
    """Picture, and caption or none, to completed pictures."""

    def __init__(self, shared: Shared, *, ranks: bool) -> None:
        """Build the tab where it is called; `connect` brings it to life."""
        self.shared = shared
        self.service = shared.service
        facts, limits = self.service.facts, self.service.limits
        self.easel = Easel(shared, "prompt", verb="Complete", blanks=KEEP)
        self.given = gr.State(None, time_to_live=6 * 3600)
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=2, min_width=300, elem_classes="right"):
                self.picture = given_picture(
                    label="Picture",
                    sources=["upload", "clipboard", "webcam"],
                    height=260,
                    alt_text="The picture to go on from",
                    placeholder="Drop a picture, paste one, or click to choose",
                )
                with gr.Row(elem_classes="chosen-actions"):
                    self.example = gr.Button("Try a fox", size="sm", min_width=100)
                self.layout = gr.Radio(
                    list(LAYOUTS), value="Keep its top", label="What is kept", min_width=200
                )
                self.rows = gr.Slider(
                    0, facts.grid[0] - 1, facts.grid[0] // 2, step=1, buttons=[],
                    label="Kept rows of tokens",
                    info=f"Of {facts.grid[0]}; each is {facts.stride} pixels high",
                )  # fmt: skip
                self.crop = gr.Radio(list(CROPS), value="Cut the centre", label="To make it square")
                self.kept = html(BLANK)
            with gr.Column(scale=3, min_width=320, elem_classes="left"):
                with gr.Row(elem_classes="ask"):
                    self.caption = gr.Textbox(
                        label="Caption",
                        placeholder="What it should become, or nothing",
                        max_lines=1,
                        max_length=limits.caption_chars,
                        elem_classes="caption",
                        scale=1,
                    )
                    self.easel.buttons()
                with gr.Row(elem_classes="transforms"):
                    self.subject = gr.Textbox(
                        label="It shows", placeholder="fox", max_lines=1, max_length=80,
                        min_width=110, scale=1,
                    )  # fmt: skip
                    self.transform = gr.Dropdown(
                        [NO_TRANSFORM, *(one.name for one in TRANSFORMS)], value=NO_TRANSFORM,
                        label="Transform", min_width=180, scale=2,
                    )  # fmt: skip
                    self.sheet = gr.Button(
                        "Draw every transform", size="sm", min_width=150, scale=0
                    )
                    self.easel.others = (self.sheet,)
                self.easel.stage_parts()
                self.easel.chosen_parts()
                self.panel = SettingsPanel(
                    facts, limits, ranks=ranks, candidates=CANDIDATES, keep=KEEP
                )
                self.easel.code_parts()

    def connect(self) -> None:
        """Let the widgets act."""
        easel, panel = self.easel, self.panel
        easel.connect()
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        shape = [self.layout, self.crop, self.rows]
        self.picture.change(
            self._read, [self.picture, self.given, *shape], [self.given, self.kept],
            concurrency_limit=4, **quiet,
        )  # fmt: skip
        gr.on(
            [self.layout.change, self.crop.change, self.rows.change],
            self._show, [self.given, *shape], self.kept, queue=False, trigger_mode="always_last",
            **quiet,
        )  # fmt: skip
        self.example.click(lambda: str(EXAMPLE), None, self.picture, queue=False, **quiet)
        words = [self.transform, self.subject]
        gr.on(
            [self.transform.input, self.subject.input],
            self._word, words, [self.caption, self.layout], queue=False, **quiet,
        )  # fmt: skip
        draw: dict[str, Any] = {
            "outputs": [*easel.outputs, panel.seed],
            "trigger_mode": "once",
            "concurrency_limit": None,
            **quiet,
        }
        given = [self.given, *shape, self.caption, self.shared.earlier]
        gr.on([easel.go.click, self.caption.submit], self._draw, [*given, *panel.inputs], **draw)
        given[given.index(self.caption)] = self.subject
        every = {**draw, "outputs": [*draw["outputs"], self.layout]}
        self.sheet.click(self._draw_all, [*given, *panel.inputs], **every)
        easel.vary.click(
            varying(easel, panel),
            [easel.current, easel.picked, self.shared.earlier, *panel.inputs],
            **draw,
        )

    # ------------------------------------------------------------------------ the given picture

    def _read(
        self,
        request: gr.Request,
        path: str | None,
        before: Given | None,
        layout: str,
        crop: str,
        rows: float,
    ) -> Updates:
        """Decode a new picture, once, and show what is kept of it."""
        if path is None:
            return {self.given: None, self.kept: BLANK}
        try:
            with guarded("reading a picture"):
                admission = self.service.admission
                with admission.enter(client_of(request)) as ticket, ticket.aside():
                    image = self.service.uploads.read(path)
                given = Given(picture=image, name=Path(path).name).named_like(before)
                return {self.given: given, self.kept: self._show(given, layout, crop, rows)}
        except PageFault as fault:
            note = tiles.status(str(fault), tone="fault")
            return {self.given: None, self.kept: note}

    def _show(self, given: Given | None, layout: str, crop: str, rows: float) -> str:
        """The part of the picture that is kept, outlined."""
        if given is None:
            return BLANK
        facts = self.service.facts
        try:
            prepared = prepare(
                given.picture,
                image_px=facts.image_px,
                layout=LAYOUTS.get(layout, layout),  # type: ignore[arg-type]
                crop=CROPS.get(crop, crop),  # type: ignore[arg-type]
                rows=int(rows),
                stride=facts.stride,
            )
        except ValueError as err:
            return tiles.status(str(err), tone="notice")
        notes = "; ".join(prepared.notes)
        shown = seam_preview(prepared.image, prepared.kept_box)
        alt = f"The picture as the model is given it; the upper {int(rows)} rows are kept"
        return tiles.framed(shown, alt, notes)

    def _word(self, transform: str, subject: str) -> Updates:
        """The caption that a transform is asked for with."""
        if transform == NO_TRANSFORM:
            return {self.caption: gr.skip()}
        try:
            caption = transform_caption(transform, subject.strip() or None)
        except ValueError:
            return {self.caption: gr.skip()}
        return {self.caption: caption, self.layout: ON_TOP}

    # ------------------------------------------------------------------------------ drawing

    def _draw(
        self,
        request: gr.Request,
        given: Given | None,
        layout: str,
        crop: str,
        rows: float,
        caption: str,
        earlier: Earlier,
        *values: Any,
    ) -> Iterator[Updates]:
        def steps() -> Iterator[Updates]:
            there = _there(given)
            settings = self._settings(
                values, name=there.name, layout=layout, crop=crop, rows=rows, caption=caption
            )
            task = Task(settings=settings, picture=there.picture)
            shown = self.panel.showing_seed(settings)
            yield from self.easel.drawing([task], earlier, request, also=shown)

        yield from self.easel.guarded(steps)

    def _draw_all(
        self,
        request: gr.Request,
        given: Given | None,
        layout: str,
        crop: str,
        rows: float,
        subject: str,
        earlier: Earlier,
        *values: Any,
    ) -> Iterator[Updates]:
        del layout, crop  # a transform always has the whole picture on top

        def steps() -> Iterator[Updates]:
            there = _there(given)
            candidates, _, *others = values  # whatever a browser sent, until it is read
            if isinstance(candidates, int | float):
                candidates = min(candidates, SHEET_CANDIDATES)
            tasks, seeded = [], self.panel.settled((candidates, 1, *others))
            for one in TRANSFORMS:
                settings = self._settings(
                    seeded,
                    name=there.name,
                    layout="place-on-top",
                    crop="center",
                    rows=rows,
                    caption=_transformed(one.name, subject),
                )
                tasks.append(Task(settings=settings, picture=there.picture))
            shown = {**self.panel.showing_seed(tasks[0].settings), self.layout: ON_TOP}
            sheet = Collection(
                title=f"every transform of {subject.strip() or 'a picture'}",
                labels=tuple(one.name for one in TRANSFORMS),
            )
            yield from self.easel.drawing(tasks, earlier, request, collection=sheet, also=shown)

        yield from self.easel.guarded(steps)

    def _settings(
        self,
        values: Any,
        *,
        name: str,
        layout: str,
        crop: str,
        rows: float,
        caption: str,
    ) -> DrawSettings:
        return self.panel.read(
            values,
            caption=caption,
            image=name,
            keep_rows=rows,
            layout=LAYOUTS.get(layout, layout),
            crop=CROPS.get(crop, crop),
        )

    def showing(self, drawn: Drawn) -> Updates:
        """The widgets as they were for `drawn`, if it was drawn here."""
        settings = drawn.settings[0]
        layouts = {value: name for name, value in LAYOUTS.items()}
        crops = {value: name for name, value in CROPS.items()}
        updates: Updates = {
            self.caption: settings.caption or "",
            self.layout: layouts[settings.layout],
            self.crop: crops[settings.crop],
            **self.panel.filled(settings),
        }
        if type(settings.keep_rows) is int:
            updates[self.rows] = settings.keep_rows
        if drawn.picture is not None and settings.image is not None:
            given = Given(picture=drawn.picture, name=settings.image)
            updates |= {self.picture: drawn.picture, self.given: given}
        return updates

    @property
    def restored_parts(self) -> list[Any]:
        """The components that `showing` changes."""
        return [
            *(self.caption, self.layout, self.crop, self.rows, self.picture, self.given),
            *self.panel.inputs,
        ]


def _transformed(transform: str, subject: str) -> str:
    """The caption of a transform of what the person says the picture shows.

    Raises:
        PageFault: That is too long, or nothing that can be read.
    """
    try:
        return transform_caption(transform, subject.strip() or None)
    except ValueError as err:
        raise PageFault(str(err)) from err


def _there(given: Given | None) -> Given:
    if given is None:
        raise PageFault("give a picture first: drop, paste or choose one, or take a photo")
    return given
