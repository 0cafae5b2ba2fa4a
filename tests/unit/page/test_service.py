from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle import TextToImage
from dalle.checkpoint import load_model
from dalle.clip import ClipScorer
from dalle.errors import ModelFormatError
from dalle.folders import model_folder
from dalle.page.draw_tab import example_chips
from dalle.page.facts import EXAMPLES, ModelFacts, read_facts
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.progress import Progress
from dalle.page.service import Service, Task
from dalle.page.settings import DrawSettings, draw_settings
from dalle.rerank import ClipRanker, LikelihoodRanker
from tests.services import fail, service_of


@pytest.fixture
def service(tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path) -> Service:
    return service_of(tiny_model, tiny_pipeline, tmp_path)


def settings_for(facts: ModelFacts, caption: str = "a fox", **asked: Any) -> DrawSettings:
    return draw_settings(
        Limits(),
        default=facts.sampling,
        codebook_size=facts.codebook_size,
        grid=facts.grid,
        **{"caption": caption, "candidates": 3, **asked},
    )


def draw(service: Service, *tasks: Task, key: str = "me") -> list[Progress]:
    return list(service.draw(tasks, client="127.0.0.1", key=key))


def test_facts_are_those_of_the_model(tiny_model: Path, tiny_pipeline: TextToImage) -> None:
    facts = read_facts(tiny_model)
    assert facts.image_px == tiny_pipeline.image_px
    assert facts.sampling == tiny_pipeline.sampling
    assert facts.is_guided
    assert not facts.has_clip
    assert facts.card.startswith("A model of random weights")


