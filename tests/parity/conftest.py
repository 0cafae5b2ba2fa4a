"""The compiled decode step, made once for the tests that want it."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalle.native.build import BuildError, compile_library, load_library


@pytest.fixture(scope="session")
def compiled_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache folder that holds the compiled step, a copy of what `make setup` compiled if it did.

    A copy, so that a test which damages it does no harm. Its name says what it was made of.
    """
    folder = tmp_path_factory.mktemp("native")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DALLE_CACHE")
        load_library.cache_clear()
        made = load_library()
        if made is not None:
            for suffix in (".so", ".sha256"):
                shutil.copy(Path(made._name).with_suffix(suffix), folder)
        patch.setenv("DALLE_CACHE", str(folder))
        try:
            compile_library()
        except BuildError as err:
            if "there is none" not in str(err):
                raise
            pytest.skip("there is no C++ compiler")
    load_library.cache_clear()
    return str(folder)


@pytest.fixture
def library(compiled_cache: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The compiled step; while a test asks for it, the whole program finds it."""
    monkeypatch.setenv("DALLE_CACHE", compiled_cache)
    load_library.cache_clear()
    found = load_library()
    assert found is not None
    yield found
    load_library.cache_clear()
