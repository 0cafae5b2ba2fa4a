"""Compiling `decode.cpp` once per machine, and finding the result again.

The library lies in the user's own cache folder (`DALLE_CACHE`, or `dalle` in the usual place),
under a name made from everything it depends on: the source and the processor, then the compiler.
Nothing is compiled unless somebody asks for it. Where it was compiled once it is used, also where
that compiler is no more, as in a slim image.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dalle.checksums import file_sha256
from dalle.errors import DalleError

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("decode.cpp")
"""What is compiled; it includes the headers beside it."""
VERSION = 2
"""What `dalle_version` of the library must say."""
COMPILERS = ("g++", "c++")
"""Tried in this order where the environment names none in CXX; after them comes pip's `ziglang`."""
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp-simd", "-ffp-contract=fast"),
    *("-fno-exceptions", "-fno-math-errno", "-fno-trapping-math", "-w"),
)
WITHOUT_AMX = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
"""For systems that keep matrix units from a process, as some sandboxes do."""
BUILD_TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True)
class _Compiler:
    """How to compile and link with what was found.

    Attributes:
        name: Tells it from other compilers, of which other code comes.
        compile: The beginning of the command that compiles.
        link: The beginning of the command that links.
    """

    name: str
    compile: tuple[str, ...]
    link: tuple[str, ...]


class BuildError(DalleError):
    """The decode step cannot be compiled here, or what was compiled does not run."""


class _ForbiddenError(BuildError):
    """The system does not let a process use what the step was compiled for."""


def compile_library() -> Path:
    """Compile the decode step, unless it has been and is undamaged; returns the library.

    Raises:
        BuildError: There is no compiler, it fails, or there is no place for the library.
        OSError: The cache folder cannot be written.
    """
    compiler = _compiler()
    if compiler is None:
        found = "there is none"
        if named := os.environ.get("CXX"):
            found = f"CXX names {named!r}, which is none here"
        raise BuildError(
            f"the fast decode step needs a C++ compiler and {found}; install one (pip install "
            "ziglang; Debian: apt-get install g++), or leave out --compile"
        )
    library = _library_path(compiler)
    if not _is_whole(library):
        library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _compile(compiler, library)
        log.info("compiled the decode step: %s", library)
    return library


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The compiled decode step, or None where nobody has compiled it, or it does not run here.

    That of the present compiler comes first, then those that others made of the same source.
    """
    if platform.system() != "Linux":
        return None
    compiler = _compiler()
    try:
        own = None if compiler is None else _library_path(compiler)
        paths = sorted(_cache_folder().glob(f"decode-{_fingerprint()}-*.so"))
    except BuildError:  # whoever asks for it will hear
        return None
    for path in sorted(paths, key=lambda path: path != own):
        try:
            return open_library(path)
        except BuildError as err:
            log.warning("%s; drawing goes on without it", err)
    return None


def open_library(path: Path) -> ctypes.CDLL:
    """Load a compiled decode step, its functions declared.

    Raises:
        BuildError: It does not load, is of another version, or the system forbids what it needs.
    """
    try:
        # A damaged library would end the process, so its hash is compared first.
        if not _is_whole(path):
            raise BuildError(
                f"the compiled decode step {path} is damaged; `python -m dalle.native` or "
                "--compile true makes it anew"
            )
        # OpenMP is torch's own, already loaded: two of them would fight for the processor.
        library = ctypes.CDLL(str(path))
        version, level = library.dalle_version, library.dalle_level
    except (OSError, AttributeError) as err:
        raise BuildError(f"the compiled decode step {path} does not load: {err}") from err
    version.restype = level.restype = ctypes.c_int64
    if version() != VERSION:
        raise BuildError(
            f"the compiled decode step {path} is of version {version()}, not {VERSION}; delete it "
            "and compile again"
        )
    if level() < 0:
        raise _ForbiddenError(
            f"the compiled decode step {path} is for matrix units that the system does not let "
            "this process use; delete it, and `python -m dalle.native` makes one without them"
        )
    library.dalle_scratch_floats.restype = ctypes.c_int64
    for work in (library.dalle_prefill, library.dalle_step, library.dalle_choose):
        work.restype = None
    return library


def _is_whole(library: Path) -> bool:
    """Whether the library is there and is what was compiled."""
    try:
        return file_sha256(library) == _sum_file(library).read_text("ascii")
    except (OSError, ValueError):  # such as a sum that is no text
        return False


def _sum_file(library: Path) -> Path:
    """The file that holds a library's SHA-256."""
    return library.with_suffix(".sha256")


