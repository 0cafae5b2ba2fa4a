"""The members of a tar file, found by reading headers alone; nothing is unpacked.

Our own scan rather than `tarfile`'s for two reasons: a torn archive must be told from a complete
one, and a million members must be listed in seconds. It reads the ustar, GNU and pax forms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_GNU_LONG_NAME = b"L"
_PAX = b"x"
_MAX_LONG_NAME = 1 << 16
_MAX_DIGITS = 20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How files of gzip, bzip2, xz and zstd begin."""


@dataclass(frozen=True)
class Member:
    """A regular file in a tar archive."""

    name: str
    """As the archive spells it: a label, never to be used as a path."""
    offset: int
    """Where its content starts, in bytes."""
    size: int


@dataclass(frozen=True)
class TarListing:
    """What a tar file holds, as far as it is whole."""

    members: tuple[Member, ...]
    """Regular files whose content is all there; links, devices and folders are left out."""
    torn: str | None
    """Why the archive ends too early or stops making sense, or None."""


class _TornError(Exception):
    """The archive goes no further."""


def list_members(path: Path) -> TarListing:
    """The regular files in the tar archive at `path`, and whether it is complete.

    Raises:
        OSError: The file cannot be read.
    """
    members: list[Member] = []
    with path.open("rb") as file:
        if file.read(8).startswith(_COMPRESSED):
            return TarListing((), "it is compressed, and only plain tar files are read; unpack it")
        try:
            for member in _scan(file, os.fstat(file.fileno()).st_size):
                members.append(member)
        except _TornError as reason:
            return TarListing(tuple(members), str(reason))
    return TarListing(tuple(members), None)


def _scan(file: BinaryIO, end: int) -> Iterator[Member]:
    position, long_name, long_size = 0, "", -1
    while True:
        file.seek(position)
        header = file.read(_BLOCK)
        if header == bytes(_BLOCK):
            return
        if len(header) < _BLOCK:
            raise _TornError("it ends without an end mark")
        size = _checked_size(header, position)
        kind = header[156:157]
        if long_size >= 0 and kind in _REGULAR:
            size = long_size
        offset = position + _BLOCK
        if offset + size > end:
            raise _TornError(f"it ends inside member {long_name or _name(header)!r}")
        if kind == _GNU_LONG_NAME:
            long_name = _text(file.read(min(size, _MAX_LONG_NAME)))
        elif kind == _PAX:
            records = _pax_records(file.read(min(size, _MAX_LONG_NAME)))
            long_name = records.get("path", long_name)
            stated = records.get("size", "")
            # Python refuses to read numbers of thousands of digits; no file is as large as these.
            if stated.isdecimal() and len(stated) <= _MAX_DIGITS:
                long_size = int(stated)
        else:
            if kind in _REGULAR:
                yield Member(long_name or _name(header), offset, size)
            long_name, long_size = "", -1
        position = offset + -(-size // _BLOCK) * _BLOCK


def _checked_size(header: bytes, position: int) -> int:
    """The size that a header gives, once its checksum proves it a header."""
    try:
        stated = int(header[148:156].split(b"\0")[0].strip() or b"0", 8)
        if header[124] & 0x80:  # a size of 8 GiB or more, in binary
            size = int.from_bytes(header[125:136], "big")
        else:
            size = int(header[124:136].split(b"\0")[0].strip() or b"0", 8)
    except ValueError as err:
        raise _TornError(f"the header at byte {position} is damaged") from err
    if stated != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
        raise _TornError(f"the header at byte {position} is damaged")
    return size


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", errors="replace")


def _pax_records(content: bytes) -> dict[str, str]:
    """The "length key=value" lines of a pax header."""
    records = {}
    while content:
        length, _, _ = content.partition(b" ")
        if len(length) > _MAX_DIGITS or not length.isdigit():
            break
        if not 0 < int(length) <= len(content):
            break
        line, content = content[: int(length)], content[int(length) :]
        key, _, value = line[len(length) + 1 : -1].partition(b"=")
        records[key.decode("utf-8", errors="replace")] = value.decode("utf-8", errors="replace")
    return records
