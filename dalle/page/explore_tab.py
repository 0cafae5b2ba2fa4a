"""The tab that shows how the model sees, what its settings do, and what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import gradio as gr

from dalle.page import tiles
from dalle.page.asking import client_of, has_left
from dalle.page.drawn import Collection, Drawn, Earlier, GridChoices
from dalle.page.easel import Easel, Shared, Updates
from dalle.page.explore import explore
from dalle.page.faults import PageFault, guarded
from dalle.page.given import given_picture
from dalle.page.grid import Cell, GridPlan, join, plan, read_axis
from dalle.page.html import html
from dalle.page.service import Task
from dalle.page.widgets import SettingsPanel

CELL_CANDIDATES = 4
NO_AXIS = "nothing"
AXES = {
    "words in [[ ]]": "words",
    "temperature": "temperature",
    "top-k": "top_k",
    "top-p": "top_p",
    "guidance": "guidance_scale",
    "seed": "seed",
}
BLANK = (
    '<section class="explore blank"><div class="panels">'
    + '<figure><span class="hole"></span><figcaption>{}</figcaption></figure>' * 3
    + "</div></section>"
).format("Picture", "Tokens", "Reconstruction")


class ExploreTab:
    """Tokens of a picture, grids over two settings, the model card."""

    def __init__(self, shared: Shared, *, ranks: bool) -> None:
        """Build the tab where it is called; `connect` brings it to life."""
        self.shared = shared
        self.service = shared.service
        with gr.Tabs(elem_classes="inner-tabs") as self.views:
            with gr.Tab("How it sees"):
                self._build_sight()
            with gr.Tab("X/Y grid", id="grid"):
                self._build_grid(ranks=ranks)
            with gr.Tab("Model card"):
                gr.Markdown(
                    _lowered(self.service.facts.card) or "This model comes without a card.",
                    elem_classes="card",
                )

    def _build_sight(self) -> None:
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=1, min_width=260):
                self.picture = given_picture(
                    label="Picture to look at",
                    sources=["upload", "clipboard"],
                    height=280,
                    alt_text="The picture to look at",
                    placeholder="Drop a picture, or send one here with Explore",
                )
                gr.Markdown(
                    "The discrete VAE turns a picture into a grid of tokens, each the number of an "
                    "entry of its codebook. The transformer reads and draws nothing but these.",
                    elem_classes="quiet",
                )
            with gr.Column(scale=3, min_width=320):
                self.seen = html(BLANK, elem_classes="seen")

    def _build_grid(self, *, ranks: bool) -> None:
        facts, limits = self.service.facts, self.service.limits
        self.easel = Easel(self.shared, "grid", verb="Draw grid", blanks=9, collects=True)
        axes = [name for name in AXES if name != "guidance" or facts.is_guided]
        with gr.Row(elem_classes="ask"):
            self.caption = gr.Textbox(
                "a fox on a [[red, blue, green]] background",
                label="Caption",
                info="Words in [[ ]] take turns",
                max_lines=1,
                max_length=limits.caption_chars,
                elem_classes="caption",
                scale=1,
            )
            self.easel.buttons()
        with gr.Row():
            self.x = gr.Dropdown(axes, value="words in [[ ]]", label="Across", min_width=140)
            self.x_values = gr.Textbox(
                "", label="Values across", placeholder="0.6, 0.8, 1", max_lines=1, min_width=140
            )
            self.y = gr.Dropdown([NO_AXIS, *axes], value="temperature", label="Down", min_width=140)
            self.y_values = gr.Textbox(
                "0.5, 0.8, 1.1", label="Values down", max_lines=1, min_width=140
            )
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=3, min_width=320, elem_classes="left"):
                self.easel.stage_parts()
                self.joined = html("", elem_classes="joined")
            with gr.Column(scale=2, min_width=300, elem_classes="right"):
                self.easel.chosen_parts()
                self.panel = SettingsPanel(
                    facts, limits, ranks=ranks, candidates=CELL_CANDIDATES, keep=None
                )
                self.easel.code_parts()

    def connect(self) -> None:
        """Let the widgets act."""
        easel = self.easel
        easel.connect()
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        self.picture.change(self._look, self.picture, self.seen, concurrency_limit=None, **quiet)
        gr.on(
            [easel.go.click, self.caption.submit],
            self._draw,
            [
                *(self.caption, self.x, self.x_values, self.y, self.y_values),
                *(self.shared.earlier, *self.panel.inputs),
            ],
            [*easel.outputs, self.joined, self.panel.seed],
            trigger_mode="once",
            concurrency_limit=None,
            **quiet,
        )

    def _look(self, request: gr.Request, path: str | None) -> str:
        """A picture through the model's eyes."""
        if path is None:
            return BLANK
        try:
            client, admission = client_of(request), self.service.admission
            with guarded("exploring"), admission.enter(client) as ticket:
                with ticket.aside():
                    picture = self.service.uploads.read(path)
                with self.service.turn(ticket, has_left=has_left) as model:
                    found = explore(model, picture)
        except PageFault as fault:
            return tiles.status(str(fault), tone="fault")
        return tiles.exploration(found, self.service.facts.codebook_size)

    def _draw(
        self,
        request: gr.Request,
        caption: str,
        x: str,
        x_values: str,
        y: str,
        y_values: str,
        earlier: Earlier,
        *values: Any,
    ) -> Iterator[Updates]:
        def steps() -> Iterator[Updates]:
            settings = self.panel.read(values, caption=caption, keep=1)
            chosen = GridChoices(settings=settings, x=x, x_values=x_values, y=y, y_values=y_values)
            grid = self._plan(chosen)
            tasks = [Task(settings=cell.settings) for cell in grid.cells]
            sheet = Collection(
                title=caption,
                labels=tuple(_label(grid, cell) for cell in grid.cells),
                columns=len(grid.x.values),
                grid=chosen,
            )
            shown = {**self.panel.showing_seed(settings), self.joined: ""}
            for updates in self.easel.drawing(
                tasks, earlier, request, collection=sheet, also=shown
            ):
                drawn = updates.get(self.easel.current)
                if drawn is not None:
                    updates = {**updates, self.joined: _joined(drawn, chosen, grid)}
                yield updates

        yield from self.easel.guarded(steps)

    def _plan(self, chosen: GridChoices) -> GridPlan:
        caption = chosen.settings.caption
        across = read_axis(AXES.get(chosen.x, chosen.x), chosen.x_values, caption=caption)
        down = None
        if chosen.y != NO_AXIS:
            down = read_axis(AXES.get(chosen.y, chosen.y), chosen.y_values, caption=caption)
        return plan(chosen.settings, across, down, limits=self.service.limits)

    def showing(self, drawn: Drawn) -> Updates:
        """The grid's widgets as they were for `drawn`, and the grid as one picture again.

        Raises:
            PageFault: They cannot show a value.
        """
        assert drawn.collection is not None, "a grid is a collection"
        chosen = drawn.collection.grid
        assert chosen is not None, "a grid knows its axes"
        return {
            self.views: gr.Tabs(selected="grid"),
            self.caption: chosen.settings.caption or "",
            self.x: chosen.x,
            self.x_values: chosen.x_values,
            self.y: chosen.y,
            self.y_values: chosen.y_values,
            self.joined: _joined(drawn, chosen, self._plan(chosen)),
            **self.panel.filled(chosen.settings),
        }

    @property
    def restored_parts(self) -> list[Any]:
        """The components that `showing` changes."""
        return [
            *(self.views, self.caption, self.x, self.x_values, self.y, self.y_values),
            *(self.joined, *self.panel.inputs),
        ]


def _joined(drawn: Drawn, chosen: GridChoices, grid: GridPlan) -> str:
    """The whole grid as one picture with labels; nothing if it was stopped before its end."""
    if len(drawn.images) < len(grid.cells):
        return ""
    joined = join(grid, [image.image for image in drawn.images])
    alt = f"Grid of {drawn.title}: {chosen.x} across, {chosen.y} down"
    return tiles.framed(joined, alt, "As one picture")


def _label(grid: GridPlan, cell: Cell) -> str:
    """What stands below a cell: its values on both axes."""
    across = grid.x.labels[cell.column]
    return across if grid.y is None else f"{across}, {grid.y.labels[cell.row]}"


def _lowered(card: str) -> str:
    """A model card with its headings one level lower, below those of the page.

    Code between fences stays as it is: what begins with # there is a comment.
    """
    parts = re.split(r"(^```.*?^```)", card, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [re.sub(r"^(#{1,5} )", r"#\1", part, flags=re.MULTILINE) for part in parts[::2]]
    return "".join(parts)
