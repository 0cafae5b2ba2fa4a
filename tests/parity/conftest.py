"""The compiled decode step, made once for the tests that want it."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator

import pytest

from dalle.native import build
from dalle.native.build import BuildError, compile_library, load_library


@pytest.fixture(scope="session")
def compiled_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache folder that holds the compiled step, a copy of what `make setup` compiled if it did.

    Its name says what it was made of.
    """
    folder = tmp_path_factory.mktemp("native")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DALLE_CACHE")
        if (compiler := build._compiler()) is not None:
            made = build._library_path(compiler)
            for file in (made, build._sum_file(made)):
                if file.exists():
                    shutil.copy(file, folder)
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
