"""Scenes drawn at random: which kinds there are, how often each comes, and where things stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from dalle.config import SceneMixture
from dalle.data.emoji.dice import Dice
from dalle.data.emoji.heldout import COUNTS, heldout_combinations
from dalle.data.emoji.looks import LOOKS, suits
from dalle.data.emoji.palette import BACKGROUNDS, DEFAULT_BACKGROUND
from dalle.data.emoji.scene import UNITS, Cell, Panel, Placed, Relation, Scene, SceneKind
from dalle.data.emoji.subjects import Subject

_RELATIONS: tuple[Relation, ...] = ("left of", "right of", "above", "below")
# "left of" also answers to "next to" and "and", so it comes twice as often.
_RELATION_WEIGHTS = tuple(zip((2, 1, 1, 1), _RELATIONS, strict=True))
_NAMED_BACKGROUNDS = tuple(
    (0.5 if name == DEFAULT_BACKGROUND else 1.0, name) for name in BACKGROUNDS
)
# How often scenes whose point is something else have a named background as well.
_EXTRA_BACKGROUND = 0.15
_NEON_BACKGROUND = "black"
# Looks that hide the background, rule out its colour, or would vanish on a dark one.
_NO_BACKGROUND = frozenset({"close-up", "grayscale", "silhouette"})

# Few sizes, some of them shared by several kinds: a model learns each drawing anew at every size.
_HALF_SIDE, _WHOLE_SIDE, _LARGE_SIDE = 14, 24, 30
_NORMAL_SIDES = ((25, 20), (75, _WHOLE_SIDE))
# A stamp fills the picture, a hat needs room above, large pixels should fall on the grid.
_LOOK_CELLS = {
    "postage stamp": Cell(2, 2, 28),
    "hat": Cell(6, 8, 20),
    "pixel art": Cell(4, 4, _WHOLE_SIDE),
}
_NEAR, _MIDDLE, _FAR = 1, 9, 17  # left or top of a half-size cell
_JITTER = (-2, 0, 0, 0, 0, 0, 0, 2)
_MAX_PROPOSALS = 100_000
_OWN_KIND_PROPOSALS = 50  # of a contrast; after them it is another background

# How many contrasts show another subject; ranked by a CLIP that never saw such twos, candidates of
# counts and pairs were chosen worse than by their likelihood.
_SUBJECT_CONTRASTS = 0.5

# What a contrast may be to a scene that says nothing which could be otherwise.
_PLAIN_CONTRASTS: tuple[SceneKind, ...] = ("background", "look", "size")

_COUNT_PLACES = {
    2: ((_NEAR, _MIDDLE), (_FAR, _MIDDLE)),
    3: ((_MIDDLE, _NEAR), (_NEAR, _FAR), (_FAR, _FAR)),
    4: ((_NEAR, _NEAR), (_FAR, _NEAR), (_NEAR, _FAR), (_FAR, _FAR)),
}
_PAIR_PLACES: dict[Relation, tuple[tuple[int, int], tuple[int, int]]] = {
    "left of": ((_NEAR, _MIDDLE), (_FAR, _MIDDLE)),
    "right of": ((_FAR, _MIDDLE), (_NEAR, _MIDDLE)),
    "above": ((_MIDDLE, _NEAR), (_MIDDLE, _FAR)),
    "below": ((_MIDDLE, _FAR), (_MIDDLE, _NEAR)),
}


Choose = Callable[[], Subject]
"""Draws or names the first subject of a scene, when its turn has come."""


class Grammar:
    """Draws scenes of the given subjects.

    Args:
        subjects: What may appear; variants of skin tone share the chance of one subject.
        mixture: How often each kind of scene is proposed; by default, half of all scenes are one
            subject on one colour.
    """

    def __init__(self, subjects: Sequence[Subject], mixture: SceneMixture | None = None) -> None:
        families: dict[str, list[Subject]] = {}
        for subject in subjects:
            families.setdefault(subject.profession or subject.unicode_name, []).append(subject)
        self._families = tuple(tuple(family) for family in families.values())
        self._countable = tuple(subject for subject in subjects if subject.plural)
        self._groups: dict[str, list[Subject]] = {}
        for subject in subjects:
            self._groups.setdefault(subject.group, []).append(subject)
        self._draw_kind: dict[SceneKind, Callable[[Dice, Choose], Scene]] = {
            "plain": self._plain,
            "background": self._background,
            "size": self._size,
            "count": self._count,
            "pair": self._pair,
            "look": self._look,
            "panels": self._panels,
        }
        mixture = mixture or SceneMixture()
        self._kinds: tuple[tuple[float, SceneKind], ...] = (
            (mixture.plain, "plain"),
            (mixture.background, "background"),
            (mixture.size, "size"),
            (mixture.count, "count"),
            (mixture.pair, "pair"),
            (mixture.look, "look"),
            (mixture.panels, "panels"),
        )

    def draw(self, dice: Dice, split: Literal["train", "heldout"]) -> Scene:
        """A scene without caption: with no held-out combination, or with at least one."""
        for _ in range(_MAX_PROPOSALS):
            kind = dice.weigh(self._kinds)
            if kind == "count":
                scene = self._count(dice, lambda: dice.pick(self._countable))
            else:
                scene = self._draw_kind[kind](dice, lambda: self._subject(dice))
            held_out = heldout_combinations(scene)
            if bool(held_out) == (split == "heldout"):
                return replace(scene, held_out=held_out)
        raise AssertionError(f"no {split} scene in {_MAX_PROPOSALS} proposals: no subjects?")

    def contrast(self, scene: Scene, dice: Dice, split: Literal["train", "heldout"]) -> Scene:
        """A scene that differs from `scene` in one thing, which its caption speaks of.

        The same subjects on another background, in another size, number, order or look; or, every
        second time, another subject of the same group in one's place. Told apart by nothing else,
        the two are hard negatives of each other. In the training split it holds no held-out
        combination; in the other it may hold some or none.
        """
        kinds = _PLAIN_CONTRASTS if scene.kind == "plain" else (scene.kind,)
        other_subject = dice.chance(_SUBJECT_CONTRASTS)
        for attempt in range(_MAX_PROPOSALS):
            kind = dice.pick(kinds)
            if attempt >= _OWN_KIND_PROPOSALS:
                # All other numbers of this subject may be held out, say.
                other = replace(
                    scene, background=dice.weigh(_NAMED_BACKGROUNDS), background_named=True
                )
            elif other_subject:
                other = self._with_another_subject(scene, dice)
            else:
                other = self._redrawn(scene, kind, dice)
            held_out = heldout_combinations(other)
            if _visible(other) != _visible(scene) and not (held_out and split == "train"):
                return replace(other, held_out=held_out)
        raise AssertionError(f"no contrast to {scene} in {_MAX_PROPOSALS} proposals")

    def _redrawn(self, scene: Scene, kind: SceneKind, dice: Dice) -> Scene:
        """Another scene of that kind with the subjects of `scene`."""
        if kind == "pair":
            return _reordered(scene, dice)
        other = self._draw_kind[kind](dice, lambda: scene.placed[0].subject)
        return _on_background_of(scene, other) if kind in ("size", "count", "look") else other

    def _with_another_subject(self, scene: Scene, dice: Dice) -> Scene:
        """`scene` with one of its subjects replaced; itself where the group has no other."""
        present = {one.subject for one in scene.placed}
        replaced = dice.pick(scene.placed).subject
        others = [
            subject
            for subject in self._groups[replaced.group]
            if subject not in present
            and (scene.kind != "count" or subject.plural)
            and (scene.look is None or suits(scene.look, subject.name))
        ]
        if not others:
            return scene
        new = dice.pick(others)
        placed = tuple(
            replace(one, subject=new) if one.subject == replaced else one for one in scene.placed
        )
        return replace(scene, placed=placed)

    def _subject(self, dice: Dice) -> Subject:
        return dice.pick(dice.pick(self._families))

    def _plain(self, dice: Dice, choose: Choose) -> Scene:
        placed = Placed(subject=choose(), cell=_central_cell(dice, dice.weigh(_NORMAL_SIDES)))
        return Scene(kind="plain", placed=(placed,), background=DEFAULT_BACKGROUND)

    def _background(self, dice: Dice, choose: Choose) -> Scene:
        scene = self._plain(dice, choose)
        colour = dice.weigh(_NAMED_BACKGROUNDS)
        return replace(scene, kind="background", background=colour, background_named=True)

    def _size(self, dice: Dice, choose: Choose) -> Scene:
        size: Literal["small", "large"] = "small" if dice.chance(0.5) else "large"
        side = _HALF_SIDE if size == "small" else _LARGE_SIDE
        placed = Placed(subject=choose(), cell=_central_cell(dice, side))
        scene = Scene(kind="size", placed=(placed,), background=DEFAULT_BACKGROUND, size=size)
        return _with_extra_background(scene, dice)

    def _count(self, dice: Dice, choose: Choose) -> Scene:
        subject = choose()
        places = _COUNT_PLACES[dice.pick(COUNTS)]
        placed = tuple(Placed(subject=subject, cell=Cell(x, y, _HALF_SIDE)) for x, y in places)
        scene = Scene(kind="count", placed=placed, background=DEFAULT_BACKGROUND)
        return _with_extra_background(scene, dice)

    def _pair(self, dice: Dice, choose: Choose) -> Scene:
        first = second = choose()
        while second == first:
            second = self._subject(dice)
        relation = dice.weigh(_RELATION_WEIGHTS)
        (x1, y1), (x2, y2) = _PAIR_PLACES[relation]
        scene = Scene(
            kind="pair",
            placed=(
                Placed(subject=first, cell=Cell(x1, y1, _HALF_SIDE)),
                Placed(subject=second, cell=Cell(x2, y2, _HALF_SIDE)),
            ),
            background=DEFAULT_BACKGROUND,
            relation=relation,
        )
        return _with_extra_background(scene, dice)

    def _look(self, dice: Dice, choose: Choose) -> Scene:
        subject = choose()
        look = self._fitting_look(subject, dice)
        cell = _LOOK_CELLS.get(look) or _central_cell(dice, _WHOLE_SIDE)
        placed = Placed(subject=subject, cell=cell, look=look)
        if look == "neon":
            return Scene(kind="look", placed=(placed,), background=_NEON_BACKGROUND, look=look)
        scene = Scene(kind="look", placed=(placed,), background=DEFAULT_BACKGROUND, look=look)
        return scene if look in _NO_BACKGROUND else _with_extra_background(scene, dice)

    def _panels(self, dice: Dice, choose: Choose) -> Scene:
        subject = choose()
        look = self._fitting_look(subject, dice)
        left = _MIDDLE + dice.pick(_JITTER)
        halves: tuple[tuple[Panel, int, str | None], ...] = (
            ("top", _NEAR, None),
            ("bottom", _FAR, look),
        )
        placed = tuple(
            Placed(subject=subject, cell=Cell(left, top, _HALF_SIDE), look=shown, panel=panel)
            for panel, top, shown in halves
        )
        return Scene(kind="panels", placed=placed, background=DEFAULT_BACKGROUND, look=look)

    @staticmethod
    def _fitting_look(subject: Subject, dice: Dice) -> str:
        while not suits(look := dice.pick(LOOKS), subject.name):
            pass
        return look


def _visible(scene: Scene) -> tuple[object, ...]:
    """What of `scene` a caption can speak of, exact places aside."""
    subjects = tuple(one.subject for one in scene.placed)
    return (scene.background, scene.size, scene.relation, scene.look, subjects)


def _on_background_of(scene: Scene, other: Scene) -> Scene:
    """`other` on the background of `scene`, unless a look of theirs brings or hides one."""
    if "neon" in (scene.look, other.look) or other.look in _NO_BACKGROUND:
        return other
    return replace(other, background=scene.background, background_named=scene.background_named)


def _reordered(scene: Scene, dice: Dice) -> Scene:
    """A pair whose subjects stand in another relation."""
    relation = dice.weigh(_RELATION_WEIGHTS)
    placed = tuple(
        replace(one, cell=Cell(x, y, _HALF_SIDE))
        for one, (x, y) in zip(scene.placed, _PAIR_PLACES[relation], strict=True)
    )
    return replace(scene, placed=placed, relation=relation)


def _central_cell(dice: Dice, side: int) -> Cell:
    """A cell about the middle whose centre is on even units; the largest stand still."""
    slack = UNITS - side
    shifts = _JITTER if slack // 2 >= max(_JITTER) else (0,)
    left, top = (slack // 2 + dice.pick(shifts) for _ in range(2))
    return Cell(left, top, side)


def _with_extra_background(scene: Scene, dice: Dice) -> Scene:
    if not dice.chance(_EXTRA_BACKGROUND):
        return scene
    return replace(scene, background=dice.weigh(_NAMED_BACKGROUNDS), background_named=True)
