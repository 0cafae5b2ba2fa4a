"""What can be drawn: every emoji of the font, with natural names, and the core among them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import emoji

from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.names import natural_name, plural, split_tone

_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
_TAG_CHARACTERS = range(0xE0020, 0xE0080)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One drawing and what it is called."""

    name: str
    """Natural English name, lower case, unique, without article."""
    unicode_name: str
    """The emoji's English Unicode name (CLDR short name), lower case."""
    glyph: str
    """The code points that make the font draw it."""
    group: str
    """Section of the core list; "other" outside it."""
    aliases: tuple[str, ...] = ()
    """Other everyday names, each naming this subject alone."""
    plural: str | None = None
    """Several of it; None where that has no natural name or the subject is outside the core."""
    profession: str | None = None
    """Unicode name without skin tone, where the drawing has one."""
    tone: str | None = None
    """Skin tone, two joined by "and"; None where the drawing names none."""


@dataclass(frozen=True)
class _CoreEntry:
    group: str
    name: str
    aliases: tuple[str, ...]


def core_names() -> list[str]:
    """Everyday names of the core list, whatever the font draws, sorted."""
    return sorted(entry.name for entry in _read_core().values())


@lru_cache(maxsize=4)
def list_subjects(font: EmojiFont, which: Literal["core", "all"]) -> tuple[Subject, ...]:
    """The subjects that `font` draws as one drawing each, sorted by name.

    Args:
        font: Font to draw with; emoji newer than the font are left out.
        which: Everything, or the core list that a small model can learn.
    """
    core = _read_core()
    subjects = []
    for glyph, unicode_name in _qualified_emoji():
        entry = core.get(unicode_name)
        if (which == "all" or entry is not None) and font.draws(glyph):
            subjects.append(_subject(glyph, unicode_name, entry))
    return tuple(sorted(subjects, key=lambda subject: subject.name))


def _qualified_emoji() -> list[tuple[str, str]]:
    """Every fully qualified emoji: its code points and its English name, lower case, in words."""
    qualified = emoji.STATUS["fully_qualified"]
    return [
        (glyph, unicodedata.normalize("NFC", _words(entry["en"])))
        for glyph, entry in emoji.EMOJI_DATA.items()
        if entry["status"] == qualified
    ]


def _words(short_name: str) -> str:
    return (
        short_name.strip(":")
        .replace("_", " ")
        .replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        .lower()
    )


def _subject(glyph: str, unicode_name: str, entry: _CoreEntry | None) -> Subject:
    profession, tone = split_tone(unicode_name)
    in_core = entry is not None
    if entry is None:
        entry = _CoreEntry("other", natural_name(unicode_name, is_flag=_is_flag(glyph)), ())
    return Subject(
        name=entry.name,
        unicode_name=unicode_name,
        glyph=glyph,
        group=entry.group,
        aliases=entry.aliases,
        plural=plural(entry.name) if in_core else None,
        profession=profession if tone else None,
        tone=tone,
    )


def _is_flag(glyph: str) -> bool:
    return any(
        ord(point) in _REGIONAL_INDICATORS or ord(point) in _TAG_CHARACTERS for point in glyph
    )


def _read_core() -> dict[str, _CoreEntry]:
    """The core list by Unicode name; the file's head explains its form."""
    entries: dict[str, _CoreEntry] = {}
    group = ""
    text = files("dalle.data.emoji").joinpath("core.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif line and not line.startswith("#"):
            names, _, others = (part.strip() for part in line.partition("="))
            unicode_name, _, everyday = (part.strip() for part in names.partition("->"))
            aliases = tuple(alias.strip() for alias in others.split(",") if alias.strip())
            entries[unicode_name] = _CoreEntry(group, everyday or unicode_name, aliases)
    return entries
