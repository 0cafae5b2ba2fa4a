"""The child process that decodes an uploaded picture: `python -m dalle.page.decode LIMITS`.

The file comes on stdin; on stdout goes one line of JSON, then the pixels as they are: RGB, row
by row. Before it reads the first byte the process gives up what it does not need: memory, time,
opening files. What happens to it happens to nobody else.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

from PIL import Image

from dalle.data.images import open_rgb
from dalle.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What the child may use; its command line is this as JSON."""

    pixels: int
    """Most pixels of the picture."""
    memory_bytes: int
    """Address space."""
    cpu_seconds: int
    """Time of the processor; ends the process also where nobody waits for it any more."""

    def to_json(self) -> str:
        """The command line that `main` reads."""
        return json.dumps(asdict(self))


HEAD_BYTES = 4096
"""The longest first line."""
_REASON_CHARS = 300  # each at most 12 bytes of JSON, so that a reason always fits the line
_TOO_LARGE = "the picture needs too much memory; give a smaller copy"


def restrict(limits: DecodeLimits) -> None:
    """Give up what decoding does not need, for good.

    Where the system has no such limits (Windows has none, macOS not all), the time that the parent
    waits is the only one.
    """
    try:
        import resource
    except ImportError:
        return
    output_bytes = HEAD_BYTES + 3 * limits.pixels
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, output_bytes),
        (resource.RLIMIT_NOFILE, 3),  # stdin, stdout and stderr are open; nothing else will be
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):
            continue


def main(argv: list[str]) -> int:
    """Decode what comes on stdin; 0 if stdout tells what became of it."""
    limits = DecodeLimits(**json.loads(argv[0]))
    Image.init()  # loads Pillow's readers while files can still be opened
    restrict(limits)
    answer: dict[str, int | str]
    pixels = b""
    try:
        image = open_rgb(sys.stdin.buffer.read(), max_pixels=limits.pixels)
        answer = {"width": image.width, "height": image.height}
        pixels = image.tobytes()
    except DataError as err:
        needs_memory = isinstance(err.__cause__, MemoryError)
        answer = {"refused": _TOO_LARGE if needs_memory else str(err)[:_REASON_CHARS]}
    except MemoryError:
        answer = {"refused": _TOO_LARGE}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.write(pixels)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
