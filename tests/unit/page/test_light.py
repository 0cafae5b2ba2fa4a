"""The page's own rules need neither a browser's library nor a model to be checked."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dalle.page.limits import Limits

ROOT = Path(__file__).parents[3]
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


def test_gradio_does_not_parse_itself_when_the_page_imports_it() -> None:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed; make setup installs it")
    program = """
import ast
from dalle.page.serve import sources_hidden
parsed = []
real = ast.parse
ast.parse = lambda source, *rest, **options: parsed.append(source) or real(source, *rest, **options)
with sources_hidden():
    import gradio
ast.parse = real
print(sum("class " in source for source in parsed if isinstance(source, str)))
with gradio.Blocks():
    gradio.Textbox().submit(print)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert int(run.stdout) == 0, "it parses two dozen of its files if it is let"


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_that_let_nothing_through_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be greater than 0, got {value}"):
        Limits(**{name: value})
