"""Pictures that are given on the tab Image prompt: how they are held, called, and drawn from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from dalle.page.service import Service
from tests.services import service_of
from tests.web.visitor import Updates, Visitor

if TYPE_CHECKING:
    from dalle import TextToImage

PROMPT = 1


@pytest.fixture
def service(tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path) -> Service:
    return service_of(tiny_model, tiny_pipeline, tmp_path, jobs_per_minute=10**6)


@pytest.fixture
def visitor(needs_gradio: None, service: Service) -> Visitor:
    return Visitor(service)


def give(visitor: Visitor, file: Path) -> str:
    """Give a picture, and what the page shows of it."""
    (shown,) = visitor.press("_read", picture=str(file))
    return str(list(shown.values()))


def draw(visitor: Visitor, **asked: Any) -> Updates:
    *_, last = visitor.press("_draw", PROMPT, caption="a fox", candidates=1, **asked)
    return last


def code(updates: Updates) -> str:
    """What stands below "Copy as Python or command line"."""
    return "\n".join(value for value in updates.values() if isinstance(value, str))


def noise(file: Path, width: int, height: int) -> Path:
    Image.effect_noise((width, height), 80).convert("RGB").save(file)
    return file


def test_what_is_held_is_small_and_the_code_draws_the_same(
    visitor: Visitor, tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    """Held at 2048 px, 500 visitors' pictures took 6 GiB; and the code went on from all pixels."""
    give(visitor, photo := noise(tmp_path / "photo.png", 1200, 900))
    drawn = draw(visitor)
    assert "--image=photo.png" in code(drawn)
    (earlier,) = visitor.earlier.drawn
    assert earlier.picture is not None
    assert earlier.picture.size == (512, 384)
    prompt = earlier.images[0].recipe.prompt
    assert prompt
    assert prompt == tuple(tiny_pipeline.read_image(photo).tokens.tolist())


def test_a_picture_that_comes_back_keeps_its_name(visitor: Visitor, tmp_path: Path) -> None:
    """Gradio calls it image.png then, and the code named a file that nobody has."""
    give(visitor, noise(tmp_path / "my fox.png", 40, 30))
    assert "'--image=my fox.png'" in code(draw(visitor))
    (earlier,) = visitor.earlier.drawn
    assert earlier.picture is not None
    earlier.picture.save(tmp_path / "image.png")
    give(visitor, tmp_path / "image.png")
    assert "'--image=my fox.png'" in code(draw(visitor))
    give(visitor, noise(tmp_path / "other.png", 40, 30))
    assert "--image=other.png" in code(draw(visitor))


def test_a_picture_is_opened_for_those_who_are_let_in(
    visitor: Visitor, service: Service, tmp_path: Path
) -> None:
    """Pictures were once opened for everybody, however many were being opened for the same."""
    (damaged := tmp_path / "damaged.png").write_bytes(b"no picture")
    look: dict[str, Any] = {"picture to look at": str(damaged)}
    for full in (False, True):
        expected = "2 jobs of yours are still under way" if full else "is damaged"
        with contextlib.ExitStack() as jobs:
            for _ in range(2 * full):
                jobs.enter_context(service.admission.enter("unknown"))
            assert expected in give(visitor, damaged)
            (seen,) = visitor.press("_look", **look)
            assert expected in str(list(seen.values()))


def test_buttons_that_draw_rest_while_something_is_drawn(visitor: Visitor, tmp_path: Path) -> None:
    give(visitor, noise(tmp_path / "a.png", 40, 30))
    first, *_, last = visitor.press("_draw", PROMPT, caption="a fox", candidates=1)
    by_name = {getattr(part, "value", None): update for part, update in first.items()}
    assert by_name["Draw every transform"]["interactive"] is False
    by_name = {getattr(part, "value", None): update for part, update in last.items()}
    assert by_name["Draw every transform"]["interactive"] is True


@pytest.mark.parametrize(
    ("subject", "message"), [("\x01", "a subject must not be blank"), ("x" * 2001, "at most 2,000")]
)
def test_a_subject_that_is_none_is_answered_in_words(
    visitor: Visitor, tmp_path: Path, subject: str, message: str
) -> None:
    """It once was a fault of the server, with a number."""
    give(visitor, noise(tmp_path / "a.png", 40, 30))
    asked: dict[str, Any] = {"it shows": subject}
    *_, last = visitor.press("_draw_all", **asked)
    assert message in str(list(last.values()))
