"""Format and size of a picture file, from its first bytes, by code that decodes nothing.

PNG: PNG specification, 11.2.2 (IHDR comes first). JPEG: ITU-T T.81, B.1.1 and B.2.2 (segments up to
the first frame header). WebP: RFC 9649, 2.3 to 2.7 (the first chunk of the RIFF container).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Start of frame, of every coding; in between lie tables (C4, CC) and an extension (C8).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})  # those without a segment
_MOST_SEGMENTS = 10_000
"""More than cameras write; keeps a forged file from taking seconds."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture file says of itself."""

    format: Literal["PNG", "JPEG", "WebP"]
    width: int
    height: int


def read_header(data: bytes) -> Header | None:
    """The header of a PNG, JPEG or WebP file; None if it is another format, or damaged there.

    Args:
        data: The file's content.
    """
    size: tuple[int, int] | None
    form: Literal["PNG", "JPEG", "WebP"]
    try:
        if data.startswith(_PNG):
            form, size = "PNG", _png_size(data)
        elif data.startswith(_JPEG):
            form, size = "JPEG", _jpeg_size(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            form, size = "WebP", _webp_size(data)
        else:
            return None
    except (struct.error, IndexError):  # the file ends before its header does
        return None
    if size is None or min(size) < 1:
        return None
    return Header(format=form, width=size[0], height=size[1])


def _png_size(data: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if data[12:16] == b"IHDR" else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # any number of them may fill the space before a marker
            at += 1
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker in _BARE_MARKERS:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + max(length, 2)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    match data[12:16]:
        case b"VP8 ":  # lossy: a frame tag, a start code, and 14 bits for each side
            width, height = struct.unpack_from("<HH", data, 26)
            return (width & 0x3FFF, height & 0x3FFF) if data[23:26] == b"\x9d\x01\x2a" else None
        case b"VP8L":  # lossless: a signature, and 14 bits for each side less 1
            (bits,) = struct.unpack_from("<I", data, 21)
            return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1) if data[20] == 0x2F else None
        case b"VP8X":  # extended: the canvas, 24 bits for each side less 1
            width = int.from_bytes(data[24:27], "little") + 1
            height = int.from_bytes(data[27:30], "little") + 1
            return (width, height) if len(data) >= 30 else None
        case _:
            return None
