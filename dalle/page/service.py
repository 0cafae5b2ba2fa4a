"""One model for everybody who uses the page: loaded in the background, lent to one job at a time.

A job is what one press of a button asks for: one caption, or a batch, or a grid. It waits for its
turn, reports every row it draws, and can be stopped: by the person, by the page's time limit, or
because the person has left.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dalle.errors import DalleError
from dalle.page.admission import Admission, Ticket
from dalle.page.facts import ModelFacts
from dalle.page.faults import PageFault, guarded
from dalle.page.limits import Limits
from dalle.page.progress import Progress
from dalle.page.settings import DrawSettings
from dalle.page.uploads import Uploads

if TYPE_CHECKING:
    from dalle.drawing import ImagePrompt
    from dalle.picture import GeneratedImage, Recipe
    from dalle.pipeline import TextToImage
    from dalle.results import CaptionResult, Frame

log = logging.getLogger(__name__)

POLL_S = 0.25
"""How often a job that waits looks whether it may go on, or has been stopped."""
HEAD_START_S = 3
"""How long the model leaves the processor to the first page."""
LULL_S = 2
"""How long nobody draws at first until the ranker is made ready."""
SUGGESTED = 5
"""Captions to try that a model writes itself, at most."""
LINE_CHARS = 95
"""Of all of them together: more would move the page down where they appear."""
STOPPED = "Stopped."
LEFT = "nobody waits for the answer any more"


class StillDrawingError(PageFault):
    """Something is being drawn in that place already."""

    def __init__(self) -> None:
        super().__init__("pictures are still being drawn here; press Stop first, or wait for them")


def _on_a_line(captions: Sequence[str]) -> tuple[str, ...]:
    """Those captions for which a line has room beside the ones before them."""
    kept: list[str] = []
    for caption in captions:
        if sum(map(len, [*kept, caption])) <= LINE_CHARS:
            kept.append(caption)
    return tuple(kept)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One caption's pictures, as part of a job."""

    settings: DrawSettings
    picture: Image.Image | None = None
    """A given picture to go on from, RGB."""
    own: GeneratedImage | None = None
    """A picture of the model's own to go on from, whose tokens are taken as they are."""
    begun: Recipe | None = None
    """A restored picture, to go on from the same rows as it did."""


