"""The page's style sheet."""

from __future__ import annotations

import re

from dalle.page.style import css


def test_pictures_have_the_shape_of_the_models() -> None:
    """Bug: every picture was shown as a square, so that of a wide one a third was cut off."""
    sheet = css((16, 24))
    assert sheet.startswith(":root { --shape: 24 / 16; }\n")
    shapes = re.findall(r"aspect-ratio: ([^;]+);", sheet)
    assert set(shapes) == {"var(--shape)", "auto"}
