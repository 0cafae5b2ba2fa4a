"""Jobs of one session that run at the same time, asked for as Gradio asks; no browser."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dalle.page.drawn import Earlier
from dalle.page.service import Progress, Service, StillDrawingError, Task
from dalle.page.settings import draw_settings
from tests.services import service_of

if TYPE_CHECKING:
    from dalle import TextToImage

Updates = dict[Any, Any]


class Session:
    """Somebody who has the page open, and what the page knows of them."""

    def __init__(self, service: Service) -> None:
        from dalle.page.build import build_page

        self.events = list(build_page(service, ranks=False).fns.values())
        self.shown: Updates = {}

    def press(self, name: str, number: int = 0, **asked: Any) -> Iterator[Updates]:
        """The updates of the page after a button was pressed.

        Args:
            name: Of the function that answers it, such as "_draw".
            number: Which of those of that name, in the order of the tabs.
            **asked: Values of widgets, by their labels in lower case.
        """
        import gradio as gr

        found = (one for one in self.events if getattr(one.fn, "__name__", "") == name)
        one: Any = list(found)[number]
        values = []
        for part in one.inputs:
            shown = self.shown.get(part, getattr(part, "value", None))
            shown = shown.get("value", True) if isinstance(shown, dict) else shown
            values.append(asked.get(str(getattr(part, "label", "")).lower(), shown))
        for updates in one.fn(gr.Request(session_hash="me"), *values):
            self.shown |= updates
            yield updates

    @property
    def earlier(self) -> Earlier:
        return next(value for value in self.shown.values() if isinstance(value, Earlier))


@pytest.fixture
def service(
    needs_gradio: None, tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path
) -> Service:
    return service_of(tiny_model, tiny_pipeline, tmp_path, running=2)


DRAW, EXPLORE = 0, 2


def titles(session: Session) -> list[str]:
    return [one.title for one in session.earlier.drawn]


def test_results_of_jobs_that_overlap_are_all_kept(service: Service) -> None:
    """The job that ended last once wrote back what there was when it began, and its own result."""
    session = Session(service)
    slow = session.press("_draw", DRAW, caption="two apples", candidates=40)
    next(slow), next(slow)
    grid = "a [[red, blue]] fox"
    for _ in session.press("_draw", EXPLORE, caption=grid, candidates=1):
        pass
    assert titles(session) == [grid]
    for _ in slow:
        pass
    assert titles(session) == ["two apples", grid]


def test_every_session_remembers_by_itself() -> None:
    first = Earlier()
    second = copy.deepcopy(first)
    assert second is not first
    assert second.drawn == ()


def test_one_stage_has_one_job_which_stop_ends(service: Service) -> None:
    """Variations and a caption once drew on one stage at once, and Stop ended the second only."""
    session = Session(service)
    for _ in session.press("_draw", DRAW, caption="a fox", candidates=2):
        pass
    varied = session.press("vary", DRAW, candidates=40)
    next(varied), next(varied)
    with pytest.raises(StillDrawingError, match="press Stop first"):
        next(session.press("_draw", DRAW, caption="a pizza", candidates=1))
    assert [step.state for step in draw_elsewhere(service)][-1] == "done", "other stages are free"
    service.stop("draw me")
    *_, last = varied
    assert any("Stopped." in str(value) for value in last.values())
    for _ in session.press("_draw", DRAW, caption="a pizza", candidates=1):
        pass
    assert titles(session)[0] == "a pizza"


def draw_elsewhere(service: Service) -> list[Progress]:
    facts = service.facts
    settings = draw_settings(
        service.limits, default=facts.sampling, codebook_size=facts.codebook_size,
        grid_h=facts.grid[0], caption="a fox", candidates=1,
    )  # fmt: skip
    return list(service.draw([Task(settings=settings)], client="somebody", key="prompt me"))


def test_a_stage_that_draws_offers_nothing_that_draws(service: Service) -> None:
    session = Session(service)
    steps = session.press("_draw", 1, caption="a fox")
    (fault,) = steps
    assert "give a picture first" in str(list(fault.values()))
    by_text = {getattr(part, "value", None): update for part, update in fault.items()}
    assert by_text["Draw every transform"]["interactive"], "free again"
