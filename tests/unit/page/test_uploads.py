"""Real hostile files through the real child process; the server outlives all of them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle.given_picture import read_picture
from dalle.page.decode import DecodeLimits
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.uploads import Uploads, read_upload_bytes

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
FLAG = Image.new("RGB", (60, 20), BLUE)
FLAG.paste(RED, (0, 0, 30, 20))
UPLOADS = Uploads(Limits())


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def write(folder: Path, data: bytes, name: str = "given.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        )

    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(ihdr) + chunk(b"IEND")


def second_header_png() -> bytes:
    """A PNG whose first header is small and whose second is not; Pillow believes the second."""
    small, large = header_only_png(8, 8), header_only_png(9_000, 9_000)
    return small[:33] + large[8:33] + small[33:]


def sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    return encode(FLAG, "JPEG", exif=exif, quality=95)


# --------------------------------------------------------------------------------- what is opened


def test_pixels_arrive_as_they_are(tmp_path: Path) -> None:
    found = UPLOADS.read(write(tmp_path, encode(NOISE)))
    assert found.mode == "RGB"
    assert (np.asarray(found) == np.asarray(NOISE)).all()


@pytest.mark.parametrize(
    ("data", "pixel", "colour"),
    [
        (encode(Image.new("RGBA", (8, 8), (255, 0, 0, 0))), (4, 4), WHITE),
        (encode(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "WEBP", lossless=True), (4, 4), WHITE),
        (encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95), (4, 4), RED),
        (encode(Image.fromarray(np.full((8, 8), 0x4142, np.uint16))), (4, 4), (65, 65, 65)),
        (encode(FLAG.quantize(2)), (50, 10), BLUE),
        (encode(FLAG.convert("L").point(lambda v: v > 50, "1")), (10, 10), WHITE),
        (encode(FLAG, "PNG", save_all=True, append_images=[NOISE.resize((60, 20))]), (9, 9), RED),
        (encode(FLAG, "WEBP", save_all=True, lossless=True,
                append_images=[NOISE.resize((60, 20))]), (9, 9), RED),
        (sideways(), (10, 10), RED),
    ],
    ids=["clear", "clear-webp", "cmyk", "16-bit", "palette", "1-bit", "moving-png", "moving-webp",
         "sideways"],
)  # fmt: skip
def test_every_kind_of_picture_becomes_rgb(
    tmp_path: Path, data: bytes, pixel: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    found = UPLOADS.read(write(tmp_path, data))
    assert found.mode == "RGB"
    shown = np.array(found.getpixel(pixel), dtype=int)
    assert np.abs(shown - colour).max() < 9
    expected = read_picture(data)  # the same rules as for pictures of the command line
    assert found.size == expected.size
    assert found.tobytes() == expected.tobytes()


def test_the_largest_picture_is_opened_within_the_memory(tmp_path: Path) -> None:
    """An eighth of its pixels in an eighth of the memory that Python leaves.

    16 bits cost most: they pass through 64.
    """
    python_bytes = 192 * 1024**2
    memory = python_bytes + (Limits().decode_bytes - python_bytes) // 8
    deep = Image.fromarray(np.zeros((2000, 2500), np.uint16))
    assert deep.width * deep.height == Limits().pixels // 8
    path = write(tmp_path, encode(deep, compress_level=1))
    assert Uploads(Limits(decode_bytes=memory)).read(path).size == deep.size


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged, or is not PNG, JPEG or WebP"),
        (encode(NOISE, "JPEG")[:-500], "the picture is damaged: image file is truncated"),
        (encode(NOISE)[:-500], "the picture is damaged"),
        (encode(NOISE, "WEBP")[:-500], "damaged"),
        (header_only_png(8, 8), "the picture is damaged"),
        (header_only_png(20_000, 20_000), "20,000 x 20,000 pixels, more than 40,000,000; give a"),
        (second_header_png(), "too large|over the limit|damaged"),
        (header_only_png(1, 30_000), "too thin: 1x30000"),
        (encode(NOISE, "TIFF"), "not PNG, JPEG or WebP"),
        (encode(NOISE, "GIF", save_all=True, append_images=[FLAG]), "not PNG, JPEG or WebP"),
        (encode(NOISE, "BMP"), "not PNG, JPEG or WebP"),
        (b"<!doctype html><script>alert(1)</script>", "not PNG, JPEG or WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "not PNG, JPEG or WebP"),
        (b"a text that somebody called .png", "not PNG, JPEG or WebP"),
    ],
    ids=["empty", "cut-jpeg", "cut-png", "cut-webp", "no-pixels", "bomb", "two-headers", "thin",
         "tiff", "gif", "bmp", "html", "svg", "text"],
)  # fmt: skip
def test_what_is_no_good_picture_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(PageFault, match=message) as caught:
        UPLOADS.read(path)
    assert str(tmp_path) not in str(caught.value), "the server's folders are its own business"


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/fox.png", "https://x/y.png", "file:///etc/passwd", "data:image/png;,",
     "fox.png", "../fox.png", "", Path("http://127.0.0.1:9/fox.png"), b"/etc/passwd", 7,
     {"path": "/etc/passwd"}],
)  # fmt: skip
def test_only_uploads_are_opened(address: object) -> None:
    with pytest.raises(PageFault, match="must be uploaded from your device; addresses are not"):
        UPLOADS.read(address)


def test_nothing_is_fetched() -> None:
    """An address that would be asked is one that can be listened on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with pytest.raises(PageFault):
            UPLOADS.read(f"http://127.0.0.1:{listener.getsockname()[1]}/fox.png")
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    link, pipe = tmp_path / "link.png", tmp_path / "pipe.png"
    link.symlink_to(write(tmp_path, encode(NOISE)))
    os.mkfifo(pipe)
    for path in (link, tmp_path / "none.png", f"{tmp_path}/a\0b.png", "/" + "x" * 5000):
        with pytest.raises(PageFault, match="not on the server any more; upload it again"):
            UPLOADS.read(path)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(PageFault, match=r"is no file|not on the server"):
            UPLOADS.read(path)
    with pytest.raises(PageFault, match="there is no picture yet; choose one first"):
        UPLOADS.read(None)


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(encode(NOISE))
        file.truncate(1 << 40)
    with pytest.raises(PageFault, match="the picture has over 20 MiB; give a smaller copy"):
        UPLOADS.read(path)
    assert read_upload_bytes(write(tmp_path, b"12"), 2) == b"12"
    with pytest.raises(PageFault, match="the file has over"):
        read_upload_bytes(write(tmp_path, b"123"), 2)


