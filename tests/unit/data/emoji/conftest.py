from __future__ import annotations

import pytest

from dalle.data.emoji.font import EmojiFont, find_font
from dalle.data.emoji.subjects import Subject, list_subjects
from dalle.errors import FontError


@pytest.fixture(scope="session")
def font() -> EmojiFont:
    try:
        return find_font()
    except FontError as err:
        pytest.skip(f"needs a colour emoji font: {err}")


@pytest.fixture(scope="session")
def core(font: EmojiFont) -> dict[str, Subject]:
    """Core subjects by name."""
    return {subject.name: subject for subject in list_subjects(font, "core")}
