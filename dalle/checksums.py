"""SHA256SUMS: which bytes the files of a folder must hold, in the form `sha256sum -c` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from dalle.errors import ModelFormatError

SUMS_FILE = "SHA256SUMS"
MAX_SUMS_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hex.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every other file of `folder`.

    Raises:
        OSError: A file cannot be read, or the list cannot be written.
    """
    files = sorted(path for path in folder.iterdir() if path.name != SUMS_FILE)
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in files]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def verify_sums(folder: Path, required: Collection[str]) -> str:
    """Check the required files against SHA256SUMS, and return a fingerprint of them.

    Other files, such as a model's card, may change without making it another model.

    Args:
        folder: Where the list and its files are.
        required: Names that must be on the list, since they are about to be read.

    Returns:
        First 16 hex digits of the SHA-256 of the required files' lines.

    Raises:
        ModelFormatError: The list is missing or malformed, or a required file is missing, differs
            or is not on it.
    """
    expected = read_sums(folder)
    if unlisted := sorted(set(required) - expected.keys()):
        raise ModelFormatError(
            f"{folder / SUMS_FILE} does not list {', '.join(unlisted)}, so that cannot be "
            "verified; get the folder again from where it was published"
        )
    for name in required:
        path = folder / name
        if not path.is_file():
            raise ModelFormatError(
                f"{folder} lacks {name}, which its {SUMS_FILE} lists; copy the whole folder again"
            )
        if file_sha256(path) != expected[name]:
            raise ModelFormatError(
                f"{path} is damaged: its SHA-256 differs from {SUMS_FILE}; copy the file again"
            )
    lines = "".join(f"{expected[name]}  {name}\n" for name in sorted(required))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def read_sums(folder: Path) -> dict[str, str]:
    """Hashes by file name.

    Raises:
        ModelFormatError: The list is missing, too large or malformed.
    """
    path = folder / SUMS_FILE
    if not path.is_file():
        raise ModelFormatError(
            f"{folder} has no {SUMS_FILE}, so its files cannot be verified; get the folder again "
            "from where it was published"
        )
    if path.stat().st_size > MAX_SUMS_BYTES:
        raise ModelFormatError(f"{path} is larger than {MAX_SUMS_BYTES:,} bytes; it is not ours")
    expected: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, separator, name = line.partition("  ")
        if not separator or Path(name).name != name:
            raise ModelFormatError(f"{path}: line {line!r} is not 'HASH  FILE'")
        expected[name] = digest
    return expected