class Service:
    """Everything that the page's clients share; keeps nothing of what they ask for.

    Args:
        facts: The model, not yet loaded.
        limits: The page's limits.
        folder: Where results to download are written.
        load: Loads the model.
    """

    def __init__(
        self, facts: ModelFacts, *, limits: Limits, folder: Path, load: Callable[[], TextToImage]
    ) -> None:
        self.facts = facts
        self.limits = limits
        self.folder = folder
        self.uploads = Uploads(limits, longest_px=facts.held_px)
        self.admission = Admission(limits)
        self._load = load
        self._model: TextToImage | None = None
        self._loaded = threading.Event()
        self._awaited = threading.Event()
        self._begun = threading.Event()
        self.examples = facts.examples
        """Captions to try; those that the model would write itself, where nobody chose any."""
        self._has_examples = threading.Event()
        if self.examples:
            self._has_examples.set()
        self._lock = threading.Lock()
        self._running: dict[str, threading.Event] = {}

    # ------------------------------------------------------------------------------- the model

    def load_in_background(self, failed: Callable[[BaseException], None]) -> None:
        """Load the model, once somebody has the page or wants a picture, or shortly in any case.

        On few cores a browser would otherwise wait for the page as long as for the model.

        Args:
            failed: Hears of it if the model cannot be loaded.
        """

        def load() -> None:
            self._awaited.wait(HEAD_START_S)
            started = time.monotonic()
            try:
                model = self._load()
            except BaseException as err:  # noqa: BLE001 - told to whoever serves
                failed(err)
                return
            self._model = model
            self._loaded.set()
            log.info("the model is ready after %.1f s", time.monotonic() - started)
            try:
                # A job makes its ranker ready by itself, once its first row can be seen.
                if not self._begun.wait(LULL_S):
                    model.ranker.prepare()
                if not self.examples:
                    self.examples = _on_a_line(model.captions.suggest(count=SUGGESTED))
            finally:
                self._has_examples.set()

        threading.Thread(target=load, name="load-model", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._loaded.is_set()

    def is_ready_within(self, seconds: float) -> bool:
        """Whether the model is loaded, after waiting at most so long for it; begins to load it."""
        self._awaited.set()
        return self._loaded.wait(seconds)

    def has_examples_within(self, seconds: float) -> bool:
        """Whether there are captions to try, after waiting at most so long for them."""
        return self._has_examples.wait(seconds)

    def model(self) -> TextToImage:
        """The model, after waiting for it if need be.

        Raises:
            PageFault: It is not there within the time of a job.
        """
        if not self.is_ready_within(self.limits.job_seconds) or self._model is None:
            raise PageFault("The model is still being loaded. Try again in a minute.")
        return self._model

    # ---------------------------------------------------------------------------------- jobs

    @contextlib.contextmanager
    def turn(self, client: str | Ticket, *, has_left: Callable[[], bool]) -> Iterator[TextToImage]:
        """The model, lent for one piece of work that shows no progress.

        Args:
            client: Who asks, for `Admission.enter`, or a job that is let in already.
            has_left: Whether nobody waits for the work any more, asked until its turn has come.

        Raises:
            PageFault: The client may not draw now, or has left; or the work failed.
        """
        with guarded("working"), self._admitted(client) as ticket:
            for _ in ticket.turns(every_s=POLL_S):
                if has_left():
                    raise PageFault(LEFT)
            yield self.model()

    def stop(self, key: str) -> None:
        """Ask the job that runs under `key`, if there is one, to end after its row."""
        with self._lock:
            if key in self._running:
                self._running[key].set()

    def check_free(self, key: str) -> None:
        """Raise `StillDrawingError` if a job runs under `key`."""
        with self._lock:
            if key in self._running:
                raise StillDrawingError

    def stop_all(self) -> None:
        """Ask every job to end after its row, and let no other in."""
        self.admission.close()
        with self._lock:
            for stop in self._running.values():
                stop.set()

    def draw(self, tasks: Sequence[Task], *, client: str | Ticket, key: str) -> Iterator[Progress]:
        """Draw `tasks` one after another as one job.

        The first task's previews come row after row. What is finished when the job is stopped is
        ranked and kept. Closing the iterator ends the job and frees its place.

        Args:
            tasks: What to draw; all candidates come back, ranked, whatever `keep` says.
            client: Who asks, for `Admission.enter`, or a job that is let in already.
            key: What `stop` knows the job by.

        Raises:
            StillDrawingError: A job runs under `key`; a second would hide it from `stop`.
            PageFault: The client may not draw now, a task cannot be drawn, or drawing failed.
        """
        with (
            guarded("drawing"),
            self._stoppable(key) as stop,
            self._admitted(client) as ticket,
        ):
            for step in self._before(ticket):
                if stop.is_set():
                    yield Progress(state="stopped", reason=STOPPED)
                    return
                yield step
            yield from _Job(self.model(), tasks, ticket=ticket, stop=stop).run()

    def _admitted(self, client: str | Ticket) -> AbstractContextManager[Ticket]:
        if isinstance(client, Ticket):  # whoever brings it gives it back
            return contextlib.nullcontext(client)
        return self.admission.enter(client)

    def _before(self, ticket: Ticket) -> Iterator[Progress]:
        """What there is to say until it is a job's turn and the model is there."""
        for ahead in ticket.turns(every_s=POLL_S):
            yield Progress(state="waiting", ahead=ahead)
        while not self.is_ready_within(POLL_S):
            yield Progress(state="loading")
        self._begun.set()

    @contextlib.contextmanager
    def _stoppable(self, key: str) -> Iterator[threading.Event]:
        """An event that `stop` sets for as long as the block runs.

        Raises:
            StillDrawingError: There is one for `key` already.
        """
        event = threading.Event()
        with self._lock:
            if key in self._running:
                raise StillDrawingError
            self._running[key] = event
        try:
            yield event
        finally:
            with self._lock:
                del self._running[key]


class _Job:
    """Tasks being drawn by a model that is lent to them."""

    def __init__(
        self, model: TextToImage, tasks: Sequence[Task], *, ticket: Ticket, stop: threading.Event
    ) -> None:
        self._model = model
        self._tasks = tasks
        self._ticket = ticket
        self._stop = stop
        self._started = time.monotonic()
        self._drawn = 0

    def run(self) -> Iterator[Progress]:
        """Progress until every task is done, or the job is stopped."""
        prompts = [self._prompt(task) for task in self._tasks]
        total = sum(
            self._model.frames(task.settings.candidates, prompt)
            for task, prompt in zip(self._tasks, prompts, strict=True)
        )
        for number, (task, prompt) in enumerate(zip(self._tasks, prompts, strict=True)):
            for step in self._draw(task, prompt):
                yield replace(
                    step,
                    task=number,
                    part=self._drawn / total,
                    seconds_left=self._seconds / self._drawn * (total - self._drawn),
                    seconds=self._seconds,
                )
                if step.state == "stopped":
                    return

    def _draw(self, task: Task, prompt: ImagePrompt | None) -> Iterator[Progress]:
        """One task's progress."""
        settings = task.settings
        options: dict[str, Any] = {**settings.options(), "keep": None}
        if prompt is not None:
            # Already read, so there is nothing left to say about how.
            read = settings.image_options()
            options = {name: options[name] for name in options if name not in read}
        try:
            frames = self._model.stream(settings.caption, image=prompt, **options)
        except ValueError as err:  # such as a ranker that this model has not
            raise PageFault(str(err)) from err
        with contextlib.closing(frames):  # type: ignore[type-var]
            for frame in frames:
                self._drawn += 1
                if frame.result is not None:
                    yield Progress(state="done", result=frame.result)
                    return
                step = Progress(state="drawing", frame=frame, candidates=settings.candidates)
                if reason := self._end():
                    kept = self._ranked(settings, frame)
                    yield replace(step, state="stopped", result=kept, reason=reason)
                    return
                yield step

    def _prompt(self, task: Task) -> ImagePrompt | None:
        """What a task goes on from."""
        settings = task.settings
        if task.own is not None:
            if settings.region is not None:
                return self._model.all_but(task.own, settings.region)
            return self._model.first_rows(task.own, settings.keep_rows)
        try:
            if task.begun is not None:
                return self._model.given_rows(task.begun)
            if task.picture is None:
                return None
            return self._model.read_image(task.picture, **settings.image_options())
        except (ValueError, DalleError) as err:  # such as a layout that needs more rows
            raise PageFault(str(err)) from err

    def _end(self) -> str:
        """Why the job ends now; empty if it goes on."""
        if self._stop.is_set():
            return STOPPED
        try:
            self._ticket.check_time()
        except PageFault as fault:
            return str(fault)
        return ""

    def _ranked(self, settings: DrawSettings, frame: Frame) -> CaptionResult | None:
        """The complete pictures of a task that was stopped, ranked; None if there are none."""
        if not frame.finished:
            return None
        from dalle.ranked import in_order, named_ranker

        ranker = named_ranker(settings.ranker, self._model.ranker)
        return in_order(settings.caption or "", frame.finished, ranker, notice=frame.notice)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started
