"""What Gradio is spared at the start, and that nothing else notices."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalle.page.quick_start import garbage_kept, put_off, sources_hidden, templates_shared
from tests.paths import ROOT


def put_off_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of two modules, put off, that prints when it is imported."""
    (folder / "heavy").mkdir()
    (folder / "heavy" / "__init__.py").write_text("print('imported')\nweight = 3\n")
    (folder / "heavy" / "part.py").write_text("import heavy\nweight = heavy.weight + 1\n")
    monkeypatch.syspath_prepend(folder)
    put_off("heavy")


@pytest.fixture(autouse=True)
def _forget_it() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "heavy"]:
        del sys.modules[name]


def test_what_is_put_off_is_imported_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_off_here(tmp_path, monkeypatch)
    first, second = (importlib.import_module("heavy") for _ in range(2))
    assert capsys.readouterr().out == ""
    assert first.weight == 3
    assert second.weight == 3
    assert capsys.readouterr().out == "imported\n", "once"
    assert importlib.import_module("heavy").__file__, "the package itself, from now on"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = first.nonsense


def test_a_part_of_what_is_put_off_may_be_imported_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_off_here(tmp_path, monkeypatch)
    assert importlib.import_module("heavy.part").weight == 4
    assert capsys.readouterr().out == "imported\n"


def test_what_is_there_already_or_nowhere_is_not_put_off() -> None:
    put_off("inspect")
    assert sys.modules["inspect"] is inspect
    put_off("no_such_package_anywhere")
    assert "no_such_package_anywhere" not in sys.modules


def test_everything_is_as_it_was_afterwards() -> None:
    jinja2 = pytest.importorskip("jinja2")
    before = inspect.getfile, jinja2.Template
    with sources_hidden(), templates_shared(), garbage_kept():
        assert (inspect.getfile, jinja2.Template) != before
        assert jinja2.Template("{{ n }}!") is jinja2.Template("{{ n }}!")
        assert jinja2.Template("{{ n }}!").render(n=3) == "3!"
    assert (inspect.getfile, jinja2.Template) == before


def test_the_page_starts_without_pandas_torch_or_sources_of_gradio() -> None:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed; make setup installs it")
    program = """
import ast, sys
from dalle.page.quick_start import quick_import
parsed = []
real = ast.parse
ast.parse = lambda source, *rest, **options: parsed.append(source) or real(source, *rest, **options)
with quick_import():
    import gradio
    from dalle.page.build import build_page
ast.parse = real
print(sum("class " in source for source in parsed if isinstance(source, str)))
print([name for name in ("pandas.core", "torch", "open_clip") if name in sys.modules])
with gradio.Blocks():
    gradio.Textbox().submit(print)
import pandas
print(pandas.DataFrame([1]).shape)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.splitlines() == ["0", "[]", "(1, 1)"], (
        "it parses two dozen of its files if it is let, and imports pandas"
    )
