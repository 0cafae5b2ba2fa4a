"""Captions: many natural wordings of the same scene, and which of them was taken.

In a template, {a} is a subject with its article and {bare} is its name alone; {b} and {bare_b} are
the second subject's. The two-panel wordings follow the DALL-E paper (arXiv:2102.12092, figure 14)
and its blog post.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dalle.data.emoji.dice import Dice
from dalle.data.emoji.names import plural, with_adjective, with_article
from dalle.data.emoji.palette import PAINTS

if TYPE_CHECKING:  # these load Pillow, and the command line needs only the looks' names
    from dalle.data.emoji.scene import Relation, Scene
    from dalle.data.emoji.subjects import Subject

Weighted = tuple[tuple[float, str], ...]

_ALIAS_SHARE = 0.3
_CAPITAL_SHARE = 0.05
_FULL_STOP_SHARE = 0.03
_UNNAMED_PHOTO_SHARE = 0.1

_PLAIN: Weighted = (
    (50, "{a}"),
    (25, "{bare}"),
    (5, "a picture of {a}"),
    (5, "a photo of {a}"),
    (4, "an image of {a}"),
    (4, "an emoji of {a}"),
    (4, "a drawing of {a}"),
    (3, "{bare} emoji"),
)

_BACKGROUND: Weighted = (
    (34, "{a} on {a_color} background"),
    (30, "{bare} on {a_color} background"),
    (10, "{a} with {a_color} background"),
    (8, "{a} in front of {a_color} background"),
    (8, "{bare} on {color}"),
    (5, "{bare}, {color} background"),
    (5, "a picture of {a} on {a_color} background"),
)

_SIZE: Weighted = (
    (60, "{a_sized}"),
    (20, "{sized}"),
    (10, "a picture of {a_sized}"),
    (10, "an image of {a_sized}"),
)

_SIZE_WORDS = {
    "small": ((50, "small"), (25, "tiny"), (25, "little")),
    "large": ((40, "large"), (35, "big"), (25, "huge")),
}

_COUNT: Weighted = (
    (60, "{number} {many}"),
    (12, "{digit} {many}"),
    (10, "a picture of {number} {many}"),
    (9, "a group of {number} {many}"),
    (9, "there are {number} {many}"),
)

_NUMBERS = {2: "two", 3: "three", 4: "four"}

_PAIR: dict[Relation, Weighted] = {
    "left of": (
        (20, "{a} to the left of {b}"),
        (16, "{a} left of {b}"),
        (14, "{a} on the left and {b} on the right"),
        (25, "{a} next to {b}"),
        (10, "{a} beside {b}"),
        (15, "{a} and {b}"),
    ),
    "right of": ((50, "{a} to the right of {b}"), (50, "{a} right of {b}")),
    "above": (
        (45, "{a} above {b}"),
        (20, "{a} on top of {b}"),
        (15, "{a} over {b}"),
        (20, "{a} at the top and {b} at the bottom"),
    ),
    "below": ((45, "{a} below {b}"), (35, "{a} under {b}"), (20, "{a} beneath {b}")),
}


@dataclass(frozen=True, kw_only=True)
class _LookWording:
    """How a look is said of a single picture and of a bottom panel."""

    single: tuple[str, ...]
    """The whole caption."""
    reflected: tuple[str, ...]
    """What follows "the exact same fox on the top"."""
    panel: tuple[str, ...]
    """What follows "on the bottom," in the two-panel wording."""


_LOOKS: dict[str, _LookWording] = {
    "sketch": _LookWording(
        single=("a sketch of {a}", "a pencil sketch of {a}", "{a} as a sketch", "sketch of {a}"),
        reflected=("as a sketch", "as a pencil sketch"),
        panel=("a sketch of the {bare}", "the {bare} as a sketch"),
    ),
    "grayscale": _LookWording(
        single=("a grayscale {bare}", "{a} in grayscale", "a black and white photo of {a}"),
        reflected=("in grayscale", "as a black and white photo"),
        panel=("the {bare} in grayscale", "a photo of the {bare} in grayscale"),
    ),
    "upside-down": _LookWording(
        single=("an upside-down {bare}", "{a} upside down", "{a} reflected upside-down"),
        reflected=("reflected upside-down", "upside down"),
        panel=("the {bare} reflected upside-down", "the {bare} upside down"),
    ),
    "silhouette": _LookWording(
        single=("a silhouette of {a}", "the silhouette of {a}", "{a} as a silhouette"),
        reflected=("as a silhouette", "as a black silhouette"),
        panel=("a silhouette of the {bare}", "the {bare} as a silhouette"),
    ),
    "neon": _LookWording(
        single=("a neon sign of {a}", "a neon {bare}", "{a} as a neon sign"),
        reflected=("as a neon sign", "in neon lights"),
        panel=("a neon sign of the {bare}", "the {bare} as a neon sign"),
    ),
    "pixel art": _LookWording(
        single=("pixel art of {a}", "{a} in pixel art", "{bare}, pixel art", "a pixelated {bare}"),
        reflected=("as pixel art", "in pixel art"),
        panel=("pixel art of the {bare}", "the {bare} as pixel art"),
    ),
    "close-up": _LookWording(
        single=("a close-up of {a}", "an extreme close-up view of {a}", "{a} in close-up"),
        reflected=("in an extreme close-up view", "in close-up"),
        panel=(
            "an extreme close-up view of the {bare} in the photo",
            "a close-up of the {bare}",
        ),
    ),
    "postage stamp": _LookWording(
        single=("a postage stamp with {a}", "a postage stamp of {a}", "{a} on a postage stamp"),
        reflected=("as a postage stamp", "on a postage stamp"),
        panel=("a postage stamp with the {bare}", "the {bare} as a postage stamp"),
    ),
    "sunglasses": _LookWording(
        single=("{a} with sunglasses", "{a} wearing sunglasses", "{bare} with sunglasses"),
        reflected=("with sunglasses", "wearing sunglasses"),
        panel=("the {bare} with sunglasses", "the {bare} wearing sunglasses"),
    ),
    "hat": _LookWording(
        single=("{a} wearing a hat", "{a} with a hat", "{bare} in a hat"),
        reflected=("wearing a hat", "with a hat"),
        panel=("the {bare} wearing a hat", "the {bare} with a hat"),
    ),
    **{
        f"colored {paint}": _LookWording(
            single=(f"{{a}} colored {paint}", "{a_painted}", f"{{bare}} colored {paint}"),
            reflected=(f"colored {paint}", f"painted {paint}"),
            panel=(f"the {{bare}} colored {paint}", f"a photo of the {{bare}} colored {paint}"),
        )
        for paint in PAINTS
    },
}

LOOK_NAMES = tuple(_LOOKS)
"""Every look that a caption can speak of."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A caption and how it came about."""

    caption: str
    template: str
    """The scene's kind and the template taken."""
    called: tuple[str, ...]
    """Which name each different subject was given, in the order of the scene."""


