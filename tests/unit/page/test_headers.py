"""Headers, against what Pillow reads and what hands wrote."""

from __future__ import annotations

import struct
import time
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dalle.page.headers import Header, read_header


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 53, 3), dtype=np.uint8))
CLEAR = NOISE.convert("RGBA")
CLEAR.putalpha(90)
EXIF = Image.Exif()
EXIF[0x010E] = "a long description " * 500


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("PNG", encode(NOISE, "PNG")),
        ("PNG", encode(NOISE.convert("1"), "PNG")),
        ("JPEG", encode(NOISE, "JPEG")),
        ("JPEG", encode(NOISE, "JPEG", progressive=True)),
        ("JPEG", encode(NOISE, "JPEG", exif=EXIF, comment=b"x" * 999, icc_profile=b"i" * 70_000)),
        ("JPEG", encode(NOISE.convert("CMYK"), "JPEG")),
        ("WebP", encode(NOISE, "WEBP", quality=50)),
        ("WebP", encode(NOISE, "WEBP", lossless=True)),
        ("WebP", encode(CLEAR, "WEBP", quality=50)),
        ("WebP", encode(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(90)])),
    ],
)
def test_formats_and_sizes_are_those_that_pillow_reads(name: Any, data: bytes) -> None:
    with Image.open(BytesIO(data)) as image:
        assert image.size == (53, 37)
    assert read_header(data) == Header(format=name, width=53, height=37)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode(NOISE, "GIF"),
        encode(NOISE, "TIFF"),
        encode(NOISE, "BMP"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html><script>alert(1)</script>",
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"\xff\xd8\xff\xd9 the end comes before a frame",
        b"RIFF\x00\x00\x00\x00WEBPALPH" + bytes(40),
        b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(40),
        b"\xff\xd8" + b"\xff" * 1_000_000,
    ],
)
def test_what_is_no_header_is_none(data: bytes) -> None:
    assert read_header(data) is None


def test_sides_of_nothing_are_refused() -> None:
    assert read_header(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 0, 9)) is None


def test_a_jpeg_of_nothing_but_markers_takes_no_time() -> None:
    started = time.process_time()
    assert read_header(b"\xff\xd8\xff" + b"\x01\xff" * 10_000_000) is None
    assert time.process_time() - started < 1


@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_damage_is_no_crash(form: str, data: st.DataObject) -> None:
    content = bytearray(encode(NOISE, form)[:200])
    for at in data.draw(st.lists(st.integers(0, 199), max_size=8)):
        if at < len(content):
            content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    found = read_header(bytes(content[:cut]))
    assert found is None or min(found.width, found.height) >= 1
