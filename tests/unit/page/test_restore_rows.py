"""Pictures that went on from another one, dropped on the page: their kept rows come back."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from dalle import GeneratedImage, TextToImage, flags
from dalle.config import Generate
from dalle.page.faults import PageFault
from dalle.page.restore import Begun, begun_by, read_settings, settings_of
from dalle.page.service import Service, Task
from dalle.page.settings import DrawSettings
from dalle.page.snippets import as_command_line, as_python
from tests.services import service_of


@pytest.fixture
def service(tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path) -> Service:
    return service_of(tiny_model, tiny_pipeline, tmp_path)


@pytest.fixture
def completed(tiny_pipeline: TextToImage) -> GeneratedImage:
    """A picture of which three of four rows come from another one."""
    given = tiny_pipeline.generate("a pizza", candidates=1, seed=3).images[0]
    prompt = tiny_pipeline.first_rows(given, 3)
    drawn = tiny_pipeline.generate("a fox", image=prompt, candidates=5, seed=9, temperature=0.7)
    return next(image for image in drawn.images if image.recipe.index == 4)


def restored(picture: GeneratedImage, folder: Path, service: Service) -> tuple[DrawSettings, Begun]:
    """What the page takes from the dropped file of `picture`, which is all it has of it."""
    picture.save(folder / "dropped.png")
    recipe = read_settings(folder / "dropped.png", service.limits)
    begun = begun_by(recipe, service.facts, file="dropped.png")
    assert begun is not None
    return settings_of(recipe, model=service.facts.name), begun


def drawn_by(service: Service, task: Task) -> tuple[GeneratedImage, ...]:
    *_, last = service.draw([task], client="me", key="me")
    assert last.result is not None
    return last.result.images


def test_a_dropped_picture_is_drawn_again_without_the_one_it_went_on_from(
    service: Service, completed: GeneratedImage, tmp_path: Path
) -> None:
    """The page once restored the settings only and drew another picture."""
    settings, begun = restored(completed, tmp_path, service)
    assert begun.rows == 3
    images = drawn_by(service, begun.task(settings))
    (same,) = [image for image in images if image.recipe == completed.recipe]
    assert same.image.tobytes() == completed.image.tobytes()
    without = drawn_by(service, Task(settings=settings))
    assert completed.image.tobytes() not in {image.image.tobytes() for image in without}


def test_the_rows_can_be_gone_on_from_with_another_caption(
    service: Service, completed: GeneratedImage, tmp_path: Path
) -> None:
    settings, begun = restored(completed, tmp_path, service)
    task = begun.task(dataclasses.replace(settings, caption="two apples"))
    images = drawn_by(service, task)
    assert {image.recipe.caption for image in images} == {"two apples"}
    assert {image.recipe.prompt for image in images} == {completed.recipe.prompt}
    command = shlex.split(as_command_line(task.settings, "fp32"))[2:]
    typed = flags.parse(Generate, command, prog="dalle generate", positional="captions")
    assert (typed.vary, typed.rows, typed.captions) == (Path("dropped.png"), 3, ("two apples",))
    assert "first_rows(earlier, 3)" in as_python(task.settings, "fp32")


def test_a_region_is_drawn_again_without_the_picture_around_it(
    service: Service, tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    given = tiny_pipeline.generate("a pizza", candidates=1, seed=3).images[0]
    prompt = tiny_pipeline.all_but(given, (0.25, 0.5, 1, 0.75))
    drawn = tiny_pipeline.generate("a fox", image=prompt, candidates=2, seed=9).images[0]
    settings, begun = restored(drawn, tmp_path, service)
    assert (begun.rows, begun.region) == (2, (0.25, 0.5, 1.0, 0.75))
    task = begun.task(settings)
    (same,) = [one for one in drawn_by(service, task) if one.recipe == drawn.recipe]
    assert same.image.tobytes() == drawn.image.tobytes()
    assert "--region" in as_command_line(task.settings, "fp32")


def test_a_blank_caption_is_refused_where_no_command_could_say_it(
    service: Service, completed: GeneratedImage, tmp_path: Path, tiny_pipeline: TextToImage
) -> None:
    settings, begun = restored(completed, tmp_path, service)
    with pytest.raises(PageFault, match="a caption must not be empty"):
        begun.task(dataclasses.replace(settings, caption=None))
    prompt = tiny_pipeline.given_rows(completed.recipe)
    nameless = tiny_pipeline.generate(None, image=prompt, candidates=1).images[0]
    settings, begun = restored(nameless, tmp_path, service)
    assert settings.caption is None
    (again,) = drawn_by(service, begun.task(settings))
    assert again.image.tobytes() == nameless.image.tobytes()


def test_a_picture_drawn_as_a_whole_begins_with_nothing(
    service: Service, tiny_pipeline: TextToImage
) -> None:
    whole = tiny_pipeline.generate("a fox", candidates=1).images[0]
    assert begun_by(whole.recipe, service.facts, file="a.png") is None


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ((1,) * 5, "at most 3 whole rows of 4 tokens, or the whole grid with -1 .* got 5 tokens"),
        ((1,) * 16, "at most 3 whole rows .* got 16 tokens"),
        ((1, 2, 3, 32), "must hold tokens from 0 to 31, got 1 to 32"),
        ((1, 2, 3, -2), "must hold tokens from 0 to 31, got -2 to 3"),
        ((1, 2, 3, -1), "at most 3 whole rows .* got 4 tokens"),
        ((1, 2, 3, 10**40), r"must hold tokens from 0 to 31, got 1 to 1000"),
    ],
    ids=["part of a row", "everything", "too large", "negative", "part", "huge"],
)
def test_forged_rows_are_refused(
    prompt: tuple[int, ...],
    message: str,
    service: Service,
    completed: GeneratedImage,
    tiny_pipeline: TextToImage,
) -> None:
    """The last one once ended in an overflow inside torch."""
    forged = dataclasses.replace(completed.recipe, prompt=prompt)
    with pytest.raises(PageFault, match=f"do not fit this model: prompt .*{message}"):
        begun_by(forged, service.facts, file="a.png")
    with pytest.raises(ValueError, match=message):
        tiny_pipeline.redraw(forged)


def test_rows_of_another_model_mean_nothing(
    service: Service, completed: GeneratedImage, tmp_path: Path
) -> None:
    settings, begun = restored(completed, tmp_path, service)
    foreign = dataclasses.replace(
        begun, recipe=dataclasses.replace(completed.recipe, model="f" * 16)
    )
    with pytest.raises(PageFault, match="drawn by model ffffffffffffffff"):
        drawn_by(service, foreign.task(settings))