def test_the_model_is_loaded_when_somebody_waits_for_it(
    tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it leaves the processor to the page, but not for ever."""
    monkeypatch.setattr("dalle.page.service.HEAD_START_S", 3600)
    service = service_of(tiny_model, tiny_pipeline, tmp_path, load=False)
    service.load_in_background(fail)
    assert not service._loaded.wait(0.2)
    *_, last = draw(service, Task(settings=settings_for(service.facts)))
    assert last.state == "done"

    monkeypatch.setattr("dalle.page.service.HEAD_START_S", 0.01)
    service = service_of(tiny_model, tiny_pipeline, tmp_path, load=False)
    service.load_in_background(fail)
    assert service._loaded.wait(30), "nobody asked"


@pytest.mark.parametrize("drawn", [True, False])
def test_a_ranker_is_made_ready_after_the_first_row_or_while_nobody_draws(
    drawn: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes seconds of processor time, which the first row would have to share."""
    monkeypatch.setattr("dalle.page.service.LULL_S", 3600 if drawn else 0.01)
    ready = threading.Event()

    class Slow(LikelihoodRanker):
        def prepare(self) -> None:
            ready.set()

    pipeline = TextToImage(load_model(tiny_model), ranker=Slow(), device="cpu")
    service = service_of(tiny_model, pipeline, tmp_path)
    if drawn:
        steps = service.draw([Task(settings=settings_for(service.facts))], client="a", key="me")
        first = next(step for step in steps if step.rows_done)
        assert first.rows_done == 1
        assert not ready.is_set()
        next(steps)
    assert ready.wait(30)


def test_a_job_draws_what_the_pipeline_draws(service: Service, tiny_pipeline: TextToImage) -> None:
    settings = settings_for(service.facts, keep=1, seed=5)
    *rows, last = draw(service, Task(settings=settings))
    alone = tiny_pipeline.generate("a fox", candidates=3, seed=5)
    assert last.result is not None
    assert [image.image.tobytes() for image in last.result.images] == [
        image.image.tobytes() for image in alone.images
    ]
    assert [step.rows_done for step in rows] == [1, 2, 3]
    assert all(step.state == "drawing" and len(step.previews) == 3 for step in rows)
    assert [step.part for step in rows] == [0.25, 0.5, 0.75]
    assert last.part == 1
    assert last.seconds_left == 0


def test_tasks_of_a_job_are_drawn_in_their_order(service: Service) -> None:
    tasks = [
        Task(settings=settings_for(service.facts, caption)) for caption in ("a pizza", "two apples")
    ]
    done = [step for step in draw(service, *tasks) if step.state == "done"]
    assert [step.task for step in done] == [0, 1]
    assert [step.result.caption for step in done if step.result] == ["a pizza", "two apples"]


def test_a_given_picture_is_gone_on_from(service: Service) -> None:
    picture = Image.new("RGB", (40, 30), "red")
    settings = settings_for(service.facts, image="red.png", keep_rows=2)
    *rows, last = draw(service, Task(settings=settings, picture=picture))
    assert last.result is not None
    assert last.result.prompt is not None
    assert last.result.prompt.rows == 2
    assert len(rows) == 1


def test_a_picture_of_the_models_own_keeps_its_tokens(service: Service) -> None:
    first = draw(service, Task(settings=settings_for(service.facts)))[-1].result
    assert first is not None
    own = first.images[0]
    settings = settings_for(service.facts, vary="fox.png", keep_rows=2, seed=9)
    varied = draw(service, Task(settings=settings, own=own))[-1].result
    assert varied is not None
    for image in varied.images:
        assert (image.tokens[:2] == own.tokens[:2]).all()


def test_a_stopped_job_keeps_the_complete_pictures(service: Service) -> None:
    settings = settings_for(service.facts, candidates=40)
    steps = service.draw([Task(settings=settings)], client="me", key="tab")
    for step in steps:
        assert step.state == "drawing"
        if step.first_candidate:
            complete = step.first_candidate
            break
    service.stop("tab")
    last, *more = steps
    assert not more
    assert last.state == "stopped"
    assert last.result is not None
    assert len(last.result.images) == complete
    scores = [image.score or 0 for image in last.result.images]
    assert scores == sorted(scores, reverse=True)


def test_a_stopped_job_keeps_pictures_that_cannot_be_ranked(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Bug: the ranker's failure ended the job, and what was complete was lost."""

    def torn() -> ClipScorer:
        raise ModelFormatError("it is torn")

    model = TextToImage(load_model(tiny_model), ranker=ClipRanker(torn), device="cpu")
    service = service_of(tiny_model, model, tmp_path)
    steps = service.draw(
        [Task(settings=settings_for(service.facts, candidates=40))], client="me", key="tab"
    )
    complete = next(step.first_candidate for step in steps if step.first_candidate)
    service.stop("tab")
    (last,) = steps
    assert last.result is not None
    assert [image.recipe.index for image in last.result.images] == [*range(complete)]
    assert last.result.notice == "the candidates are not ranked: it is torn"


def test_a_job_stopped_in_its_first_rows_shows_how_far_it_came(service: Service) -> None:
    steps = service.draw([Task(settings=settings_for(service.facts))], client="me", key="tab")
    next(steps)
    service.stop("tab")
    (last,) = steps
    assert (last.state, last.result, last.rows_done) == ("stopped", None, 2)
    assert all(last.previews)


def test_a_job_over_its_time_ends_with_what_it_has(
    tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    service = service_of(tiny_model, tiny_pipeline, tmp_path, job_seconds=1e-6)
    (last,) = draw(service, Task(settings=settings_for(service.facts)))
    assert last.state == "stopped"
    assert last.reason == (
        "The job was stopped after 1e-06 s, the longest that one may take; draw fewer pictures at "
        "once."
    )


def test_closing_a_job_frees_its_place(service: Service) -> None:
    leaving = service.draw([Task(settings=settings_for(service.facts))], client="me", key="1")
    next(leaving)
    waiting = service.draw([Task(settings=settings_for(service.facts))], client="you", key="2")
    assert next(waiting).state == "waiting"
    leaving.close()  # type: ignore[attr-defined]
    assert [step.state for step in waiting][-1] == "done"


def test_a_job_waits_for_the_model(
    tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    service = service_of(tiny_model, tiny_pipeline, tmp_path, load=False)
    steps = service.draw([Task(settings=settings_for(service.facts))], client="me", key="1")
    assert next(steps).state == "loading"
    service.load_in_background(fail)
    assert [step.state for step in steps][-1] == "done"


def test_a_model_that_cannot_be_loaded_is_reported(tiny_model: Path, tmp_path: Path) -> None:
    def load() -> TextToImage:
        raise OSError("no such weights")

    service = Service(read_facts(tiny_model), limits=Limits(), folder=tmp_path, load=load)
    told: list[BaseException] = []
    heard = threading.Event()

    def failed(error: BaseException) -> None:
        told.append(error)
        heard.set()

    service.load_in_background(failed)
    assert heard.wait(60)
    assert str(told[0]) == "no such weights"
    assert not service.is_ready


def test_a_model_of_ones_own_suggests_captions_itself(tmp_path: Path) -> None:
    """Bug: whatever a model had learnt, the page proposed foxes on blue backgrounds."""
    bundled = model_folder("emoji")
    for name in ("config.json", "README.md"):
        shutil.copy(bundled / name, tmp_path)
    pipeline = TextToImage.from_pretrained("emoji", device="cpu")
    service = service_of(tmp_path, pipeline, tmp_path)
    assert service.has_examples_within(60)
    written = pipeline.captions.suggest(count=5)
    assert 2 <= len(service.examples) <= 5
    assert list(service.examples) == written[: len(service.examples)]
    assert sum(map(len, service.examples)) <= 95
    assert service_of(bundled, pipeline, tmp_path, load=False).examples == EXAMPLES


def test_a_model_that_writes_no_text_suggests_nothing(service: Service) -> None:
    assert service.has_examples_within(60)
    assert service.examples == ()
    assert "Try" not in example_chips(service.examples)
    assert "<b>" not in example_chips(("<b>fox",))


def test_what_the_model_refuses_is_said_in_its_words(service: Service) -> None:
    with pytest.raises(PageFault, match="this model has no CLIP"):
        draw(service, Task(settings=settings_for(service.facts, ranker="clip")))
    settings = settings_for(service.facts, image="x.png", keep_rows=0, layout="place-on-top")
    with pytest.raises(PageFault, match="place-on-top must keep at least 1"):
        draw(service, Task(settings=settings, picture=Image.new("RGB", (8, 8))))