# ----------------------------------------------------------------------- what befalls the child


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture whose decoding takes seconds."""
    image = Image.new("RGBA", (6000, 6000), (1, 2, 3, 4))
    return write(tmp_path_factory.mktemp("large"), encode(image, compress_level=1))


def test_memory_is_limited(tmp_path: Path) -> None:
    path = write(tmp_path, encode(Image.new("RGBA", (3000, 3000), (1, 2, 3, 4)), compress_level=1))
    with pytest.raises(PageFault, match="the picture needs too much memory; give a smaller copy"):
        Uploads(Limits(decode_bytes=176 * 1024**2)).read(path)
    assert UPLOADS.read(write(tmp_path, encode(FLAG))).size == FLAG.size


def test_time_is_limited(large: Path) -> None:
    started = time.monotonic()
    with pytest.raises(PageFault, match="opening the picture took over 1 s; give a smaller copy"):
        Uploads(Limits(decode_seconds=1)).read(large)
    assert time.monotonic() - started < 20
    assert not children()


def children() -> list[int]:
    """Processes of ours that decode; one that ends while it is looked at does not count."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in (task / "children").read_text().split():
                if b"dalle.page.decode" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_the_server_survives_a_crashing_child(tmp_path: Path, large: Path) -> None:
    """What a fault in a native decoder looks like from outside."""
    uploads = Uploads(Limits(decoding=1))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(uploads.read, large)
        while not (found := children()):
            time.sleep(0.005)
        os.kill(found[0], signal.SIGSEGV)
        with pytest.raises(PageFault, match="cannot be opened safely; save it anew"):
            reading.result(timeout=30)
    assert uploads.read(write(tmp_path, encode(FLAG))).size == FLAG.size, "its place is free again"


def test_the_child_can_open_no_files() -> None:
    """Seen from inside: what a hijacked decoder would find."""
    limits = DecodeLimits(pixels=100, memory_bytes=1 << 30, cpu_seconds=5).to_json()
    program = (
        "import json, sys; from dalle.page.decode import DecodeLimits, restrict\n"
        "restrict(DecodeLimits(**json.loads(sys.argv[1])))\n"
        "try: open('/dev/null')\nexcept OSError as err: print(err.errno)\n"
        "import resource as r; print([r.getrlimit(k) for k in (r.RLIMIT_AS, r.RLIMIT_FSIZE)])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, limits], capture_output=True, text=True, check=False
    )
    assert run.stdout.split("\n")[0] == "24", run.stderr  # EMFILE
    assert str(((1 << 30, 1 << 30), (4396, 4396)))[1:-1] in run.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_the_child_inherits_no_secrets(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "canary")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(UPLOADS.read, large)
        while not (found := children()):
            time.sleep(0.005)
        seen = Path(f"/proc/{found[0]}/environ").read_bytes()
        os.kill(found[0], signal.SIGKILL)
        assert reading.exception(timeout=30)
    assert b"PATH=" in seen
    assert b"canary" not in seen


def test_few_pictures_are_decoded_at_the_same_time(tmp_path: Path) -> None:
    uploads, most, done = Uploads(Limits(decoding=2)), 0, threading.Event()
    path = write(tmp_path, encode(FLAG))

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, len(children()))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(6) as pool:
        sizes = list(pool.map(lambda _: uploads.read(path).size, range(6)))
    done.set()
    watcher.join()
    assert sizes == [FLAG.size] * 6
    assert most == 2


def test_who_waits_too_long_is_told_so(tmp_path: Path) -> None:
    uploads = Uploads(Limits(decoding=1, decode_seconds=1))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(uploads._places.acquire).result()
    with pytest.raises(PageFault, match="too many pictures are being opened just now; try again"):
        uploads.read(write(tmp_path, encode(FLAG)))
