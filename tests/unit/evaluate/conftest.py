"""A few subjects and their painter, for what is judged by renderings."""

from __future__ import annotations

import pytest

from dalle.data.emoji.font import find_font
from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import Subject, list_subjects
from dalle.errors import FontError

NAMES = frozenset(
    {"fox", "dog", "cat", "lion", "owl", "pizza", "banana", "strawberry", "hamburger", "bread"}
    | {"robot", "ghost", "skull", "bicycle", "automobile", "rocket", "key", "umbrella", "crown"}
    | {"sunflower", "cactus", "tulip", "rose", "mushroom"}
)


@pytest.fixture(scope="session")
def painter() -> Painter:
    try:
        return Painter(find_font(None), 64)
    except FontError as err:
        pytest.skip(f"needs a colour emoji font: {err}")


@pytest.fixture(scope="session")
def few_subjects(painter: Painter) -> tuple[Subject, ...]:
    """Two dozen subjects of four groups."""
    return tuple(one for one in list_subjects(painter.font, "core") if one.name in NAMES)
