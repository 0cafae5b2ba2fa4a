"""Named colours: backgrounds, and the colours a subject can be painted in."""

from __future__ import annotations

Rgb = tuple[int, int, int]

DEFAULT_BACKGROUND = "white"
"""The background of every scene whose caption names none."""

BACKGROUNDS: dict[str, Rgb] = {
    "white": (255, 255, 255),
    "black": (24, 24, 26),
    "gray": (158, 160, 164),
    "red": (222, 62, 58),
    "orange": (247, 148, 52),
    "yellow": (252, 222, 84),
    "green": (96, 184, 96),
    "blue": (72, 138, 226),
    "purple": (146, 98, 204),
    "pink": (248, 164, 200),
    "brown": (146, 100, 68),
}

# Dark, middle and light of each ramp: shadows, flats and highlights of a painted subject.
PAINTS: dict[str, tuple[Rgb, Rgb, Rgb]] = {
    "red": ((88, 6, 10), (216, 40, 40), (255, 196, 188)),
    "blue": ((8, 20, 92), (44, 100, 222), (190, 216, 255)),
    "green": ((6, 58, 18), (48, 160, 64), (196, 240, 196)),
    "pink": ((120, 16, 72), (240, 108, 172), (255, 218, 236)),
    "violet": ((46, 10, 92), (136, 72, 208), (222, 200, 252)),
    "yellow": ((112, 78, 0), (244, 202, 36), (255, 246, 190)),
}

COLOUR_WORDS = frozenset({*BACKGROUNDS, *PAINTS, "golden"})
"""Words that, in a subject's own name, forbid painting it another colour."""
