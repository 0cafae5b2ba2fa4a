"""Gradio in half the time: what it does at every start, and for every visitor, to no use here.

Each of these but the last is put around what would take the time.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import inspect
import sys
import threading
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradio import Blocks


@contextlib.contextmanager
def quick_import() -> Iterator[None]:
    """Imports Gradio: without type stubs, pandas, and one template for each of 200 docstrings."""
    with sources_hidden(), templates_shared(), garbage_kept():
        put_off("pandas")
        yield


@contextlib.contextmanager
def sources_hidden() -> Iterator[None]:
    """Hides the files of Gradio's classes from it.

    It would parse them all, each time, to write type stubs for editors beside them: half of the
    seconds that its import takes. A class that comes from no file is left alone.
    """
    getfile = inspect.getfile

    def hidden(object: Any) -> str:
        if isinstance(object, type) and object.__module__.startswith("gradio."):
            raise OSError(f"{object} is hidden")
        return getfile(object)

    inspect.getfile = hidden
    try:
        yield
    finally:
        inspect.getfile = getfile


@contextlib.contextmanager
def templates_shared() -> Iterator[None]:
    """Has equal templates of jinja2 compiled once.

    Gradio fills in the docstring of each event of each component so; few of them differ.
    """
    import jinja2

    template = jinja2.Template
    jinja2.Template = functools.cache(template)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        jinja2.Template = template  # type: ignore[misc]


@contextlib.contextmanager
def garbage_kept() -> Iterator[None]:
    """Looks for no garbage meanwhile, nor ever among what is there in the end.

    Hardly any arises, and each look goes through everything.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def put_off(package: str) -> None:
    """Have `package` imported only when something of it is first used, which may be never."""
    if package not in sys.modules and importlib.util.find_spec(package) is not None:
        sys.modules[package] = _Later(package)


class _Later(types.ModuleType):
    """Stands for a package until something of it is asked for.

    `importlib.util.LazyLoader` would do, if a second `import` were not already such a question.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            package = self.__name__
            if sys.modules.get(package) is self:
                del sys.modules[package]
                self.__dict__.update(vars(importlib.import_module(package)))
        return getattr(sys.modules[package], name)


@contextlib.contextmanager
def unserved() -> Iterator[None]:
    """Spares `Blocks` the servers and descriptions that it makes of itself while it is built.

    Mounting it makes both anew; `mounted` in `build.py` then tells it of the server.
    """
    from gradio.blocks import Blocks
    from gradio.routes import App

    create, describe = App.create_app, Blocks.get_config_file
    App.create_app = staticmethod(lambda *_args, **_settings: None)  # type: ignore[assignment]
    Blocks.get_config_file = lambda _self: {}  # type: ignore[method-assign, assignment, typeddict-item]
    try:
        yield
    finally:
        App.create_app = staticmethod(create)  # type: ignore[method-assign]
        Blocks.get_config_file = describe  # type: ignore[method-assign]


def describe_once(page: Blocks) -> None:
    """Spares every new visitor the description of each widget by itself.

    It took a twentieth of a second, in which nobody else was answered. It changes only with its
    widget, instead of which a session is then given another one.
    """
    for widget in page.default_config.blocks.values():
        # A session puts its own value into the description that it is given.
        widget.get_config = functools.partial(dict, widget.get_config())  # type: ignore[method-assign]
