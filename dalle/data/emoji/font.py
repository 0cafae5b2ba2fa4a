"""The colour emoji font: where systems keep it, and its drawings as pictures."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont

from dalle.errors import FontError

PLACES = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",  # Debian, Ubuntu
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",  # Fedora
    "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",  # Fedora, older
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",  # Arch, Alpine
    "/usr/share/fonts/TTF/NotoColorEmoji.ttf",
    "/usr/local/share/fonts/NotoColorEmoji.ttf",
    "~/.local/share/fonts/NotoColorEmoji.ttf",
    "~/.fonts/NotoColorEmoji.ttf",
    "~/Library/Fonts/NotoColorEmoji.ttf",
    "/Library/Fonts/NotoColorEmoji.ttf",
    "/System/Library/Fonts/Apple Color Emoji.ttc",  # macOS
)

REMEDY = (
    "install fonts-noto-color-emoji (Debian, Ubuntu) or google-noto-color-emoji-fonts (Fedora), "
    "use Apple Color Emoji, which macOS has, or name a font file with bitmap strikes with --font"
)

# Bitmap fonts open only at the sizes they hold: Noto has 109, Apple up to 160.
_STRIKES = (109, 160, 128, 136, 96, 72, 64)
_REFERENCE = "\U0001f98a"  # fox face: in every emoji font since 2016
# Drawings kept per process; at a 128-pixel strike this is about 70 MB.
_KEPT_RASTERS = 1024


class EmojiFont:
    """A colour font that Pillow can draw, opened at its largest bitmap strike.

    Args:
        path: Font file.

    Raises:
        FontError: The file is missing, no font, or has no colour bitmaps that Pillow draws.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._font = _open_strike(path)
        self._advance = self._font.getlength(_REFERENCE)
        if not self.draws(_REFERENCE) or not _is_coloured(self._draw(_REFERENCE)):
            raise FontError(f"font {path} draws no colour emoji in Pillow; {REMEDY}")
        self._raster = lru_cache(maxsize=_KEPT_RASTERS)(self._draw)

    def draws(self, glyph: str) -> bool:
        """Whether the font draws `glyph`, a string of code points, as one drawing.

        A sequence that the font (or a Pillow without libraqm) does not know falls apart into
        several drawings, which shows in its advance; an unknown code point draws nothing.
        """
        if self._font.getlength(glyph) != self._advance:
            return False
        left, top, right, bottom = self._font.getbbox(glyph)
        return right - left > 0 and bottom - top > 0

    def raster(self, glyph: str) -> Image.Image:
        """The drawing of `glyph` in RGBA, cut to its visible part; treat it as read-only."""
        return self._raster(glyph)

    def sha256(self) -> str:
        """Hash of the font file, which with the seed decides every pixel."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def _draw(self, glyph: str) -> Image.Image:
        side = int(self._font.size * 2)
        canvas = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        draw = ImageDraw.Draw(canvas)
        draw.text((side // 4, side // 4), glyph, font=self._font, embedded_color=True)
        return canvas.crop(canvas.getchannel("A").getbbox())


def find_font(named: Path | None = None) -> EmojiFont:
    """The font to draw with: the one named, or the first usable one where systems keep it.

    Args:
        named: Font file the user asked for; None looks in the usual places, then asks fontconfig.

    Raises:
        FontError: The named file cannot be used, or no usable font was found anywhere.
    """
    if named is not None:
        return _opened(named)
    candidates = [Path(place).expanduser() for place in PLACES]
    for path in (*(place for place in candidates if place.is_file()), *_ask_fontconfig()):
        try:
            return _opened(path)
        except FontError:
            continue  # for instance an outline-only (COLRv1) build; the next one may do
    raise FontError(f"no colour emoji font was found; {REMEDY}")


def _opened(path: Path) -> EmojiFont:
    """The font in a file; whoever asks for it again shares what it has drawn."""
    about = path.stat() if path.is_file() else None
    return _unchanged(path, about and about.st_mtime_ns, about and about.st_size)


@lru_cache(maxsize=2)
def _unchanged(path: Path, _mtime_ns: int | None, _bytes: int | None) -> EmojiFont:
    return EmojiFont(path)


def _open_strike(path: Path) -> ImageFont.FreeTypeFont:
    if not path.is_file():
        raise FontError(f"font {path} does not exist; {REMEDY}")
    for size in _STRIKES:
        try:
            return ImageFont.truetype(path, size)
        except OSError:
            continue  # not one of this font's strikes
    raise FontError(f"font {path} cannot be opened as a bitmap emoji font; {REMEDY}")


def _is_coloured(image: Image.Image) -> bool:
    red, _, blue, _ = image.split()
    return ImageChops.difference(red, blue).getbbox() is not None


def _ask_fontconfig() -> list[Path]:
    """The font that fontconfig would show emoji with, if there is a fontconfig."""
    program = shutil.which("fc-match")
    if program is None:
        return []
    try:
        answer = subprocess.run(
            [program, "--format=%{file}", "emoji:color=true"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    path = Path(answer.stdout.strip())
    return [path] if path.is_file() else []
