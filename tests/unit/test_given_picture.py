"""Pictures that people give: every way in follows the same rules."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle import given_picture
from dalle.errors import DataError
from dalle.given_picture import MAX_PIXELS, read_picture

RED, BLUE = (255, 0, 0), (0, 0, 255)
FLAG = Image.new("RGB", (150, 50), BLUE)
FLAG.paste(RED, (0, 0, 75, 50))


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
TRUNCATED = encode(Image.fromarray(NOISE), "JPEG")[:-500]


def test_a_picture_is_the_same_from_its_file_its_bytes_and_memory(tmp_path: Path) -> None:
    image = Image.fromarray(NOISE)
    path = tmp_path / "a picture.png"
    path.write_bytes(encode(image))
    for source in (path, str(path), encode(image), image, Image.open(path)):
        found = read_picture(source)
        assert found.mode == "RGB"
        assert (np.asarray(found) == np.asarray(image)).all()


def test_pillow_pictures_follow_the_rules_of_files() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert read_picture(clear).getpixel((4, 4)) == (255, 255, 255)
    deep = Image.fromarray(np.full((8, 8), 0x4142, dtype=np.uint16))
    assert read_picture(deep).getpixel((4, 4)) == (0x41, 0x41, 0x41)
    assert read_picture(Image.new("CMYK", (8, 8), (0, 255, 255, 0))).getpixel((4, 4)) == RED
    palette = FLAG.quantize(2)
    assert palette.mode == "P"
    assert read_picture(palette).getpixel((140, 10)) == BLUE


def test_pillow_pictures_are_turned_upright() -> None:
    """Pillow opens a phone's photo lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    shot = Image.open(BytesIO(encode(FLAG, "JPEG", exif=exif, quality=95)))
    turned = read_picture(shot)
    assert turned.size == (50, 150)
    pixels = np.asarray(turned).astype(int)
    assert np.abs(pixels[20, 25] - RED).max() < 9
    assert np.abs(pixels[130, 25] - BLUE).max() < 9


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        )

    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(ihdr) + chunk(b"IEND")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged, or is not PNG, JPEG or WebP"),
        (b"GIF89a" + bytes(20), "the picture is a GIF, not PNG, JPEG or WebP; save it as one"),
        (b"MM\0*" + bytes(20), "is a TIFF, not"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "is an AVIF, not"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG, not"),
        (b"\n<!DOCTYPE html><title>404</title>", "is a web page, not"),
        (header_only_png(9_000, 9_000), "9000x9000 pixels, over the limit of 40000000"),
        (header_only_png(20_000, 20_000), "400000000 pixels, over the limit of 40000000"),
        (header_only_png(1, 30_000), "too thin: 1x30000"),
        (TRUNCATED, "the picture is damaged"),
    ],
)
def test_what_is_no_good_picture_is_refused_and_its_file_named(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "given.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_picture(data)
    with pytest.raises(DataError, match=rf"given\.png: .*({message})"):
        read_picture(path)


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (tmp_path, tmp_path / "none.png", "", "a\x00b", "x" * 5000):
        with pytest.raises(DataError, match=r"no such file|is a folder|too long"):
            read_picture(name)
    for url in ("https://example.org/fox.png", "HTTP://x/y", Path("https://example.org/fox.png")):
        with pytest.raises(ValueError, match=r"must be a file, got the URL .*; save it first"):
            read_picture(url)
    monkeypatch.setattr(given_picture, "MAX_FILE_BYTES", 100)
    (tmp_path / "big.png").write_bytes(bytes(101))
    with pytest.raises(DataError, match=r"big\.png: the file has over 100 bytes; give a smaller"):
        read_picture(tmp_path / "big.png")


def test_whole_numbers_of_32_bits_are_read_as_16(tmp_path: Path) -> None:
    """Pillow opens 16-bit PNGs in this mode at times, and from version 13 on does not write it."""
    levels = np.array([[-5, 0, 255, 256, 0x80FF, 65535, 1 << 20]], dtype=np.int32)
    held = read_picture(Image.fromarray(levels))
    assert np.asarray(held)[0, :, 0].tolist() == [0, 0, 0, 1, 0x80, 255, 255]


def test_pillow_pictures_without_a_clear_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="must be RGB or alike, got mode F; convert it"):
        read_picture(Image.new("F", (8, 8)))
    with pytest.raises(DataError, match="too thin: 4x400"):
        read_picture(Image.new("RGB", (4, 400)))
    with pytest.raises(DataError, match=f"8000x5001 pixels, over the limit of {MAX_PIXELS}"):
        read_picture(Image.new("L", (8000, 5001)))
    with pytest.raises(DataError, match="the picture is damaged"):
        read_picture(Image.open(BytesIO(TRUNCATED)))
    with pytest.raises(DataError, match="the picture is damaged"):
        read_picture(Image.new("RGB", (0, 0)))
    number: Any = 3
    with pytest.raises(TypeError, match="must be a path, bytes or a Pillow image, got int"):
        read_picture(number)
