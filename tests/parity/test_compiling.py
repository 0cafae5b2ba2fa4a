"""The compiled step: by which compiler it is made, where it lies, and what becomes of it."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shlex
import shutil
from pathlib import Path

import pytest

from dalle import TextToImage
from dalle.native import build
from dalle.native.build import BuildError, compile_library, load_library


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DALLE_CACHE", str(tmp_path / "cache"))
    load_library.cache_clear()
    return tmp_path / "cache"


def test_a_missing_compiler_is_named(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="CXX names 'no-such-compiler', which is none here"):
        compile_library()
    monkeypatch.setenv("CXX", "g++ 'never closed")
    with pytest.raises(BuildError, match="CXX names"):
        compile_library()
    assert load_library() is None
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(empty_cache))
    if importlib.util.find_spec("ziglang") is None:
        with pytest.raises(BuildError, match="compiler and there is none; install one"):
            compile_library()


def test_pips_compiler_serves_where_the_system_has_none(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    systems = shutil.which("g++") or shutil.which("c++")
    if systems is None:
        pytest.skip("there is no C++ compiler to stand behind pip's")
    package = tmp_path / "ziglang"
    package.mkdir()
    (package / "__init__.py").touch()
    # Its two commands that are used, as Zig spells them; "zig c++" keeps caches where it is told.
    # What is compiled is not the matter here, so that it need not be fast.
    (package / "zig").write_text(
        f"""#!/bin/sh
        test -d "$ZIG_GLOBAL_CACHE_DIR" && test -d "$ZIG_LOCAL_CACHE_DIR" || exit 3
        case "$1" in c++|ld.lld) shift; PATH={os.environ["PATH"]} exec {systems} "$@" -O0;; esac
        exit 4""",
        encoding="utf-8",
    )
    (package / "zig").chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert load_library() is None
    library = compile_library()
    assert library.parent == empty_cache
    assert load_library() is not None
    assert sorted(file.suffix for file in empty_cache.iterdir()) == [".sha256", ".so"]
    load_library.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="matrix units of x86")
def test_matrix_units_that_the_system_forbids_are_left_out(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bug: it was told to delete the library and compile again, which made the same one.

    A processor without such units forbids them as a sandbox does.
    """
    if (systems := shutil.which("g++")) is None:
        pytest.skip("there is no g++")
    wrapper = tmp_path / "g++-for-amx"
    # As -march=native is on processors that have them, until it is said not to be.
    has = "-mamx-tile -mamx-int8 -mamx-bf16 -mavx512f -mavx512bw -mavx512vl -mavx512bf16"
    units = f'case "$*" in *-mno-amx*) ;; *) set -- "$@" {has} -mavx512vnni;; esac'
    wrapper.write_text(f'#!/bin/sh\n{units}\nexec {systems} "$@" -O0\n', encoding="utf-8")
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    assert compile_library().parent == empty_cache
    assert load_library() is not None
    load_library.cache_clear()


def test_a_change_of_any_header_compiles_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "native"
    shutil.copytree(build.SOURCE.parent, folder)
    monkeypatch.setattr(build, "SOURCE", folder / "decode.cpp")
    names = {build._fingerprint.__wrapped__()}
    sources = [build.SOURCE, *folder.glob("*.h")]
    assert len(sources) > 5
    for source in sources:
        source.write_text(source.read_text(encoding="utf-8") + "// changed\n", encoding="utf-8")
        names.add(build._fingerprint.__wrapped__())
    assert len(names) == 1 + len(sources)


def test_a_failing_compiler_leaves_nothing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BuildError, match="compiling the decode step failed"):
        compile_library()
    assert list(empty_cache.iterdir()) == []


@pytest.fixture
def remembering(compiled_cache: str, tmp_path: Path) -> str:
    """A compiler that hands out what another made of the same source, as ccache does."""
    (made,) = Path(compiled_cache).glob("*.so")
    program = tmp_path / "remembering"
    last = "for word; do :; done"  # the file to write is named last
    program.write_text(f'#!/bin/sh\n{last}\nexec cp "{made}" "$word"\n', encoding="utf-8")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("damage", ["cut", "longer", "no sum", "no text for a sum"])
def test_a_damaged_library_is_left_aside_and_made_anew(
    remembering: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, damage: str,
) -> None:  # fmt: skip
    """Compiling once found that there was one already, so that nothing ever repaired it."""
    monkeypatch.setenv("CXX", remembering)
    library = compile_library()
    digest = library.with_suffix(".sha256")
    if damage == "no sum":
        digest.unlink()
    elif damage == "no text for a sum":
        digest.write_bytes(b"\xff")
    else:
        content = library.read_bytes()
        library.write_bytes(content[:1000] if damage == "cut" else content + b"x")
    load_library.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert load_library() is None
    assert "is damaged; `python -m dalle.native` or --compile true makes it anew" in caplog.text
    assert compile_library() == library
    assert load_library() is not None
    load_library.cache_clear()


@pytest.mark.parametrize("later", ["", "no-such-compiler"])
def test_what_was_compiled_is_used_without_its_compiler(
    compiled_cache: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, later: str
) -> None:
    """A slim image, or another CXX, once meant drawing slowly without a word."""
    monkeypatch.setenv("DALLE_CACHE", compiled_cache)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", later)
    load_library.cache_clear()
    assert load_library() is not None
    monkeypatch.setattr(build, "_fingerprint", lambda: "0" * 16)  # of another source or processor
    load_library.cache_clear()
    assert load_library() is None
    load_library.cache_clear()


def test_a_compiler_may_be_named_with_arguments(
    compiled_cache: str, remembering: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "ccache g++" was taken for the name of one program, which there is not."""
    monkeypatch.setenv("CXX", f"env DALLE_TEST=1 {shlex.quote(remembering)} -DNDEBUG")
    library = compile_library()
    assert library.parent == empty_cache
    (other,) = Path(compiled_cache).glob("*.so")
    assert library.name != other.name, "another command, other code"
    shutil.copy(other, empty_cache)
    shutil.copy(other.with_suffix(".sha256"), empty_cache)
    found = load_library()
    assert found is not None
    assert found._name == str(library), "its own comes first"
    load_library.cache_clear()


def test_without_a_home_drawing_goes_on_without_the_compiled_step(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """Bug: nothing was drawn where a container's user is nobody."""
    for name in ("HOME", "XDG_CACHE_HOME", "DALLE_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: int) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    load_library.cache_clear()
    try:
        assert load_library() is None
        assert TextToImage.from_pretrained(tiny_model, device="cpu").generate("a fox").images
        with pytest.raises(BuildError, match=r"no home folder .*DALLE_CACHE"):
            compile_library()
    finally:
        load_library.cache_clear()
