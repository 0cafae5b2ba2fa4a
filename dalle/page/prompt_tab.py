"""The tab that goes on from a given picture: a part of it is kept, the rest is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from dalle.image_prompt import prepare, seam_preview
from dalle.page import tiles
from dalle.page.asking import client_of
from dalle.page.drawn import Collection, Drawn
from dalle.page.easel import Easel, Shared, Updates
from dalle.page.facts import ModelFacts
from dalle.page.faults import PageFault, guarded
from dalle.page.given import Given, given_picture
from dalle.page.html import html
from dalle.page.service import Task
from dalle.page.variations import varying
from dalle.page.widgets import SettingsPanel
from dalle.transforms import TRANSFORMS, transform_caption

CANDIDATES, KEEP = 16, 9
SHEET_CANDIDATES = 4
"""Most candidates of each transform when all are drawn."""
TOP, ALL_BUT, ON_TOP = "Keep its top", "All but a part", "Whole picture on top"
LAYOUTS = {TOP: "top-half", ALL_BUT: "top-half", ON_TOP: "place-on-top"}
CROPS = {"Cut the centre": "center", "Cut from the top": "top", "Pad": "pad"}
AXES = (1, 0, 1, 0)
"""Axes of the token grid on which a region's left, top, right and bottom lie."""
SHAPE = 3 + len(AXES)
"""Widgets that say what is kept of the picture."""
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
                    list(LAYOUTS), value=TOP, label="What is kept", min_width=200
                )
                self.rows = gr.Slider(
                    0, facts.grid[0] - 1, facts.grid[0] // 2, step=1, buttons=[],
                    label="Kept rows of tokens",
                    info=f"Of {facts.grid[0]}; each is {facts.stride} pixels high",
                )  # fmt: skip
                with gr.Group(visible=False) as self.part:
                    with gr.Row():
                        left = self._edge("Left edge", facts.grid[1], 1)
                        right = self._edge("Right edge", facts.grid[1], 3)
                    with gr.Row():
                        top = self._edge("Top edge", facts.grid[0], 1)
                        bottom = self._edge("Bottom edge", facts.grid[0], 3)
                self.edges = [left, top, right, bottom]
                self.crop = gr.Radio(list(CROPS), value="Cut the centre", label=_crop_label(facts))
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

    @staticmethod
    def _edge(label: str, cells: int, quarters: int) -> gr.Slider:
        """A slider for one edge of the part that is drawn, which begins in the middle."""
        begin = cells * quarters // 4
        return gr.Slider(0, cells, begin, step=1, buttons=[], label=label, min_width=130)

    def connect(self) -> None:
        """Let the widgets act."""
        easel, panel = self.easel, self.panel
        easel.connect()
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        shape = [self.layout, self.crop, self.rows, *self.edges]
        self.picture.change(
            self._read, [self.picture, self.given, *shape], [self.given, self.kept],
            concurrency_limit=4, **quiet,
        )  # fmt: skip
        gr.on(
            [self.layout.change, self.crop.change, self.rows.change]
            + [edge.change for edge in self.edges],
            self._show, [self.given, *shape], self.kept, queue=False, trigger_mode="always_last",
            **quiet,
        )  # fmt: skip
        self.layout.change(
            lambda layout: {
                self.rows: gr.update(visible=layout != ALL_BUT),
                self.part: gr.update(visible=layout == ALL_BUT),
            },
            self.layout, [self.rows, self.part], queue=False, **quiet,
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
        *shape: Any,
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
                return {self.given: given, self.kept: self._show(given, *shape)}
        except PageFault as fault:
            note = tiles.status(str(fault), tone="fault")
            return {self.given: None, self.kept: note}

    def _show(self, given: Given | None, *shape: Any) -> str:
        """The picture with what is drawn in grey, and what is kept or drawn outlined."""
        if given is None:
            return BLANK
        facts = self.service.facts
        try:
            asked = self._kept(shape)
            prepared = prepare(
                given.picture,
                image_px=facts.image_px,
                layout=asked["layout"],
                crop=asked["crop"],
                rows=None if (rows := asked.get("keep_rows")) is None else int(rows),
                stride=facts.stride,
                region=asked.get("region"),
            )
        except (PageFault, TypeError, ValueError) as err:
            return tiles.status(str(err), tone="notice")
        notes = "; ".join(prepared.notes)
        shown = seam_preview(prepared.image, prepared.outline)
        what = f"the upper {prepared.rows} rows are kept" if prepared.rows != 1 else "a row is kept"
        if prepared.region is not None:
            what = "all but the outlined part is kept"
        return tiles.framed(shown, f"The picture as the model is given it; {what}", notes)

    def _kept(self, shape: Sequence[Any]) -> dict[str, Any]:
        """What the widgets of the given picture ask for.

        Raises:
            PageFault: They ask for a part of nothing.
        """
        layout, crop, rows, *edges = shape
        asked = {"layout": LAYOUTS.get(layout, layout), "crop": CROPS.get(crop, crop)}
        if layout != ALL_BUT:
            return {**asked, "keep_rows": rows}
        sizes = [self.service.facts.grid[axis] for axis in AXES]
        if not all(
            isinstance(edge, int | float) and 0 <= edge <= size
            for edge, size in zip(edges, sizes, strict=True)
        ):
            across, down = sizes[:2]
            raise PageFault(
                f"the edges of the part must be from 0 to {across} across and 0 to {down} down"
            )
        left, top, right, bottom = edges
        if left >= right or top >= bottom:
            raise PageFault(
                "the part is empty; its left edge must come before its right one, and its top edge "
                "before its bottom one"
            )
        region = [edge / size for edge, size in zip(edges, sizes, strict=True)]
        return {**asked, "region": region}

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
        *values: Any,
    ) -> Iterator[Updates]:
        shape, (caption, earlier, *asked) = values[:SHAPE], values[SHAPE:]

        def steps() -> Iterator[Updates]:
            there = _there(given)
            settings = self.panel.read(
                asked, caption=caption, image=there.name, **self._kept(shape)
            )
            task = Task(settings=settings, picture=there.picture)
            shown = self.panel.showing_seed(settings)
            yield from self.easel.drawing([task], earlier, request, also=shown)

        yield from self.easel.guarded(steps)

    def _draw_all(
        self,
        request: gr.Request,
        given: Given | None,
        *values: Any,
    ) -> Iterator[Updates]:
        (_, _, rows, *_), (subject, earlier, *asked) = values[:SHAPE], values[SHAPE:]

        def steps() -> Iterator[Updates]:
            there = _there(given)
            candidates, _, *others = asked  # whatever a browser sent, until it is read
            if isinstance(candidates, int | float):
                candidates = min(candidates, SHEET_CANDIDATES)
            tasks, seeded = [], self.panel.settled((candidates, 1, *others))
            for one in TRANSFORMS:
                settings = self.panel.read(
                    seeded,
                    caption=_transformed(one.name, subject),
                    image=there.name,
                    keep_rows=rows,
                    layout="place-on-top",  # as a transform always has it
                )
                tasks.append(Task(settings=settings, picture=there.picture))
            shown = {**self.panel.showing_seed(tasks[0].settings), self.layout: ON_TOP}
            sheet = Collection(
                title=f"every transform of {subject.strip() or 'a picture'}",
                labels=tuple(one.name for one in TRANSFORMS),
            )
            yield from self.easel.drawing(tasks, earlier, request, collection=sheet, also=shown)

        yield from self.easel.guarded(steps)

    def showing(self, drawn: Drawn) -> Updates:
        """The widgets as they were for `drawn`, if it was drawn here."""
        settings = drawn.settings[0]
        layouts = {"top-half": TOP, "place-on-top": ON_TOP}
        crops = {value: name for name, value in CROPS.items()}
        updates: Updates = {
            self.caption: settings.caption or "",
            self.layout: layouts[settings.layout] if settings.region is None else ALL_BUT,
            self.crop: crops[settings.crop],
            **self.panel.filled(settings),
        }
        if type(settings.keep_rows) is int:
            updates[self.rows] = settings.keep_rows
        if settings.region is not None:
            grid = self.service.facts.grid
            for slider, part, axis in zip(self.edges, settings.region, AXES, strict=True):
                updates[slider] = round(part * grid[axis])
        if drawn.picture is not None and settings.image is not None:
            given = Given(picture=drawn.picture, name=settings.image)
            updates |= {self.picture: drawn.picture, self.given: given}
        return updates

    @property
    def restored_parts(self) -> list[Any]:
        """The components that `showing` changes."""
        return [
            *(self.caption, self.layout, self.crop, self.rows, *self.edges),
            *(self.picture, self.given),
            *self.panel.inputs,
        ]


def _crop_label(facts: ModelFacts) -> str:
    """What the choice between cutting and padding is for."""
    height, width = facts.image_px
    return "To make it square" if height == width else f"To make it {width} × {height}"


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
