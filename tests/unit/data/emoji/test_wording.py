"""Captions are read back by a parser of this file's own, and must say what the scene holds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from dalle.data.emoji.dice import Dice
from dalle.data.emoji.grammar import Grammar
from dalle.data.emoji.palette import BACKGROUNDS
from dalle.data.emoji.scene import Scene
from dalle.data.emoji.subjects import Subject
from dalle.data.emoji.wording import Wording, word

LOOK_WORDS = {
    "sketch": "sketch",
    "grayscale": "grayscale|black and white photo",
    "upside-down": "upside.down",
    "silhouette": "silhouette",
    "neon": "neon",
    "pixel art": "pixel art|pixelated",
    "close-up": "close-up",
    "postage stamp": "postage stamp",
    "sunglasses": "with sunglasses|wearing sunglasses",
    "hat": "(wearing|with|in) a hat",
}
RELATION_WORDS = {
    "right of": r"\bright of\b",
    "above": r"\babove\b|on top of|\bover\b|at the top and",
    "below": r"\bbelow\b|\bunder\b|\bbeneath\b",
    "left of": r"\bleft of\b|on the left and|next to|beside|\band\b",
}


Worded = list[tuple[Scene, Wording]]


def draw_many(core: dict[str, Subject], count: int) -> Iterator[tuple[Scene, Wording]]:
    grammar = Grammar(list(core.values()))
    for index in range(count):
        dice = Dice(f"{index}")
        scene = grammar.draw(dice, "train" if index % 4 else "heldout")
        yield scene, word(scene, dice)


@pytest.fixture(scope="module")
def many(core: dict[str, Subject]) -> Worded:
    return list(draw_many(core, 4000))


def test_captions_say_what_the_scene_holds(many: Worded) -> None:
    for scene, wording in many:
        text = wording.caption.lower().rstrip(".")
        called = list(wording.called)
        subjects = dict.fromkeys(placed.subject for placed in scene.placed)
        for name, subject in zip(called, subjects, strict=True):
            assert name in (subject.name, *subject.aliases)
        if scene.kind != "count" and "exact same photo" not in text:
            assert all(name in text for name in called), text
        check_background(scene, text)
        check_point(scene, text, called)


def check_background(scene: Scene, text: str) -> None:
    if scene.background_named:
        assert re.search(rf"\b{scene.background}( background)?$", text), text
    else:
        assert "background" not in text


def check_point(scene: Scene, text: str, called: list[str]) -> None:
    """What the kind of the scene is about."""
    if scene.kind == "size":
        words = {"small": "small|tiny|little", "large": "large|big|huge"}[scene.size or ""]
        assert re.search(rf"\b({words}) {re.escape(called[0])}", text), text
    elif scene.kind == "count":
        number = re.search(r"\b(two|three|four|2|3|4)\b (?!panel)", text)
        assert number is not None, text
        value = {"two": 2, "three": 3, "four": 4}.get(number[1]) or int(number[1])
        assert value == len(scene.placed)
    elif scene.kind == "pair":
        first, second = (text.index(name) for name in called)
        between = text
        for name in sorted(called, key=len, reverse=True):
            between = between.replace(name, "*")
        matches = [r for r, words in RELATION_WORDS.items() if re.search(words, between)]
        assert matches[0] == scene.relation, text
        assert first < second or called[0] in called[1]
    elif scene.kind in ("look", "panels"):
        assert scene.look is not None
        paint = scene.look.removeprefix("colored ")
        words = LOOK_WORDS.get(scene.look, rf"\b{paint}\b")
        assert re.search(words, text), text
    if scene.kind == "panels":
        assert "on the top" in text
        assert "on the bottom" in text
        assert "the exact same" in text


def test_the_papers_prompts_come_up_word_for_word(core: dict[str, Subject]) -> None:
    """Ramesh et al., figure 14, with any subject for the cat."""
    missing = {
        "the exact same cat on the top as a sketch on the bottom",
        "the exact same photo on the top reflected upside-down on the bottom",
        (
            "2 panel image of the exact same cat. on the top, a photo of the cat. "
            "on the bottom, an extreme close-up view of the cat in the photo."
        ),
        "the exact same cat on the top colored red on the bottom",
        (
            "2 panel image of the exact same cat. on the top, a photo of the cat. "
            "on the bottom, the cat with sunglasses."
        ),
        "the exact same cat on the top as a postage stamp on the bottom",
    }
    for _, wording in draw_many(core, 12_000):
        text = wording.caption
        for name in sorted(wording.called, key=len, reverse=True):
            text = text.replace(name, "cat")
        missing.discard(text)
        if not missing:
            break
    assert not missing


def test_wordings_vary(many: Worded) -> None:
    templates = defaultdict(set)
    with_article = without = capital = aliases = 0
    for scene, wording in many:
        templates[scene.kind].add(wording.template)
        with_article += wording.template == "plain: {a}"
        without += wording.template == "plain: {bare}"
        capital += wording.caption[0].isupper()
        aliases += wording.called[0] != scene.placed[0].subject.name
    assert all(len(found) >= 4 for found in templates.values())
    assert min(with_article, without, capital, aliases) > 50


def test_every_background_reads_well(many: Worded) -> None:
    captions = " ; ".join(wording.caption for _, wording in many)
    assert "an orange background" in captions
    assert not re.search(r"\ba [aeio]\w* background|\ban [^aeiou]\w* background", captions)
    assert all(f"{name} background" in captions for name in BACKGROUNDS)
    assert "{" not in captions
    assert "  " not in captions
