"""The whole page: a heading, four tabs, what was drawn earlier, and the endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from dalle.page import tiles
from dalle.page.asking import place_of
from dalle.page.batch_tab import BatchTab
from dalle.page.draw_tab import DrawTab, example_chips
from dalle.page.drawn import Drawn, Earlier
from dalle.page.easel import Easel, Shared, Updates
from dalle.page.endpoints import Endpoints
from dalle.page.explore_tab import ExploreTab
from dalle.page.facts import ModelFacts
from dalle.page.faults import PageFault, guarded
from dalle.page.html import html
from dalle.page.prompt_tab import EXAMPLE, PromptTab
from dalle.page.quick_start import describe_once, unserved
from dalle.page.received import only_received
from dalle.page.service import Service
from dalle.page.sweep import CACHE_SECONDS

TITLE = "Captions in, pictures out"
LOOK_S = 0.02
"""How often the page looks whether an event has come."""
WATCH_S = 1
"""How often a page that waits for the model hears that it is still being loaded."""
RESTORE = """
element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-restore]');
  if (card) trigger('restore', {place: Number(card.dataset.restore)});
});
"""


class Page(gr.Blocks):
    """Gradio's blocks, but files must be uploads, errors tell an id, and the log no caption."""

    async def process_api(self, block_fn: Any, inputs: list[Any], *args: Any, **more: Any) -> Any:
        """Answer one event; see `gradio.Blocks.process_api`."""
        try:
            with guarded("answering"):
                try:
                    received = only_received(inputs)
                    return await super().process_api(block_fn, received, *args, **more)  # type: ignore[arg-type]
                except gr.Error as err:  # of a widget that refuses its value
                    raise PageFault(str(err.message)) from None
        except PageFault as fault:
            raise gr.Error(_shown(fault), print_exception=False) from None


def _shown(fault: PageFault) -> str:
    """A fault as text that can be sent, whatever the value was that it quotes."""
    return escape(str(fault).encode("utf-8", "backslashreplace").decode(), quote=False)


def build_page(service: Service, *, ranks: bool) -> gr.Blocks:
    """The page, ready to be mounted.

    Args:
        service: What draws.
        ranks: Whether there is a CLIP to rank by.
    """
    limits = service.limits
    with unserved():
        page = Page(
            title=TITLE, analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)
        )
        # Gradio would keep ten thousand, a third of a MiB each.
        page.state_session_capacity = limits.sessions
        with page:
            _build(service, page, ranks=ranks)
        # Every request begins at once and then waits for its turn in our own queue, which tells
        # how long, and refuses at once. Gradio's only keeps a flood from filling memory.
        page.queue(
            max_size=4 * (limits.waiting + limits.running),
            default_concurrency_limit=2 * (limits.waiting + limits.running),
            api_open=False,
        )
        # Gradio looks a thousand times a second whether an event has come, and a hundred times for
        # progress of its own kind, which we do not report: a tenth of a core, for a page at rest.
        page._queue.sleep_when_free = LOOK_S
        page._queue.progress_update_sleep_when_free = WATCH_S
        describe_once(page)
    return page


def mounted(page: gr.Blocks, **settings: Any) -> FastAPI:
    """A server of `page` alone.

    Args:
        page: What `build_page` built.
        settings: As `gradio.mount_gradio_app` takes them.
    """
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # Wherever the server was started, the picture to try may be shown.
    given = [str(EXAMPLE.parent.resolve())]
    gr.mount_gradio_app(server, page, path="/", ssr_mode=False, allowed_paths=given, **settings)
    (page.app,) = (route.app for route in server.routes if isinstance(route, Mount))  # type: ignore[assignment]
    # What Gradio's own `launch` sets: without it, no path is checked before a file is copied, and
    # uploaded SVG files are shown as part of the page.
    page.has_launched = page.is_running = True
    return server


def is_awaited(page: gr.Blocks, event: str) -> bool:
    """Whether a program that has called an endpoint has still to read the answer."""
    return any(event in events for events in list(page._queue.pending_event_ids_session.values()))


