"""What the page looks like, dark and narrow, and whether everybody can use it."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from tests.web.serving import DRAWN, RunningPage, ask, use_settings, visited, wait_for_status

if TYPE_CHECKING:
    from playwright.sync_api import Page

TABS = ("Draw", "Image prompt", "Explore", "X/Y grid", "Model card", "Batch")
"""All of them; X/Y grid and Model card lie within Explore, and can be clicked once it is open."""
NAMELESS = """() => {
  const named = (one) => one.labels?.length || one.getAttribute('aria-label') || one.title
    || one.getAttribute('aria-labelledby') || one.textContent.trim() || one.closest('label')
    || one.querySelector('img[alt]:not([alt=""])');
  return [...document.querySelectorAll('button, input, textarea, select')]
    .filter((one) => one.offsetParent && one.type !== 'file' && !named(one))
    .map((one) => one.outerHTML.slice(0, 200));
}"""
UNDESCRIBED = """() => [...document.querySelectorAll('img')]
  .filter((one) => one.offsetParent && !one.hasAttribute('alt')).map((one) => one.outerHTML)"""

TICK = """() => {
  const style = getComputedStyle(document.querySelector('.pick[aria-pressed="true"]'), '::after');
  return [style.color, style.backgroundColor];
}"""
"""The colours of the mark on the chosen picture."""
BROKEN_WORDS = """() => [...document.querySelectorAll('td, th')]
  .filter((one) => one.offsetParent && !/\\s/.test(one.textContent.trim())).filter((one) => {
    const words = document.createRange();
    words.selectNodeContents(one);
    return new Set([...words.getClientRects()].map((line) => line.top)).size > 1;
  }).map((one) => one.textContent)"""


SCREENSHOTS = os.environ.get("DALLE_SCREENSHOTS")
"""The folder for screenshots; none are taken unless somebody wants to look at them."""


def draw_something(page: Page) -> None:
    use_settings(page, candidates=12 if SCREENSHOTS else 5, keep=4, seed=1)
    ask(page, "a fox on a blue background")
    wait_for_status(page, DRAWN)
    page.wait_for_timeout(300)


def shade(page: Page, part: str, which: str) -> float:
    """How light a colour of a part of the page is, 0 to 255."""
    colour = page.evaluate(f"getComputedStyle(document.querySelector('{part}')).{which}")
    return sum(int(text) for text in colour[4:-1].split(",")[:3]) / 3


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of the luminances of two colours, as #rrggbb or rgb(r, g, b); 1 to 21."""

    def luminance(colour: str) -> float:
        if colour.startswith("#"):
            numbers = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        else:
            numbers = [int(text) for text in re.findall(r"\d+", colour)[:3]]
        parts = [number / 255 for number in numbers]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_words_on_the_main_button_can_be_read(needs_gradio: None) -> None:
    """4.5 is what WCAG asks of text; under the mouse, in the dark, it once was 3.7."""
    from dalle.page.style import theme

    assert contrast("#000000", "rgb(255, 255, 255)") == 21
    colours = theme()
    for scheme, state in itertools.product(("", "_dark"), ("", "_hover")):
        ground = getattr(colours, f"button_primary_background_fill{state}{scheme}")
        words = getattr(colours, f"button_primary_text_color{scheme}")
        assert contrast(ground, words) >= 4.5, (scheme, state)


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("light", 1280, "light"), ("dark", 1280, "dark"), ("narrow", 380, "light")],
)
def test_nothing_is_cut_off_and_dark_is_dark(
    server: RunningPage, tab: Page, name: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(color_scheme=scheme)
    with visited(tab, server.url) as page:
        paper, ink = shade(page, "body", "backgroundColor"), shade(page, "h1", "color")
        if scheme == "light":
            assert paper > 230
            assert ink < 60
        else:
            assert paper < 40
            assert ink > 200
        draw_something(page)
        tick = page.evaluate(TICK)
        assert contrast(*tick) >= 3, "what WCAG asks of signs"
        for place in TABS:
            page.get_by_role("tab", name=place, exact=True).click()
            page.get_by_role("tab", name=place, exact=True, selected=True).wait_for()
            page.wait_for_timeout(300)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{place} is {wide} px wide"
            assert not page.evaluate(NAMELESS), place
            assert not page.evaluate(UNDESCRIBED), place
            assert not page.evaluate(BROKEN_WORDS), place
            if SCREENSHOTS:
                named = f"page-{name}-{place.lower().replace(' ', '-').replace('/', '')}.png"
                file = Path(SCREENSHOTS) / named
                page.screenshot(path=file, full_page=True)
                assert file.stat().st_size > 10_000
