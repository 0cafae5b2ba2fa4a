"""Combinations that training never shows, chosen by hash and never by hand.

A combination is held out when the SHA-256 of its kind and parts, read as a fraction, falls under
its kind's rate. The choice depends on names alone: not on the seed, the font, or which subjects
are in use. The two-panel transform held out is the one whose hash is lowest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dalle.data.emoji.looks import LOOKS, suits
from dalle.data.emoji.palette import BACKGROUNDS, DEFAULT_BACKGROUND
from dalle.data.emoji.scene import Scene
from dalle.data.emoji.subjects import Subject

RATES = {
    "subject, look": 0.10,
    "subject, background": 0.10,
    "subject, count": 0.10,
    "subject, subject": 0.10,
    "profession, tone": 0.10,
}
"""Held-out share of each kind of combination; pairs of subjects count in either order."""

COUNTS = (2, 3, 4)
"""Numbers of equal subjects a scene can show."""

_SALT = "dalle emoji scenes, held out, 1"


@lru_cache(maxsize=100_000)
def _fraction(kind: str, *parts: str) -> float:
    """A hash of the combination as a number in [0, 1)."""
    digest = hashlib.sha256("\n".join((_SALT, kind, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_held_out(kind: str, *parts: str) -> bool:
    """Whether the combination of `parts` is one that training never shows."""
    return _fraction(kind, *parts) < RATES[kind]


def heldout_transform() -> str:
    """The look that training shows in single pictures only, never as a bottom panel."""
    return min(LOOKS, key=lambda look: _fraction("transform", look))


def heldout_combinations(scene: Scene) -> tuple[str, ...]:
    """Every held-out combination in `scene`, as "kind: part + part", each once, sorted."""
    found = {
        f"{kind}: {' + '.join(parts)}"
        for kind, parts in _combinations(scene)
        if is_held_out(kind, *parts)
    }
    if scene.kind == "panels" and scene.look == heldout_transform():
        found.add(f"transform: {scene.look}")
    return tuple(sorted(found))


def _combinations(scene: Scene) -> Iterator[tuple[str, tuple[str, ...]]]:
    names = list(dict.fromkeys(placed.subject.unicode_name for placed in scene.placed))
    for placed in scene.placed:
        subject = placed.subject
        if placed.look is not None:
            yield "subject, look", (subject.unicode_name, placed.look)
        if subject.profession is not None and subject.tone is not None:
            yield "profession, tone", (subject.profession, subject.tone)
    if scene.background_named and scene.background != DEFAULT_BACKGROUND:
        for name in names:
            yield "subject, background", (name, scene.background)
    if scene.kind == "count":
        yield "subject, count", (names[0], str(len(scene.placed)))
    if scene.kind == "pair":
        yield "subject, subject", tuple(sorted(names))


@dataclass(frozen=True, kw_only=True)
class HeldOutCount:
    """How many combinations of one kind exist, and how many of them are held out."""

    kind: str
    held_out: int
    total: int


def count_held_out(subjects: Sequence[Subject]) -> tuple[HeldOutCount, ...]:
    """The data card's table: held-out combinations of each kind among `subjects`."""
    names = sorted(subject.unicode_name for subject in subjects)
    backgrounds = [name for name in BACKGROUNDS if name != DEFAULT_BACKGROUND]
    counted = [subject.unicode_name for subject in subjects if subject.plural]
    people = {(s.profession, s.tone) for s in subjects if s.profession and s.tone}
    return (
        _count(
            "subject, look",
            ((s.unicode_name, k) for s in subjects for k in LOOKS if suits(k, s.name)),
        ),
        _count("subject, background", ((n, colour) for n in names for colour in backgrounds)),
        _count("subject, count", ((n, str(count)) for n in counted for count in COUNTS)),
        _count(
            "subject, subject",
            ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]),
        ),
        _count("profession, tone", ((str(p), str(t)) for p, t in people)),
        HeldOutCount(kind="transform", held_out=1, total=len(LOOKS)),
    )


def _count(kind: str, combinations: Iterable[tuple[str, ...]]) -> HeldOutCount:
    verdicts = [is_held_out(kind, *parts) for parts in combinations]
    return HeldOutCount(kind=kind, held_out=sum(verdicts), total=len(verdicts))
