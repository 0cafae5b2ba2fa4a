from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from dalle.data.emoji import wording
from dalle.data.emoji.dice import Dice
from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.grammar import Grammar
from dalle.data.emoji.heldout import (
    RATES,
    count_held_out,
    heldout_combinations,
    heldout_transform,
    is_held_out,
)
from dalle.data.emoji.looks import LOOKS
from dalle.data.emoji.scene import Cell, Placed, Scene
from dalle.data.emoji.subjects import Subject
from dalle.data.emoji.truth import describe

CARD = Path(__file__).parents[4] / "docs" / "data-card.md"


def fraction(*words: str) -> float:
    text = "\n".join(("dalle emoji scenes, held out, 1", *words))
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64


def test_the_hash_decides(core: dict[str, Subject]) -> None:
    verdicts = {name: is_held_out("subject, look", name, "sketch") for name in core}
    assert verdicts == {name: fraction("subject, look", name, "sketch") < 0.1 for name in core}
    assert 20 < sum(verdicts.values()) < 90


def test_one_transform_is_held_out() -> None:
    assert heldout_transform() == min(LOOKS, key=lambda look: fraction("transform", look))


def truths(scene: Scene) -> Counter[str]:
    """Held-out combinations of a scene, read off its fields another way."""
    subjects = [placed.subject for placed in scene.placed]
    names = sorted({subject.unicode_name for subject in subjects})
    combinations = [
        ("subject, look", p.subject.unicode_name, p.look) for p in scene.placed if p.look
    ]
    if scene.background_named and scene.background != "white":
        combinations += [("subject, background", name, scene.background) for name in names]
    if scene.kind == "count":
        combinations += [("subject, count", names[0], str(len(subjects)))]
    if scene.kind == "pair":
        combinations += [("subject, subject", names[0], names[1])]
    combinations += [("profession, tone", s.profession or "", s.tone) for s in subjects if s.tone]
    found = Counter(kind for kind, *parts in combinations if fraction(kind, *parts) < RATES[kind])
    if scene.kind == "panels" and scene.look == heldout_transform():
        found["transform"] += 1
    return found


@pytest.mark.parametrize("which", ["core", "all"])
def test_train_never_shows_what_heldout_always_shows(
    which: str, core: dict[str, Subject], everything: tuple[Subject, ...]
) -> None:
    grammar = Grammar(everything if which == "all" else tuple(core.values()))
    seen: Counter[str] = Counter()
    for index in range(3000):
        scene = grammar.draw(Dice(f"train {index}"), "train")
        assert not truths(scene)
        assert scene.held_out == ()
    for index in range(800):
        scene = grammar.draw(Dice(f"heldout {index}"), "heldout")
        assert truths(scene)
        assert scene.held_out
        seen += truths(scene)
    expected = set(RATES) | {"transform"}
    assert seen.keys() == (expected if which == "all" else expected - {"profession, tone"})


def test_the_heldout_transform_is_trained_on_as_a_single_look(core: dict[str, Subject]) -> None:
    grammar = Grammar(list(core.values()))
    looks: Counter[tuple[str, str | None]] = Counter()
    for index in range(3000):
        scene = grammar.draw(Dice(f"{index}"), "train")
        looks[scene.kind, scene.look] += 1
    assert looks["look", heldout_transform()] > 5
    assert looks["panels", heldout_transform()] == 0
    assert all(looks["panels", look] > 5 for look in LOOKS if look != heldout_transform())


def test_every_plain_subject_is_trained_on(core: dict[str, Subject]) -> None:
    for subject in core.values():
        placed = Placed(subject=subject, cell=Cell(4, 4, 24))
        assert heldout_combinations(Scene(kind="plain", placed=(placed,), background="white")) == ()


def card_table(which: str) -> dict[str, tuple[int, int]]:
    """The data card's held-out counts for one subject list: kind to (held out, of)."""
    _, _, section = CARD.read_text(encoding="utf-8").partition(f"### Held out of `{which}`")
    rows = re.findall(
        r"^\| (.+?) \| ([\d,]+) \| ([\d,]+) \|$", section.split("\n#")[0], re.MULTILINE
    )
    return {kind: (int(a.replace(",", "")), int(b.replace(",", ""))) for kind, a, b in rows}


def assert_card_agrees(which: str, subjects: tuple[Subject, ...]) -> None:
    counts = {count.kind: (count.held_out, count.total) for count in count_held_out(subjects)}
    assert card_table(which) == {kind: pair for kind, pair in counts.items() if pair[1]}


def test_the_data_card_counts_core_rightly(core: dict[str, Subject]) -> None:
    assert f"{len(core)} subjects" in CARD.read_text(encoding="utf-8")
    assert_card_agrees("core", tuple(core.values()))


def test_the_data_card_counts_wordings_rightly() -> None:
    """It said four to eight per kind, and pairs have fifteen."""
    kinds = {
        "plain": wording._PLAIN, "background": wording._BACKGROUND, "count": wording._COUNT,
        "size": wording._SIZE, "pair": [one for many in wording._PAIR.values() for one in many],
    }  # fmt: skip
    said = ", ".join(f"{kind} {len(templates)}" for kind, templates in kinds.items())
    assert f"**Wordings**: {said} (two to six a relation)" in CARD.read_text(encoding="utf-8")
    assert {len(templates) for templates in wording._PAIR.values()} == {2, 3, 4, 6}
    looks = wording._LOOKS.values()
    assert {len(look.single) for look in looks} == {3, 4}
    # Two of the subject, two of an unnamed photo, two in the long form.
    assert {2 * len(look.reflected) + len(look.panel) for look in looks} == {6}


def test_the_data_card_tells_every_field(core: dict[str, Subject]) -> None:
    """It left out `cell`, which judges read."""
    placed = Placed(subject=core["fox"], cell=Cell(4, 4, 24))
    scene = Scene(kind="plain", placed=(placed,), background="white")
    truth = describe(scene, wording.word(scene, Dice("a")), [(1, 2, 3, 4)])
    fields = CARD.read_text(encoding="utf-8").partition("| field | meaning |")[2].split("\n\n")[0]
    told = set(re.findall(r"`(?:subjects\[\]\.)?(\w+)`", fields))
    assert told >= {*truth, *truth["subjects"][0], *truth["background"]}


@pytest.mark.slow
def test_the_data_card_counts_all_rightly(font: EmojiFont, everything: tuple[Subject, ...]) -> None:
    if font.sha256() not in CARD.read_text(encoding="utf-8"):
        pytest.skip("the data card's counts of all subjects are for another font version")
    assert_card_agrees("all", everything)
