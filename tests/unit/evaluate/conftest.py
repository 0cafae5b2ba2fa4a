"""A few subjects, for what is judged by renderings."""

from __future__ import annotations

import pytest

from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import Subject, list_subjects

NAMES = frozenset(
    {"fox", "dog", "cat", "lion", "owl", "pizza", "banana", "strawberry", "hamburger", "bread"}
    | {"robot", "ghost", "skull", "bicycle", "automobile", "rocket", "key", "umbrella", "crown"}
    | {"sunflower", "cactus", "tulip", "rose", "mushroom"}
)


@pytest.fixture(scope="session")
def few_subjects(painter: Painter) -> tuple[Subject, ...]:
    """Two dozen subjects of four groups."""
    return tuple(one for one in list_subjects(painter.font, "core") if one.name in NAMES)
