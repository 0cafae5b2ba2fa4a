"""Fonts for labels on sheets: of those that a machine has, one that knows the letters.

The font that Pillow brings knows English letters and few others.
"""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

log = logging.getLogger(__name__)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FONTS = (
    # Latin, Greek and Cyrillic, on Linux, on macOS, on Windows; the second stands for all of macOS.
    *("DejaVuSans.ttf", "Arial Unicode.ttf", "segoeui.ttf", "NotoSans-Regular.ttf"),
    *("LiberationSans-Regular.ttf", "FreeSans.ttf"),
    # Chinese, Japanese, Korean
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "msyh.ttc", "malgun.ttf"),
    *("YuGothR.ttc", "unifont.otf"),
    # Further scripts
    *("NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansThai-Regular.ttf"),
    *("NotoSansDevanagari-Regular.ttf", "NotoSansBengali-Regular.ttf", "Nirmala.ttf"),
    *("NotoSansTamil-Regular.ttf", "LeelawUI.ttf"),
)
"""Files of fonts that systems come with, in the order in which they are asked; Pillow knows where
each system keeps its fonts."""
_UNKNOWN = "\U0010ffff"
"""A character of no script, for which a font shows what it shows for all that it does not know."""


def font_for(text: str, px: int) -> Font:
    """The font of `px` pixels that knows all letters of `text`, or most of them.

    English is written in Pillow's own font, so that it looks alike everywhere.
    """
    own = _own(px)
    letters = {char for char in text if not char.isspace()}
    best, lacking = own, _lacking(own, letters)
    for name in FONTS:
        if not lacking:
            return best
        font = _named(name, px)
        if font is not None and len(fewer := _lacking(font, letters)) < len(lacking):
            best, lacking = font, fewer
    if lacking:
        _tell_once()
    return best


def _lacking(font: Font, letters: set[str]) -> set[str]:
    return {letter for letter in letters if not _knows(font, letter)}


@lru_cache(maxsize=4096)
def _knows(font: Font, letter: str) -> bool:
    if letter.isascii():
        return True
    try:
        shown, unknown = font.getmask(letter), font.getmask(_UNKNOWN)
    except UnicodeError:  # Pillow's own font where it was built without FreeType
        return False
    return shown.size != unknown.size or bytes(shown) != bytes(unknown)


@cache
def _own(px: int) -> Font:
    return ImageFont.load_default(px)


@cache
def _named(name: str, px: int) -> Font | None:
    """A font by its file's name, where the system or matplotlib, which has one, keeps it."""
    places = [name]
    # Found, not imported, which would take a second.
    if (found := find_spec("matplotlib")) is not None and found.origin is not None:
        places.append(str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name))
    for place in places:
        try:
            return ImageFont.truetype(place, px)
        except OSError:
            continue
    return None


@cache
def _tell_once() -> None:
    log.warning(
        "no font of this machine knows all letters of the labels, so that boxes stand for some; "
        "install one (Debian: apt-get install fonts-noto-core fonts-noto-cjk)"
    )
