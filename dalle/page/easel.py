"""Where pictures come into being on the page: a stage, what one can do with it, and the settings.

Three tabs have an easel each. What a session has drawn lies in its `gr.State`, never here: one
easel serves everybody.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from dalle.labels import NO_CAPTION
from dalle.page import tiles
from dalle.page.asking import client_of, place_of
from dalle.page.code import CodeView
from dalle.page.drawn import Collection, Drawn, Earlier, Place
from dalle.page.exports import save_pictures, save_sheet, save_zip
from dalle.page.faults import PageFault, guarded
from dalle.page.html import html
from dalle.page.progress import Progress, paced
from dalle.page.service import Service, StillDrawingError, Task

if TYPE_CHECKING:
    from dalle.picture import GeneratedImage

Updates = dict[Any, Any]
"""Components and what they become; the others stay as they are."""
PICK = """
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-pick]');
  if (!tile) return;
  for (const other of element.querySelectorAll('[data-pick]'))
    other.setAttribute('aria-pressed', String(other === tile));
  trigger('pick', {place: Number(tile.dataset.pick)});
});
"""
SAVE = "(file) => { if (file) window.dallePage.save(file); }"
_SEEN_TO_STOP = [tiles.status("Stopping after this row"), gr.update(interactive=False)]
STOPPING = f"() => {json.dumps(_SEEN_TO_STOP)}"
"""Shows, the moment it is pressed, that Stop was: in the status line and on the button."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the tabs share: the service, and the state of a session."""

    service: Service
    earlier: gr.State
    """An `Earlier`."""
    strip: gr.HTML
    """Shows what was drawn earlier."""