def word(scene: Scene, dice: Dice) -> Wording:
    """A caption for `scene`, one of many that would be true."""
    subjects = tuple(dict.fromkeys(placed.subject for placed in scene.placed))
    called = tuple(_call(subject, dice) for subject in subjects)
    template, terms = _template(scene, called[0], dice)
    terms |= {"a": with_article(called[0]), "bare": called[0]}
    if len(called) > 1:
        terms |= {"b": with_article(called[1]), "bare_b": called[1]}
    suffix = ""
    if scene.background_named:
        terms |= {
            "color": scene.background,
            "a_color": with_article(scene.background),
        }
        suffix = "" if scene.kind == "background" else " on {a_color} background"
    caption = (template + suffix).format(**terms)
    return Wording(
        caption=_dress(caption, dice), template=f"{scene.kind}: {template}{suffix}", called=called
    )


def _call(subject: Subject, dice: Dice) -> str:
    if subject.aliases and dice.chance(_ALIAS_SHARE):
        return dice.pick(subject.aliases)
    return subject.name


def _template(scene: Scene, name: str, dice: Dice) -> tuple[str, dict[str, str]]:
    """The wording for the scene's kind, and the terms that only this kind knows."""
    match scene.kind:
        case "plain" | "background":
            return dice.weigh(_PLAIN if scene.kind == "plain" else _BACKGROUND), {}
        case "size":
            assert scene.size is not None, "a size scene names its size"
            adjective = dice.weigh(_SIZE_WORDS[scene.size])
            sized = f"{adjective} {name}"
            return dice.weigh(_SIZE), {"a_sized": with_adjective(adjective, name), "sized": sized}
        case "count":
            count = len(scene.placed)
            many = plural(name) or scene.placed[0].subject.plural or name
            terms = {"number": _NUMBERS[count], "digit": str(count), "many": many}
            return dice.weigh(_COUNT), terms
        case "pair":
            assert scene.relation is not None, "a pair scene names its relation"
            return dice.weigh(_PAIR[scene.relation]), {}
        case "look":
            assert scene.look is not None, "a look scene names its look"
            painted = with_adjective(scene.look.removeprefix("colored "), name)
            return dice.pick(_LOOKS[scene.look].single), {"a_painted": painted}
        case "panels":
            assert scene.look is not None, "a two-panel scene names its transform"
            return _panel_template(_LOOKS[scene.look], dice), {}


def _panel_template(wording: _LookWording, dice: Dice) -> str:
    if dice.chance(_UNNAMED_PHOTO_SHARE):
        return _exact_same("photo", dice.pick(wording.reflected))
    if dice.chance(0.6):
        return _exact_same("{bare}", dice.pick(wording.reflected))
    return (
        "2 panel image of the exact same {bare}. on the top, a photo of the {bare}. "
        f"on the bottom, {dice.pick(wording.panel)}."
    )


def _exact_same(noun: str, change: str) -> str:
    return f"the exact same {noun} on the top {change} on the bottom"


def panel_caption(look: str, subject: str | None) -> str:
    """A short two-panel caption of `look`, one of those that training has.

    For instance "the exact same fox on the top as a sketch on the bottom". The paper words
    close-ups and sunglasses as "2 panel image of the exact same cat. ..."; such captions are more
    than twice as long, and one in five would not fit into the bundled model's 32 caption tokens.
    These take 22 at most there.

    Args:
        look: A member of `LOOK_NAMES`.
        subject: What the picture shows, without article; None speaks of a photo.

    Raises:
        ValueError: There is no such look.
    """
    _check_look(look)
    return _exact_same("photo" if subject is None else subject, _LOOKS[look].reflected[0])


def look_caption(look: str, subject: str) -> str:
    """A caption of `look` in a picture of its own: "a sketch of a fox".

    Args:
        look: A member of `LOOK_NAMES`.
        subject: What the picture shows, without article.

    Raises:
        ValueError: There is no such look.
    """
    _check_look(look)
    return _LOOKS[look].single[0].format(a=with_article(subject), bare=subject)


def _check_look(look: str) -> None:
    if look not in _LOOKS:
        raise ValueError(f"look must be one of {', '.join(LOOK_NAMES)}, got {look!r}")


def _dress(caption: str, dice: Dice) -> str:
    """`caption` as people type: mostly lower case, now and then with a capital or a full stop."""
    if dice.chance(_CAPITAL_SHARE):
        caption = caption[0].upper() + caption[1:]
    if dice.chance(_FULL_STOP_SHARE) and not caption.endswith("."):
        caption += "."
    return caption
