from __future__ import annotations

import pytest

from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.subjects import Subject, list_subjects


@pytest.fixture(scope="session")
def core(font: EmojiFont) -> dict[str, Subject]:
    """Core subjects by name."""
    return {subject.name: subject for subject in list_subjects(font, "core")}


@pytest.fixture(scope="session")
def everything(font: EmojiFont) -> tuple[Subject, ...]:
    """All that the font draws; it takes a while to find out."""
    return list_subjects(font, "all")
