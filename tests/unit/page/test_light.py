"""The page's own rules need neither a browser's library nor a model to be checked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from dalle.page.limits import Limits
from tests.paths import ROOT

LIGHT = (
    "admission", "batch", "decode", "explore", "exports", "faults", "grid", "headers", "limits",
    "restore", "settings", "snippets", "uploads",
)  # fmt: skip


def test_rules_load_neither_torch_nor_gradio() -> None:
    names = [f"dalle.page.{name}" for name in LIGHT]
    program = (
        f"import sys\nfor name in {names!r}: __import__(name)\n"
        "print([name for name in ('torch', 'gradio', 'open_clip') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_that_let_nothing_through_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be greater than 0, got {value}"):
        Limits(**{name: value})