def _build(service: Service, page: gr.Blocks, *, ranks: bool) -> None:
    facts = service.facts
    with gr.Row(elem_classes="masthead"):
        html(f"<h1>{TITLE}</h1>", elem_classes="title")
        ready = html(_model_chip(facts, is_ready=service.is_ready), elem_classes="model")
    earlier: gr.State = gr.State(Earlier(), time_to_live=6 * CACHE_SECONDS)
    shared = Shared(
        service=service,
        earlier=earlier,
        strip=html(tiles.history_strip((), None), js_on_load=RESTORE, render=False),
    )
    with gr.Tabs(elem_classes="main-tabs") as tabs:
        with gr.Tab("Draw", id="draw"):
            draw = DrawTab(shared, ranks=ranks)
        with gr.Tab("Image prompt", id="prompt"):
            prompt = PromptTab(shared, ranks=ranks)
        with gr.Tab("Explore", id="explore"):
            explore = ExploreTab(shared, ranks=ranks)
        with gr.Tab("Batch", id="batch"):
            batch = BatchTab(shared, ranks=ranks)
    shared.strip.render()  # type: ignore[no-untyped-call]
    for tab in (draw, prompt, explore, batch):
        tab.connect()
    easels = {
        easel.place: easel for easel in (draw.easel, prompt.easel, explore.easel, batch.easel)
    }
    for easel in easels.values():
        _connect_sending(easel, tabs, prompt, explore)
    _connect_restoring(shared, tabs, draw=draw, prompt=prompt, explore=explore, easels=easels)
    page.load(
        _watch_loading(service, ready, draw.examples), None, [ready, draw.examples],
        api_visibility="private", show_progress="hidden", concurrency_limit=None,
    )  # fmt: skip
    Endpoints(service).add(page)


def _connect_sending(easel: Easel, tabs: gr.Tabs, prompt: PromptTab, explore: ExploreTab) -> None:
    """Send a chosen picture to another tab."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    for button, target, tab in (
        (easel.use, prompt.picture, "prompt"),
        (easel.look, explore.picture, "explore"),
    ):

        def send(
            current: Drawn | None, picked: int, target: Any = target, tab: str = tab
        ) -> Updates:
            try:
                with guarded("sending a picture"):
                    return {
                        target: easel.chosen_file(current, picked),
                        tabs: gr.Tabs(selected=tab),
                    }
            except PageFault as fault:
                return {easel.status: tiles.status(str(fault), tone="fault")}

        button.click(
            send, [easel.current, easel.picked], [target, tabs, easel.status], queue=False, **quiet
        )


def _connect_restoring(
    shared: Shared,
    tabs: gr.Tabs,
    *,
    draw: DrawTab,
    prompt: PromptTab,
    explore: ExploreTab,
    easels: dict[Any, Easel],
) -> None:
    """Bring an earlier result back, onto the tab where it was drawn, with its settings."""

    def restore(earlier: Earlier, event: gr.EventData) -> Updates:
        place = place_of(event)
        if not 0 <= place < len(earlier.drawn):
            return {tabs: gr.skip()}
        drawn = earlier.drawn[place]
        updates: Updates = easels[drawn.place].showing(drawn, earlier)
        updates[tabs] = gr.Tabs(selected="explore" if drawn.place == "grid" else drawn.place)
        updates[easels[drawn.place].status] = tiles.status(f"Drawn earlier: {drawn.title}")
        try:
            if drawn.place == "draw":
                updates |= draw.showing(drawn)
            elif drawn.place == "prompt":
                updates |= prompt.showing(drawn)
            elif drawn.place == "grid":
                updates |= explore.showing(drawn)
        except PageFault as fault:
            updates[easels[drawn.place].status] = tiles.status(str(fault), tone="notice")
        return updates

    outputs = [tabs, *draw.restored_parts, *prompt.restored_parts, *explore.restored_parts]
    outputs += [part for easel in easels.values() for part in easel.outputs]
    shared.strip.restore(
        restore, shared.earlier, list(dict.fromkeys(outputs)), queue=False,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip


def _watch_loading(service: Service, ready: Any, examples: Any) -> Any:
    """Says when the model is ready, and then what it suggests, where nobody chose captions."""

    def watch() -> Iterator[Updates]:
        while not service.is_ready_within(WATCH_S):
            yield {ready: _model_chip(service.facts, is_ready=False)}
        chip = _model_chip(service.facts, is_ready=True)
        yield {ready: chip}
        if service.facts.examples:
            return
        while not service.has_examples_within(WATCH_S):
            yield {ready: chip}
        yield {examples: example_chips(service.examples)}

    return watch


def _model_chip(facts: ModelFacts, *, is_ready: bool) -> str:
    height, width = facts.image_px
    state = "ready" if is_ready else "loading"
    return (
        f'<p class="chip {state}" role="status"><i></i>{escape(facts.title)} · '
        f"{width} × {height} px · {state}</p>"
    )
