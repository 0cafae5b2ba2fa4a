"""New pictures that begin as one of the session's own does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from dalle.labels import file_name
from dalle.page.drawn import Drawn, Earlier
from dalle.page.easel import Easel, Updates
from dalle.page.service import Task
from dalle.page.widgets import SettingsPanel

VARIED_ROWS = 0.25
"""Part of a picture that its variations share."""


def varying(easel: Easel, panel: SettingsPanel) -> Callable[..., Iterator[Updates]]:
    """What draws pictures with the first rows of the chosen one, when its button is clicked."""

    def vary(
        request: gr.Request,
        current: Drawn | None,
        picked: int,
        earlier: Earlier,
        *values: Any,
    ) -> Iterator[Updates]:
        def steps() -> Iterator[Updates]:
            image = easel.chosen_image(current, picked)
            settings = panel.read(
                values,
                caption=image.recipe.caption,
                vary=file_name(image.recipe),
                keep_rows=VARIED_ROWS,
            )
            task = Task(settings=settings, own=image)
            shown = panel.showing_seed(settings)
            yield from easel.drawing([task], earlier, request, also=shown)

        yield from easel.guarded(steps)

    return vary