def _compiler() -> _Compiler | None:
    """The C++ compiler of the system, or else pip's; None if there is none.

    Only Linux's torch brings the OpenMP whose functions the step calls.
    """
    if platform.system() != "Linux":
        return None
    try:
        named = shlex.split(os.environ.get("CXX", ""))  # arguments included: "ccache g++"
    except ValueError:  # a quote that nothing closes
        return None
    for name, *arguments in [named] if named else [[name] for name in COMPILERS]:
        if path := shutil.which(name):
            command = (path, *arguments)
            known = " ".join((Path(path).resolve().name, *arguments))
            return _Compiler(name=known, compile=command, link=command)
    zig = None if named else importlib.util.find_spec("ziglang")
    if zig is None or zig.origin is None:
        return None
    program = str(Path(zig.origin).with_name("zig"))
    # Its own way of linking would first build a C++ library of which the step needs nothing.
    return _Compiler(name="zig", compile=(program, "c++"), link=(program, "ld.lld"))


def _library_path(compiler: _Compiler) -> Path:
    """Where the library for this machine lies, or will."""
    made_by = hashlib.sha256(compiler.name.encode()).hexdigest()[:8]
    return _cache_folder() / f"decode-{_fingerprint()}-{made_by}.so"


@functools.cache
def _fingerprint() -> str:
    """16 hexadecimal digits for everything that the library depends on, but for the compiler."""
    headers = sorted(SOURCE.parent.glob("*.h"))
    parts = [
        *(path.read_bytes() for path in (SOURCE, *headers)),
        " ".join(FLAGS).encode(),
        torch.__version__.encode(),
        _processor().encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cache_folder() -> Path:
    """Where what is compiled lies.

    Raises:
        BuildError: Nobody says, and there is no home.
    """
    if own := os.environ.get("DALLE_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dalle"
    except RuntimeError as err:  # some containers have users whom nobody knows
        raise BuildError(
            "there is no home folder to keep the fast decode step in; name another folder with the "
            "environment variable DALLE_CACHE"
        ) from err


def _processor() -> str:
    """What the processor is and can do: a home folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.machine()
    kept = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU part")
    return "\n".join(line for line in lines if line.partition(":")[0].strip() in kept)


def _compile(compiler: _Compiler, library: Path) -> None:
    """Compile and link into `library`, which appears whole or not at all."""
    try:
        _compile_with(FLAGS, compiler, library)
    except _ForbiddenError:
        _compile_with((*FLAGS, *WITHOUT_AMX), compiler, library)


def _compile_with(flags: Sequence[str], compiler: _Compiler, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        compiled, linked = Path(folder) / "decode.o", Path(folder) / "decode.so"
        # No OpenMP is linked, so that its functions are looked for in the process.
        _call([*compiler.compile, *flags, "-c", str(SOURCE), "-o", str(compiled)], Path(folder))
        _call([*compiler.link, "-shared", str(compiled), "-o", str(linked)], Path(folder))
        _sum_file(linked).write_text(file_sha256(linked), encoding="ascii")
        open_library(linked)
        _sum_file(linked).replace(_sum_file(library))
        linked.replace(library)
    load_library.cache_clear()


def _call(command: list[str], scratch: Path) -> None:
    # Where Zig would otherwise fill a cache folder of its own.
    caches = {f"ZIG_{kind}_CACHE_DIR": str(scratch) for kind in ("GLOBAL", "LOCAL")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
            env={**os.environ, **caches},
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise BuildError(f"compiling the decode step failed: {err}; leave out --compile") from err
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise BuildError(
            f"compiling the decode step failed: {first.strip()[:300]}; leave out --compile, or set "
            "CXX to another compiler"
        )
