"""The settings of a drawing as widgets, folded away; their defaults are the model's own."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from dalle.page.facts import ModelFacts
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.settings import DrawSettings, draw_settings

MAX_SEED = 1_000_000
"""Seeds that nobody chose are below this, short enough to be read out."""
MAX_TEMPERATURE = 2.0
MAX_GUIDANCE = 6.0
_INPUTS = (
    *("candidates", "keep", "seed", "fresh", "temperature"),
    *("top_k", "top_p", "guidance_scale", "ranker"),
)
"""Settings with a widget of the same name; `fresh` is whether the seed is a new one."""
RANKERS = {"Best by CLIP": "clip", "Best by likelihood": "likelihood", "As drawn": "none"}


class SettingsPanel:
    """Candidates, seed, sampling and ranker; build it where it belongs in the layout."""

    def __init__(
        self, facts: ModelFacts, limits: Limits, *, ranks: bool, candidates: int, keep: int | None
    ) -> None:
        """Make the widgets, in an accordion.

        Args:
            facts: The model, whose recommendations are the defaults.
            limits: The page's limits.
            ranks: Whether there is a CLIP to rank by.
            candidates: Pictures drawn unless changed.
            keep: Pictures kept unless changed; None leaves that choice out.
        """
        self.facts = facts
        self.limits = limits
        sampling = facts.sampling
        with gr.Accordion("Settings", open=False, elem_classes="settings"):
            with gr.Row():
                self.candidates = _slider("Candidates", 1, limits.candidates, candidates, step=1)
                self.keep = _slider(
                    "Keep", 1, limits.keep, keep or 1, step=1, shown=keep is not None
                )
            with gr.Row():
                self.seed = gr.Textbox("0", label="Seed", max_lines=1, min_width=150)
                self.fresh = gr.Checkbox(True, label="New seed each time", min_width=150)
            with gr.Row():
                self.temperature = _slider(
                    "Temperature", 0, MAX_TEMPERATURE, sampling.temperature, step=0.05
                )
                self.top_p = _slider("Top-p", 0.05, 1, sampling.top_p, step=0.01)
            with gr.Row():
                self.top_k = _slider(
                    "Top-k (0: off)", 0, facts.codebook_size, sampling.top_k or 0, step=1
                )
                self.guidance_scale = _slider(
                    "Guidance", 1, MAX_GUIDANCE, sampling.guidance_scale, step=0.1,
                    shown=facts.is_guided,
                )  # fmt: skip
            names = [name for name in RANKERS if ranks or RANKERS[name] != "clip"]
            self.ranker = gr.Dropdown(names, value=names[0], label="Order of the pictures")

    @property
    def inputs(self) -> list[Any]:
        """The widgets whose values `read` and `settled` take."""
        return [getattr(self, name) for name in _INPUTS]

    def settled(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """`values` of `inputs` with a seed that nobody chose, if each time has a new one.

        For several drawings that share it; `read` does so for one.
        """
        asked = dict(zip(_INPUTS, values, strict=True))
        if asked["fresh"]:
            asked |= {"seed": secrets.randbelow(MAX_SEED), "fresh": False}
        return tuple(asked.values())

    def read(self, values: Sequence[Any], **more: Any) -> DrawSettings:
        """The settings that the widgets show.

        Args:
            values: Those of `inputs`.
            **more: Settings that have widgets elsewhere, such as the caption.

        Raises:
            PageFault: One of them is out of range.
        """
        asked = dict(zip(_INPUTS, self.settled(values), strict=True))
        del asked["fresh"]
        asked["seed"] = _seed(asked["seed"])
        asked["ranker"] = RANKERS.get(str(asked["ranker"]), asked["ranker"])
        if not self.facts.is_guided:
            asked["guidance_scale"] = None
        if isinstance(asked["candidates"], int | float) and isinstance(asked["keep"], int | float):
            asked["keep"] = min(asked["keep"], asked["candidates"])
        return check(self.facts, self.limits, {**asked, **more})

    def showing_seed(self, settings: DrawSettings) -> dict[Any, Any]:
        """Updates with which the seed of a drawing is shown."""
        return {self.seed: str(settings.seed)}

    def filled(self, settings: DrawSettings) -> dict[Any, Any]:
        """Updates with which the widgets show `settings`.

        Raises:
            PageFault: A value lies beyond what the widgets can show.
        """
        sampling = settings.sampling
        sliders: dict[str, tuple[gr.Slider, float]] = {
            "candidates": (self.candidates, settings.candidates),
            "keep": (self.keep, settings.keep),
            "temperature": (self.temperature, sampling.temperature),
            "top_k": (self.top_k, sampling.top_k or 0),
            "top_p": (self.top_p, sampling.top_p),
            "guidance_scale": (self.guidance_scale, sampling.guidance_scale),
        }
        for name, (slider, value) in sliders.items():
            if not slider.minimum <= value <= slider.maximum:
                raise PageFault(
                    f"{name} {value:g} is not among what this page offers ({slider.minimum:g} to "
                    f"{slider.maximum:g}); use the command line: dalle generate --like PICTURE.png"
                )
        names = {value: name for name, value in RANKERS.items()}
        updates: dict[Any, Any] = dict(sliders.values())
        updates |= {self.seed: str(settings.seed), self.fresh: False}
        if settings.ranker is not None:
            updates[self.ranker] = names[settings.ranker]
        return updates


def check(facts: ModelFacts, limits: Limits, asked: Mapping[str, Any]) -> DrawSettings:
    """`asked` as settings for the model of `facts`.

    Raises:
        PageFault: A value is of the wrong type or out of range.
    """
    return draw_settings(
        limits,
        default=facts.sampling,
        codebook_size=facts.codebook_size,
        grid=facts.grid,
        model=facts.name,
        **asked,
    )


def _slider(
    label: str, low: float, high: float, value: float, *, step: float, shown: bool = True
) -> gr.Slider:
    return gr.Slider(
        low, high, value, step=step, label=label, visible=shown, buttons=[], min_width=150
    )


def _seed(text: object) -> object:
    """A typed seed as a number, if it is one: text is exact, where JSON's numbers are floats."""
    try:
        return int(text.strip()) if isinstance(text, str) else text
    except ValueError:
        return text