class Easel:
    """A stage with a button that draws on it and one that stops.

    Build it by calling `buttons`, `stage_parts`, `chosen_parts` and `code_parts` where they belong
    in the layout.
    """

    def __init__(
        self, shared: Shared, place: Place, *, verb: str, blanks: int, collects: bool = False
    ) -> None:
        """Make the parts that other parts refer to.

        Args:
            shared: What the tabs share.
            place: Which tab this is.
            verb: What the button says.
            blanks: Empty tiles to begin with.
            collects: Whether everything drawn here is a collection.
        """
        self.collects = collects
        self.shared = shared
        self.place = place
        self.verb = verb
        self.blanks = blanks
        self.service = shared.service
        self.current = gr.State(None, time_to_live=6 * 3600)
        self.picked = gr.State(0)
        self.others: tuple[gr.Button, ...] = ()
        """Buttons of the tab that draw here as well."""
        self.download = gr.File(visible="hidden", label="Download")

    # --------------------------------------------------------------------------------- layout

    def buttons(self) -> None:
        """The button that draws, and in its place, while it does, the one that stops."""
        self.go = gr.Button(self.verb, variant="primary", elem_classes="go", min_width=120, scale=0)
        self.halt = gr.Button(
            "Stop", variant="stop", elem_classes="halt", min_width=120, scale=0, visible=False
        )

    def stage_parts(self) -> None:
        """The status line, the stage, and what can be done with all of it."""
        self.status = html(tiles.status("Ready."), elem_classes="status-box")
        self.stage = html(tiles.blank_stage(self.blanks), js_on_load=PICK)
        with gr.Row(elem_classes="under-stage"):
            self.everything = gr.Checkbox(
                label="Show all candidates",
                value=False,
                container=False,
                min_width=180,
                visible=not self.collects,
            )
            self.zip = gr.Button("Download all (zip)", size="sm", interactive=False, min_width=140)
            self.sheet = gr.Button("Contact sheet", size="sm", interactive=False, min_width=120)

    def chosen_parts(self) -> None:
        """The chosen picture, and where it can go."""
        self.chosen = html(tiles.chosen(None, 0))
        with gr.Row(elem_classes="chosen-actions"):
            self.use = gr.Button("Use this picture", size="sm", interactive=False, min_width=120)
            self.vary = gr.Button("Variations", size="sm", interactive=False, min_width=100)
            self.look = gr.Button("Explore", size="sm", interactive=False, min_width=90)

    def code_parts(self) -> None:
        """The same drawing as code."""
        self.code = CodeView()

    @property
    def _actions(self) -> tuple[gr.Button, ...]:
        return (self.use, self.vary, self.look, self.zip, self.sheet)

    @property
    def outputs(self) -> list[Any]:
        """Every component that drawing changes."""
        return [
            *(self.go, self.halt, self.status, self.stage, self.everything, self.chosen),
            *(self.current, self.picked, *self.code.parts, *self._actions),
            *(*self.others, self.shared.earlier, self.shared.strip),
        ]

    # -------------------------------------------------------------------------------- drawing

    def drawing(
        self,
        tasks: Sequence[Task],
        earlier: Earlier,
        request: gr.Request,
        *,
        collection: Collection | None = None,
        also: Updates | None = None,
    ) -> Iterator[Updates]:
        """Draw `tasks` on the stage, row after row; or, as a `collection`, one by one.

        `also` is sent with the first update, since each one costs time before the first row.

        Raises:
            StillDrawingError: Something is being drawn here already; it goes on.
        """
        key = self._key(request)
        self.service.check_free(key)
        done: list[tuple[Task, Sequence[GeneratedImage]]] = []
        notices: dict[int, str] = {}
        last = None
        starting = tiles.status("Starting", part=0)
        yield {**self._busy(True), **(also or {}), self.status: starting}
        steps = self.service.draw(tasks, client=client_of(request), key=key)
        with contextlib.closing(steps):  # type: ignore[type-var]
            for step in paced(steps):
                last = step
                if step.result is not None:
                    done.append((tasks[step.task], step.result.images))
                    if step.result.notice is not None:
                        notices[step.task] = step.result.notice
                if step.state not in ("done", "stopped") or step.task + 1 < len(tasks):
                    yield self._shown(step, done, collection)
        assert last is not None, "a job ends with a step"
        if not done:
            yield {**self._busy(False), **self._unfinished(last)}
            return
        drawn = self._drawn(done, collection)
        earlier.add(drawn)
        yield {
            **self._busy(False),
            **self.showing(drawn, earlier),
            self.status: tiles.outcome_status(last, drawn, of=len(tasks), notices=notices),
        }

    def guarded(self, steps: Callable[[], Iterator[Updates]]) -> Iterator[Updates]:
        """The updates of `steps`; what goes wrong becomes a line for the person.

        Raises:
            StillDrawingError: Something is being drawn here already, and has the line and the
                buttons.
        """
        try:
            with guarded("drawing"):
                yield from steps()
        except StillDrawingError:
            raise
        except PageFault as fault:
            yield {**self._busy(False), self.status: tiles.status(str(fault), tone="fault")}

    def _shown(
        self,
        step: Progress,
        done: Sequence[tuple[Task, Sequence[GeneratedImage]]],
        collection: Collection | None,
    ) -> Updates:
        """The stage and the status line as a job goes on."""
        of = 1 if collection is None else len(collection.labels)
        updates: Updates = {self.status: tiles.progress_status(step, of=of)}
        if collection is not None and step.state in ("drawing", "done"):
            finished = [images[0] for _, images in done]
            updates[self.stage] = tiles.collecting_stage(finished, step, collection)
        elif step.state == "drawing":
            updates[self.stage] = tiles.drawing_stage(step)
        return updates

    def _unfinished(self, last: Progress) -> Updates:
        """A job that was stopped before any picture was complete: what there is stays in sight."""
        where = f" at row {last.rows_done} of {last.rows}" if last.rows else ""
        text = f"{last.reason} No picture was complete{where}."
        updates: Updates = {self.status: tiles.status(text, tone="notice")}
        if last.previews:
            updates[self.stage] = tiles.drawing_stage(last)
        return updates

    def _drawn(
        self,
        done: Sequence[tuple[Task, Sequence[GeneratedImage]]],
        collection: Collection | None,
    ) -> Drawn:
        if collection is not None:
            return Drawn(
                place=self.place,
                settings=tuple(task.settings for task, _ in done),
                images=tuple(images[0] for _, images in done),
                title=collection.title,
                picture=done[0][0].picture,
                collection=collection,
            )
        (task, images), *_ = done
        return Drawn(
            place=self.place,
            settings=(task.settings,),
            images=tuple(images),
            title=task.settings.caption or NO_CAPTION,
            picture=task.picture,
        )

    def showing(
        self, drawn: Drawn, earlier: Earlier, *, everything: bool = False, picked: int = 0
    ) -> Updates:
        """The easel with a result on it."""
        return {
            self.stage: tiles.finished_stage(drawn, picked, everything=everything),
            self.everything: gr.update(
                value=everything,
                label=f"Show all {len(drawn.images)} candidates",
                visible=not drawn.is_collection,
            ),
            self.current: drawn,
            self.shared.earlier: earlier,
            self.shared.strip: tiles.history_strip(earlier.drawn, drawn),
            **{button: gr.update(interactive=True) for button in self._actions},
            **self._choosing(drawn, picked),
        }

    def _choosing(self, drawn: Drawn, picked: int) -> Updates:
        return {
            self.picked: picked,
            self.chosen: tiles.chosen(drawn, picked),
            **self.code.showing(drawn, picked),
        }

    def _busy(self, busy: bool) -> Updates:
        updates: Updates = {
            self.go: gr.update(visible=not busy),
            self.halt: gr.update(visible=busy, interactive=True),
            **{button: gr.update(interactive=not busy) for button in self.others},
        }
        if busy:
            updates |= {button: gr.update(interactive=False) for button in self._actions}
        return updates

    def _key(self, request: gr.Request) -> str:
        return f"{self.place} {request.session_hash or uuid.uuid4()}"

    # --------------------------------------------------------------------------------- events

    def connect(self) -> None:
        """What the easel does by itself: choosing, showing all, stopping, downloading."""
        quiet: Mapping[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        picks = [self.picked, self.chosen, *self.code.parts]
        # The last of several quick clicks counts, whatever became of those before it.
        self.stage.pick(
            self._pick, self.current, picks, queue=False, trigger_mode="always_last", **quiet
        )
        self.everything.input(
            self._toggle,
            [self.everything, self.current, self.picked],
            self.stage,
            queue=False,
            **quiet,
        )
        # First, since they act one after another; and in the browser alone, since the answer to the
        # second may come after the last of the drawing, whose outcome it must not hide.
        self.halt.click(None, None, [self.status, self.halt], js=STOPPING, **quiet)
        self.halt.click(self._stop, None, None, queue=False, **quiet)
        for button, save in ((self.zip, save_zip), (self.sheet, save_sheet)):
            button.click(
                self._saver(save),
                [self.current, self.everything],
                [self.download, self.status],
                concurrency_limit=4,
                **quiet,
            ).success(None, self.download, None, js=SAVE, **quiet)

    def _pick(self, current: Drawn | None, event: gr.EventData) -> Updates | Any:
        picked = place_of(event)
        if current is None or not 0 <= picked < len(current.images):
            return {self.picked: gr.skip()}
        return self._choosing(current, picked)

    def _toggle(self, everything: bool, current: Drawn | None, picked: int) -> Any:
        if current is None:
            return gr.skip()
        return tiles.finished_stage(current, picked, everything=bool(everything))

    def _stop(self, request: gr.Request) -> None:
        self.service.stop(self._key(request))

    def _saver(self, save: Callable[..., Any]) -> Callable[[Drawn | None, bool], Updates]:
        def file(current: Drawn | None, everything: bool) -> Updates:
            if current is None:
                return {self.download: None}
            images = current.images if everything else current.best
            try:
                with guarded("saving"):
                    path = save(images, self.service.folder, self.service.limits)
            except PageFault as fault:
                return {self.download: None, self.status: tiles.status(str(fault), tone="fault")}
            return {self.download: str(path)}

        return file

    def chosen_image(self, current: Drawn | None, picked: int) -> GeneratedImage:
        """The picture that is chosen.

        Raises:
            PageFault: There is none.
        """
        if current is None or not 0 <= picked < len(current.images):
            raise PageFault("choose a picture first")
        return current.images[picked]

    def chosen_file(self, current: Drawn | None, picked: int) -> str:
        """The chosen picture as a file.

        Raises:
            PageFault: There is none, or the disk is full.
        """
        image = self.chosen_image(current, picked)
        (path,) = save_pictures([image], self.service.folder, self.service.limits)
        return str(path)
