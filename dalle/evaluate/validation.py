"""How far the judge of attributes can be trusted: what it says of pictures that are known.

It must accept ground-truth renderings, and what a dVAE leaves of them, for nothing that a model
draws can be better; and refuse them beside a caption that is wrong in a single thing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from dalle.data.emoji.dice import Dice
from dalle.data.emoji.heldout import COUNTS
from dalle.data.emoji.looks import LOOKS
from dalle.data.emoji.palette import BACKGROUNDS
from dalle.data.emoji.subjects import Subject
from dalle.evaluate.attributes import Attribute, names_no_subject
from dalle.evaluate.estimators import Rate, share
from dalle.evaluate.judging import Judges, Judging, attribute_judge
from dalle.evaluate.layouts import PAIR_PLACES
from dalle.evaluate.results import Validation

SCENES = 100
"""Scenes that an evaluation validates its judge on, the first of its captions'."""

Truth = Mapping[str, Any]

_VALUES: dict[str, Sequence[Any]] = {
    "count": COUNTS,
    "size": ("small", "large"),
    "relation": tuple(PAIR_PLACES),
    "look": LOOKS,
}


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A scene whose truth is known."""

    number: int
    image: Image.Image
    rebuilt: Image.Image
    truth: Truth
    other: Truth | None
    """That of another scene; None where there is no other."""


@dataclass(frozen=True, kw_only=True)
class _Examined:
    """What a judge said of a scene."""

    accepted: bool
    """The picture."""
    accepted_rebuilt: bool
    """What a dVAE leaves of it."""
    accepted_other: bool | None
    """The picture beside another scene's caption, where there is one."""
    caught: Mapping[Attribute, bool]
    """Of what the caption speaks of: whether the judge finds that the picture does not show it,
    where the caption says something else."""
    caught_rebuilt: Mapping[Attribute, bool]


def validate(
    judges: Judges,
    images: Sequence[Image.Image],
    rebuilt: Sequence[Image.Image],
    truths: Sequence[Truth],
    *,
    seed: int,
) -> Validation:
    """How often a judge is right about pictures whose truth is known.

    Args:
        judges: What is validated, in as many copies as there are processes.
        images: Ground-truth renderings, RGB, as large as the judge wants them.
        rebuilt: The same through a dVAE.
        truths: What each of them shows, as `.json` members of emoji scenes hold it.
        seed: Of the choice of what wrong captions say.

    Raises:
        ValueError: There are no pictures, or one has another size.
    """
    others = (*truths[1:], truths[0]) if len(truths) > 1 else (None,) * len(truths)
    scenes = [
        _Known(number=number, image=image, rebuilt=soft, truth=truth, other=other)
        for number, (image, soft, truth, other) in enumerate(
            zip(images, rebuilt, truths, others, strict=True)
        )
    ]
    examined = list(judges.map(partial(_examine, judges.judging, seed), scenes))
    others_right = [one.accepted_other for one in examined if one.accepted_other is not None]
    return Validation(
        images=share([one.accepted for one in examined]),
        rebuilt=share([one.accepted_rebuilt for one in examined]),
        others=share(others_right) if others_right else None,
        caught=_shares(one.caught for one in examined),
        caught_rebuilt=_shares(one.caught_rebuilt for one in examined),
    )


def _examine(judging: Judging, seed: int, scene: _Known) -> _Examined:
    judge = attribute_judge(judging)
    verdict = judge.judge(scene.image, scene.truth)
    dice = Dice(f"{seed}/validation/{scene.number}")
    caught: dict[Attribute, bool] = {}
    caught_rebuilt: dict[Attribute, bool] = {}
    for attribute in verdict.attributes:
        wrong = wrong_claim(scene.truth, attribute, judge.subjects, dice)
        if wrong is None:
            continue
        for found, picture in ((caught, scene.image), (caught_rebuilt, scene.rebuilt)):
            shown = turned(picture) if attribute == "panels" else picture
            found[attribute] = not judge.judge(shown, wrong).attributes[attribute]
    other_hit = None if scene.other is None else judge.judge(scene.image, scene.other).hit
    return _Examined(
        accepted=verdict.hit,
        accepted_rebuilt=judge.judge(scene.rebuilt, scene.truth).hit,
        accepted_other=other_hit,
        caught=caught,
        caught_rebuilt=caught_rebuilt,
    )


def wrong_claim(
    truth: Truth, attribute: Attribute, subjects: Sequence[Subject], dice: Dice
) -> Truth | None:
    """`truth` with something else for one attribute; for `panels` unchanged, see `turned`.

    Another subject is one of the same group, a face for a face, where there is one.

    Args:
        truth: What a picture shows.
        attribute: What is to be wrong; one that its caption speaks of.
        subjects: What may be shown.
        dice: Chooses what is said instead.

    Returns:
        None where nothing is named that could be wrong: a "photo" may show any subject.
    """
    if attribute == "panels":
        return truth
    if attribute == "subject":
        return None if names_no_subject(truth) else _other_subject(truth, subjects, dice)
    if attribute == "background":
        said = truth["background"]
        other = dice.pick([name for name in BACKGROUNDS if name != said["name"]])
        return {**truth, "background": {**said, "name": other}}
    others = [value for value in _VALUES[attribute] if value != truth[attribute]]
    return {**truth, attribute: dice.pick(others)}


def _other_subject(truth: Truth, subjects: Sequence[Subject], dice: Dice) -> Truth:
    """`truth` with another subject in place of the first, wherever that one stands."""
    first = truth["subjects"][0]
    shown = {entry["glyph"] for entry in truth["subjects"]}
    others = [subject for subject in subjects if subject.glyph not in shown]
    alike = [subject for subject in others if subject.group == first["group"]]
    other = dice.pick(alike or others)
    entries = [
        {**entry, "glyph": other.glyph, "name": other.name}
        if entry["glyph"] == first["glyph"]
        else entry
        for entry in truth["subjects"]
    ]
    return {**truth, "subjects": entries}


def turned(image: Image.Image) -> Image.Image:
    """A two-panel picture with its panels exchanged."""
    width, height = image.size
    result = image.copy()
    result.paste(image.crop((0, height // 2, width, height)), (0, 0))
    result.paste(image.crop((0, 0, width, height - height // 2)), (0, height // 2))
    return result


def _shares(scenes: Iterable[Mapping[Attribute, bool]]) -> dict[str, Rate]:
    """By attribute, the share of the scenes that speak of it in which it was caught."""
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for scene in scenes:
        for attribute, was_caught in scene.items():
            found[attribute].append(was_caught)
    return {name: share(values) for name, values in found.items()}
