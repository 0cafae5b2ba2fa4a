"""Named transforms: one word for the caption that redraws a picture below itself in another look.

The captions are those of the two-panel emoji scenes, which follow the DALL-E paper
(arXiv:2102.12092, figure 14) and its blog post. Nothing heavy is imported here, so that a wrong
name is answered at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dalle.data.emoji.wording import LOOK_NAMES, panel_caption
from dalle.options import nearest
from dalle.prompts import MAX_CAPTION_CHARS, normalise

_PAINT = "colored "
_ALIASES = {"postage stamp": ("stamp",), "grayscale": ("greyscale",)}
_ARTICLE = re.compile(r"^(?:an?|the) (?=\S)")


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A look by the name that people type."""

    name: str
    """Lower case, one word or words with hyphens: "sketch", "pixel-art", "red"."""
    look: str
    """Its name in emoji scenes and their ground truth: "sketch", "pixel art", "colored red"."""
    aliases: tuple[str, ...] = ()
    """Other names that are understood."""


TRANSFORMS = tuple(
    Transform(
        name=look.removeprefix(_PAINT).replace(" ", "-"),
        look=look,
        aliases=_ALIASES.get(look, ()),
    )
    for look in LOOK_NAMES
)
"""Every transform, colours last."""

_BY_NAME = {name: one for one in TRANSFORMS for name in (one.name, *one.aliases)}


def find_transform(name: str) -> Transform:
    """The transform called `name`, in capitals or not, with spaces or hyphens.

    The look's own name ("colored red") is understood as well.

    Raises:
        TypeError: `name` is not a string.
        ValueError: There is no such transform; the nearest one is named.
    """
    if not isinstance(name, str):
        raise TypeError(f"a transform must be a string, got {type(name).__name__}")
    spelt = re.sub(r"[\s_-]+", "-", name.strip().lower())
    spelt = re.sub(r"^colou?red-", "", spelt)
    if spelt in _BY_NAME:
        return _BY_NAME[spelt]
    match = nearest(spelt, _BY_NAME)
    known = ", ".join(one.name for one in TRANSFORMS)
    remedy = f"did you mean {match}?" if match else f"known: {known}"
    raise ValueError(f"unknown transform {name!r:.60}; {remedy}")


def transform_caption(name: str, subject: str | None = None) -> str:
    """The caption that asks for transform `name` of the picture on top.

    With a subject "the exact same fox on the top as a sketch on the bottom", without one "the exact
    same photo on the top as a sketch on the bottom".

    Args:
        name: A transform's name, as `find_transform` takes it.
        subject: What the picture shows: "fox", "a fox" or "the fox"; None if unsaid.

    Raises:
        TypeError: `name` or `subject` is not a string.
        ValueError: There is no such transform, or the subject is blank, too long or no Unicode.
    """
    transform = find_transform(name)
    return panel_caption(transform.look, None if subject is None else _bare(subject))


def is_zero_shot(name: str) -> bool:
    """Whether training on emoji scenes never showed transform `name` in a two-panel picture.

    Raises:
        TypeError: `name` is not a string.
        ValueError: There is no such transform.
    """
    # Loads Pillow, which the names above do not need.
    from dalle.data.emoji.heldout import heldout_transform

    return find_transform(name).look == heldout_transform()


def _bare(subject: str) -> str:
    """`subject` as captions hold it: normalised, without article."""
    if not isinstance(subject, str):
        raise TypeError(f"a subject must be a string, got {type(subject).__name__}")
    if len(subject) > MAX_CAPTION_CHARS:  # before any work on it
        raise ValueError(
            f"a subject must have at most {MAX_CAPTION_CHARS:,} characters, got {len(subject):,}; "
            "name what the picture shows, such as 'fox'"
        )
    noun = _ARTICLE.sub("", normalise(subject))
    if not noun:
        raise ValueError(
            f"a subject must not be blank, got {subject[:40]!r}; name what the picture shows, such "
            "as 'fox', or leave the subject out"
        )
    return noun
