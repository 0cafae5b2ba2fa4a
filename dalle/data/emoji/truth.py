"""What is true of a scene, as its `.json` member says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dalle.data.emoji.palette import BACKGROUNDS
from dalle.data.emoji.render import Box
from dalle.data.emoji.scene import Placed, Scene
from dalle.data.emoji.wording import Wording


def describe(scene: Scene, wording: Wording, boxes: Sequence[Box]) -> dict[str, Any]:
    """The ground truth of `scene` as JSON values; docs/data-card.md explains each field."""
    panels = None
    if scene.kind == "panels":
        panels = {"top": None, "bottom": scene.look}
    return {
        "scene": scene.kind,
        "caption": wording.caption,
        "template": wording.template,
        "called": list(wording.called),
        "subjects": [
            _describe_placed(placed, box) for placed, box in zip(scene.placed, boxes, strict=True)
        ],
        "count": len(scene.placed) if scene.kind == "count" else None,
        "size": scene.size,
        "relation": scene.relation,
        "look": scene.look,
        "panels": panels,
        "background": {
            "name": scene.background,
            "rgb": list(BACKGROUNDS[scene.background]),
            "named": scene.background_named,
        },
        "held_out": bool(scene.held_out),
        "held_out_combinations": list(scene.held_out),
    }


def _describe_placed(placed: Placed, box: Box) -> dict[str, Any]:
    subject, look = placed.subject, placed.look
    return {
        "name": subject.name,
        "unicode_name": subject.unicode_name,
        "glyph": subject.glyph,
        "group": subject.group,
        "tone": subject.tone,
        "box": list(box),
        "cell": [placed.cell.left, placed.cell.top, placed.cell.side],
        "look": look,
        "color": look.removeprefix("colored ") if look and look.startswith("colored ") else None,
        "panel": placed.panel,
    }
