"""The judge of attributes, judged: by pictures it must accept and by ones it must refuse.

Every wrong picture is wrong in one thing, and the judge must name that thing and no other.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dalle.config import DataEmoji
from dalle.data.emoji.dice import Dice
from dalle.data.emoji.font import EmojiFont, find_font
from dalle.data.emoji.grammar import Grammar
from dalle.data.emoji.looks import LOOKS
from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import Cell, Placed, Relation, Scene
from dalle.data.emoji.subjects import Subject
from dalle.data.emoji.truth import describe
from dalle.data.emoji.wording import word
from dalle.data.emoji.write import render_scene
from dalle.errors import DataError
from dalle.evaluate.attributes import AttributeJudge, Verdict
from dalle.evaluate.layouts import COUNT_PLACES, PAIR_PLACES

Judged = tuple[Image.Image, Mapping[str, Any]]
FULL = Cell(4, 4, 24)
HALF = 14
SIZES: tuple[Literal["small", "large"], ...] = ("small", "large")
SAMPLE: tuple[tuple[Literal["train", "heldout"], int], ...] = (("train", 8), ("heldout", 8))


@pytest.fixture(scope="module")
def judge(font: EmojiFont) -> AttributeJudge:
    return AttributeJudge(image_px=64, which="core", font=font.path)


@pytest.fixture(scope="module")
def scenes(judge: AttributeJudge) -> list[Judged]:
    """Scenes of every kind, as the generator draws them."""
    rendered = [
        render_scene(
            DataEmoji(
                out=Path("unused"), scenes=40, image_px=64, seed=152, split=split, subjects="core"
            ),
            index,
        )
        for split, count in SAMPLE
        for index in range(count)
    ]
    return [(Image.open(io.BytesIO(scene.png)).convert("RGB"), scene.truth) for scene in rendered]


@lru_cache(maxsize=1)
def painter(image_px: int) -> Painter:
    return Painter(find_font(), image_px)


def named(judge: AttributeJudge, name: str) -> Subject:
    return next(subject for subject in judge.subjects if subject.name == name)


def paint(judge: AttributeJudge, scene: Scene) -> Image.Image:
    return painter(judge.image_px).paint(scene).image


def true_of(judge: AttributeJudge, scene: Scene) -> Mapping[str, Any]:
    """What the judge is told of a scene: nothing of where things are."""
    truth = describe(scene, word(scene, Dice("any")), painter(judge.image_px).paint(scene).boxes)
    hidden: dict[str, Any] = {"cell": None, "box": None}
    return {**truth, "subjects": [entry | hidden for entry in truth["subjects"]]}


def one(
    judge: AttributeJudge,
    name: str,
    *,
    look: str | None = None,
    cell: Cell = FULL,
    background: str = "white",
) -> Scene:
    return Scene(
        kind="look" if look else "plain",
        placed=(Placed(subject=named(judge, name), cell=cell, look=look),),
        background=background,
        background_named=background != "white",
        look=look,
    )


def several(judge: AttributeJudge, name: str, count: int) -> Scene:
    placed = tuple(
        Placed(subject=named(judge, name), cell=Cell(x, y, HALF)) for x, y in COUNT_PLACES[count]
    )
    return Scene(kind="count", placed=placed, background="white")


def pair(judge: AttributeJudge, names: tuple[str, str], relation: Relation) -> Scene:
    placed = tuple(
        Placed(subject=named(judge, name), cell=Cell(x, y, HALF))
        for name, (x, y) in zip(names, PAIR_PLACES[relation], strict=True)
    )
    return Scene(kind="pair", placed=placed, background="white", relation=relation)


def panels(judge: AttributeJudge, top: str, bottom: str, look: str | None) -> Scene:
    placed = (
        Placed(subject=named(judge, top), cell=Cell(9, 1, HALF), panel="top"),
        Placed(subject=named(judge, bottom), cell=Cell(9, 17, HALF), panel="bottom", look=look),
    )
    return Scene(kind="panels", placed=placed, background="white", look=look)


def wrong(verdict: Verdict) -> set[str]:
    return {name for name, right in verdict.attributes.items() if not right}


def test_ground_truth_hits(judge: AttributeJudge, scenes: list[Judged]) -> None:
    kinds = {truth["scene"] for _, truth in scenes}
    assert kinds == {"plain", "background", "size", "count", "pair", "look", "panels"}
    missed = [
        (truth["caption"], wrong(judge.judge(image, truth)))
        for image, truth in scenes
        if not judge.judge(image, truth).hit
    ]
    assert len(missed) <= 1, missed


def test_another_scenes_truth_does_not(judge: AttributeJudge, scenes: list[Judged]) -> None:
    shifted = [truth for _, truth in scenes[1:] + scenes[:1]]
    assert not any(
        judge.judge(image, truth).hit
        for (image, _), truth in zip(scenes, shifted, strict=True)
        if truth["scene"] in ("plain", "background", "count", "pair")  # others cost renderings
    )


def test_soft_copies_still_hit(judge: AttributeJudge, scenes: list[Judged]) -> None:
    """What a dVAE loses first is fine detail."""
    soft = [(image.filter(ImageFilter.GaussianBlur(1)), truth) for image, truth in scenes]
    assert np.mean([judge.judge(image, truth).hit for image, truth in soft]) >= 0.85


def test_attributes_are_what_the_caption_speaks_of(
    judge: AttributeJudge, scenes: list[Judged]
) -> None:
    expected = {
        "plain": {"subject", "background"},
        "background": {"subject", "background"},
        "size": {"subject", "background", "size"},
        "count": {"subject", "background", "count"},
        "pair": {"subject", "background", "relation"},
        "panels": {"subject", "background", "look", "panels"},
        "look": {"subject", "background", "look"},
    }
    for image, truth in scenes:
        found = set(judge.judge(image, truth).attributes)
        hidden = truth["scene"] == "look" and truth["look"] in ("close-up", "neon")
        assert found == expected[truth["scene"]] - ({"background"} if hidden else set())


def test_a_wrong_background_is_caught(judge: AttributeJudge) -> None:
    blue, white = one(judge, "fox", background="blue"), one(judge, "fox")
    image = paint(judge, blue)
    assert judge.judge(image, true_of(judge, blue)).hit
    assert wrong(judge.judge(image, true_of(judge, white))) == {"background"}


@pytest.mark.parametrize(
    ("shown", "claimed"), [("fox", "cat"), ("tomato", "red apple"), ("bus", "fox")]
)
def test_a_wrong_subject_is_caught(shown: str, claimed: str, judge: AttributeJudge) -> None:
    image = paint(judge, one(judge, shown))
    assert wrong(judge.judge(image, true_of(judge, one(judge, claimed)))) == {"subject"}


@pytest.mark.parametrize("name", ["fox", "fork and knife", "cloud with rain"])
def test_a_wrong_number_is_caught(name: str, judge: AttributeJudge) -> None:
    """Also of what is drawn in two pieces."""
    for shown in (1, 2, 3, 4):
        scene = several(judge, name, shown) if shown > 1 else one(judge, name)
        image = paint(judge, scene)
        for claimed in (2, 3, 4):
            found = wrong(judge.judge(image, true_of(judge, several(judge, name, claimed))))
            assert found == (set() if claimed == shown else {"count"}), (shown, claimed)


def test_a_number_is_right_whatever_is_shown(judge: AttributeJudge) -> None:
    for shown, claimed in (("pizza", "fox"), ("fox", "bus")):
        for count in (2, 3, 4):
            image = paint(judge, several(judge, shown, count))
            found = judge.judge(image, true_of(judge, several(judge, claimed, count)))
            assert wrong(found) == {"subject"}, (shown, count)


def test_most_copies_must_show_the_subject(judge: AttributeJudge) -> None:
    image = paint(judge, several(judge, "fox", 4))
    cats = paint(judge, several(judge, "cat", 4))
    truth = true_of(judge, several(judge, "fox", 4))
    for area, expected in (((0, 0, 32, 32), set()), ((32, 32, 64, 64), {"subject"})):
        image.paste(cats.crop(area), area)
        assert wrong(judge.judge(image, truth)) == expected


@pytest.mark.parametrize("claimed", ["left of", "right of", "above", "below"])
def test_a_wrong_relation_is_caught(claimed: Relation, judge: AttributeJudge) -> None:
    names = ("fox", "pizza")
    truth = true_of(judge, pair(judge, names, claimed))
    for shown in PAIR_PLACES:
        found = wrong(judge.judge(paint(judge, pair(judge, names, shown)), truth))
        assert found == (set() if shown == claimed else {"relation"}), shown


def test_both_of_a_pair_must_be_there(judge: AttributeJudge) -> None:
    truth = true_of(judge, pair(judge, ("fox", "pizza"), "left of"))
    for names in (("fox", "bus"), ("bus", "pizza")):
        image = paint(judge, pair(judge, names, "left of"))
        assert wrong(judge.judge(image, truth)) == {"subject"}, names
    for name in ("fox", "pizza"):
        twice = paint(judge, pair(judge, (name, name), "left of"))
        assert "subject" in wrong(judge.judge(twice, truth)), name
    alone = paint(judge, one(judge, "fox", cell=Cell(1, 9, HALF)))
    assert wrong(judge.judge(alone, truth)) == {"subject", "relation"}


@pytest.mark.parametrize(
    ("side", "size"), [(10, "small"), (12, "small"), (30, "large"), (32, "large"), (24, None)]
)
def test_a_wrong_size_is_caught(side: int, size: str | None, judge: AttributeJudge) -> None:
    corner = (32 - side) // 2
    image = paint(judge, one(judge, "fox", cell=Cell(corner, corner, side)))
    for claimed in SIZES:
        scene = replace(one(judge, "fox"), kind="size", size=claimed)
        found = wrong(judge.judge(image, true_of(judge, scene)))
        assert found == (set() if claimed == size else {"size"})


@pytest.mark.parametrize("shown", ["sketch", "hat"])
def test_a_wrong_look_is_caught(shown: str, judge: AttributeJudge) -> None:
    image = paint(judge, one(judge, "fox", look=shown))
    plain = paint(judge, one(judge, "fox"))
    assert judge.judge(image, true_of(judge, one(judge, "fox", look=shown))).hit
    for claimed in LOOKS:
        truth = true_of(judge, one(judge, "fox", look=claimed))
        assert "look" in wrong(judge.judge(plain, truth))
        if claimed != shown:
            found = judge.judge(image, truth)
            assert wrong(found) <= {"look", "background"}, claimed  # grayscale
            assert not found.attributes["look"]


@pytest.mark.parametrize(("name", "look"), [("spider", "grayscale"), ("snowflake", "upside-down")])
def test_a_look_that_changes_nothing_is_no_mistake(
    name: str, look: str, judge: AttributeJudge
) -> None:
    """A black spider in grayscale is that black spider."""
    found = judge.judge(paint(judge, one(judge, name)), true_of(judge, one(judge, name, look=look)))
    assert found.attributes["look"]
    fox = judge.judge(paint(judge, one(judge, "fox")), true_of(judge, one(judge, "fox", look=look)))
    assert not fox.attributes["look"]


def test_both_panels_are_judged(judge: AttributeJudge) -> None:
    truth = true_of(judge, panels(judge, "fox", "fox", "sketch"))
    cases: list[tuple[Scene, set[str]]] = [
        (panels(judge, "fox", "fox", "sketch"), set()),
        (panels(judge, "fox", "fox", "hat"), {"look"}),
        (panels(judge, "fox", "fox", None), {"look"}),
        (panels(judge, "fox", "pizza", "sketch"), {"subject"}),
        (panels(judge, "pizza", "fox", "sketch"), {"subject"}),
    ]
    for scene, expected in cases:
        assert wrong(judge.judge(paint(judge, scene), truth)) == expected
    image = paint(judge, panels(judge, "fox", "fox", "sketch"))
    turned = Image.new("RGB", image.size)
    turned.paste(image.crop((0, 32, 64, 64)), (0, 0))
    turned.paste(image.crop((0, 0, 64, 32)), (0, 32))
    assert wrong(judge.judge(turned, truth)) == {"look", "panels"}


def test_an_unnamed_photo_may_show_anything_twice(judge: AttributeJudge) -> None:
    """The caption "the exact same photo on the top as a sketch on the bottom" names no subject."""
    named_fox = true_of(judge, panels(judge, "fox", "fox", "sketch"))
    unnamed = {**named_fox, "template": "panels: the exact same photo on the top as a sketch ..."}
    pizzas = paint(judge, panels(judge, "pizza", "pizza", "sketch"))
    mixed = paint(judge, panels(judge, "pizza", "fox", "sketch"))
    assert "subject" in wrong(judge.judge(pizzas, named_fox))
    assert judge.judge(pizzas, unnamed).hit
    assert "subject" in wrong(judge.judge(mixed, unnamed))


@pytest.mark.parametrize("cell", [Cell(0, 0, 20), Cell(11, 9, 20), Cell(9, 3, 14), Cell(1, 2, 29)])
def test_where_and_how_large_does_not_matter(cell: Cell, judge: AttributeJudge) -> None:
    for name in ("fox", "pizza", "pencil"):
        image = paint(judge, one(judge, name, cell=cell))
        assert judge.judge(image, true_of(judge, one(judge, name))).hit, name


def test_nothing_and_noise_never_hit(judge: AttributeJudge, scenes: list[Judged]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    blanks = [Image.new("RGB", (64, 64), colour) for colour in ("white", (24, 24, 26), (9, 99, 9))]
    for _, truth in scenes:
        assert not any(judge.judge(image, truth).hit for image in blanks), truth["caption"]
        if truth["look"] is None:  # a look costs renderings
            assert not judge.judge(Image.fromarray(noise), truth).hit, truth["caption"]


def test_an_unknown_subject_or_size_is_an_error(judge: AttributeJudge) -> None:
    image, truth = paint(judge, one(judge, "fox")), true_of(judge, one(judge, "fox"))
    unknown = {**truth, "subjects": [{**truth["subjects"][0], "glyph": "?", "name": "question"}]}
    with pytest.raises(DataError, match="font and subject list draw no 'question'; judge scenes"):
        judge.judge(image, unknown)
    with pytest.raises(ValueError, match=r"image must be 64 x 64 pixels, .*, got 32 x 64"):
        judge.judge(image.resize((32, 64)), truth)


def test_places_are_the_grammars(judge: AttributeJudge) -> None:
    """The judge's layouts are written down a second time; they must not part company."""
    grammar = Grammar(judge.subjects)
    counts: dict[int, set[tuple[int, int]]] = {}
    pairs: dict[str, tuple[tuple[int, int], ...]] = {}
    for index in range(400):
        scene = grammar.draw(Dice(f"{index}"), "train")
        places = tuple((placed.cell.left, placed.cell.top) for placed in scene.placed)
        if scene.kind == "count":
            counts[len(places)] = set(places)
        elif scene.relation is not None:
            pairs[scene.relation] = places
    assert counts == {count: set(COUNT_PLACES[count]) for count in (2, 3, 4)}
    assert pairs == PAIR_PLACES


def test_a_hit_needs_every_attribute() -> None:
    assert Verdict(attributes={"subject": True, "background": True}).hit
    assert not Verdict(attributes={"subject": True, "background": False}).hit
