"""Somebody who has the page open, without their browser: the page is asked as Gradio asks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dalle.page.drawn import Earlier
from dalle.page.service import Service

Updates = dict[Any, Any]


class Visitor:
    """Somebody who has the page open, and what the page knows of them."""

    def __init__(self, service: Service) -> None:
        from dalle.page.build import build_page

        self.events = list(build_page(service, ranks=False).fns.values())
        self.shown: Updates = {}

    def press(self, name: str, number: int = 0, **asked: Any) -> Iterator[Updates]:
        """The updates of the page after a button was pressed.

        Args:
            name: Of the function that answers it, such as "_draw".
            number: Which of those of that name, in the order of the tabs.
            **asked: Values of widgets, by their labels in lower case.
        """
        import gradio as gr

        found = (one for one in self.events if getattr(one.fn, "__name__", "") == name)
        one: Any = list(found)[number]
        values = []
        for part in one.inputs:
            shown = self.shown.get(part, getattr(part, "value", None))
            shown = shown.get("value", True) if isinstance(shown, dict) else shown
            values.append(asked.get(str(getattr(part, "label", "")).lower(), shown))
        answers = one.fn(gr.Request(session_hash="me"), *values)
        if isinstance(answers, str):  # of the one component that changes
            answers = {one.outputs[0]: answers}
        for updates in [answers] if isinstance(answers, dict) else answers:
            self.shown |= updates
            yield updates

    @property
    def earlier(self) -> Earlier:
        return next(value for value in self.shown.values() if isinstance(value, Earlier))
