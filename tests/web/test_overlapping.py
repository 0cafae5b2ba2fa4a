"""Jobs of one session that run at the same time, asked for as Gradio asks; no browser."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dalle.page.drawn import Earlier
from dalle.page.progress import Progress
from dalle.page.service import Service, StillDrawingError, Task
from dalle.page.settings import draw_settings
from tests.services import service_of
from tests.web.visitor import Visitor

if TYPE_CHECKING:
    from dalle import TextToImage


@pytest.fixture
def service(
    needs_gradio: None, tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path
) -> Service:
    return service_of(tiny_model, tiny_pipeline, tmp_path, running=2)


DRAW, EXPLORE = 0, 2


def titles(session: Visitor) -> list[str]:
    return [one.title for one in session.earlier.drawn]


def test_results_of_jobs_that_overlap_are_all_kept(service: Service) -> None:
    """The job that ended last once wrote back what there was when it began, and its own result."""
    session = Visitor(service)
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
    session = Visitor(service)
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
        grid=facts.grid, caption="a fox", candidates=1,
    )  # fmt: skip
    return list(service.draw([Task(settings=settings)], client="somebody", key="prompt me"))
