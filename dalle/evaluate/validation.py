"""How far the judge of attributes can be trusted: what it says of pictures that are known.

It must accept ground-truth renderings, and what a dVAE leaves of them, for nothing that a model
draws can be better; and refuse them beside a caption that is wrong in a single thing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from dalle.data.emoji.dice import Dice
from dalle.data.emoji.heldout import COUNTS
from dalle.data.emoji.looks import LOOKS
from dalle.data.emoji.palette import BACKGROUNDS
from dalle.data.emoji.subjects import Subject
from dalle.evaluate.attributes import Attribute, AttributeJudge, names_no_subject
from dalle.evaluate.estimators import Rate, share
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


def validate(
    judge: AttributeJudge,
    images: Sequence[Image.Image],
    rebuilt: Sequence[Image.Image],
    truths: Sequence[Truth],
    *,
    seed: int,
) -> Validation:
    """How often the judge is right about pictures whose truth is known.

    Args:
        judge: What is validated.
        images: Ground-truth renderings, RGB, as large as the judge wants them.
        rebuilt: The same through a dVAE.
        truths: What each of them shows, as `.json` members of emoji scenes hold it.
        seed: Of the choice of what wrong captions say.

    Raises:
        ValueError: There are no pictures, or one has another size.
    """
    accepted: dict[str, list[bool]] = {"images": [], "rebuilt": [], "others": []}
    caught: defaultdict[str, list[bool]] = defaultdict(list)
    caught_rebuilt: defaultdict[str, list[bool]] = defaultdict(list)
    others = (*truths[1:], *truths[:1])
    for number, (image, soft, truth, other) in enumerate(
        zip(images, rebuilt, truths, others, strict=True)
    ):
        verdict = judge.judge(image, truth)
        accepted["images"].append(verdict.hit)
        accepted["rebuilt"].append(judge.judge(soft, truth).hit)
        accepted["others"].append(judge.judge(image, other).hit)
        dice = Dice(f"{seed}/validation/{number}")
        for attribute in verdict.attributes:
            wrong = wrong_claim(truth, attribute, judge.subjects, dice)
            if wrong is None:
                continue
            for found, picture in ((caught, image), (caught_rebuilt, soft)):
                shown = turned(picture) if attribute == "panels" else picture
                found[attribute].append(not judge.judge(shown, wrong).attributes[attribute])
    return Validation(
        images=share(accepted["images"]),
        rebuilt=share(accepted["rebuilt"]),
        others=share(accepted["others"]),
        caught=_shares(caught),
        caught_rebuilt=_shares(caught_rebuilt),
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


def _shares(found: Mapping[str, Sequence[bool]]) -> dict[str, Rate]:
    return {name: share(values) for name, values in found.items()}
