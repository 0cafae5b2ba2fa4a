"""What the page looks like, dark and narrow, and whether everybody can use it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.web.serving import DRAWN, RunningPage, ask, opened, use_settings, wait_for_status

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TABS = ("Draw", "Image prompt", "Explore", "Batch")
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where screenshots go: a folder to look at, if DALLE_SCREENSHOTS names one."""
    named = os.environ.get("DALLE_SCREENSHOTS")
    return Path(named) if named else tmp_path


def draw_something(page: Page) -> None:
    use_settings(page, candidates=12, keep=4, seed=1)
    ask(page, "a fox on a blue background")
    wait_for_status(page, DRAWN)
    page.wait_for_timeout(300)


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("light", 1280, "light"), ("dark", 1280, "dark"), ("narrow", 380, "light")],
)
def test_nothing_is_cut_off(
    server: RunningPage, browser: Browser, folder: Path, name: str, width: int, scheme: str
) -> None:
    view = {"width": width, "height": 900}
    with opened(browser, server.url, viewport=view, color_scheme=scheme) as page:
        draw_something(page)
        for tab in TABS:
            page.get_by_role("tab", name=tab).click()
            page.get_by_role("tab", name=tab, selected=True).wait_for()
            page.wait_for_timeout(300)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{tab} is {wide} px wide"
            assert not page.evaluate(NAMELESS), tab
            assert not page.evaluate(UNDESCRIBED), tab
            file = folder / f"page-{name}-{tab.lower().replace(' ', '-')}.png"
            page.screenshot(path=file, full_page=True)
            assert file.stat().st_size > 10_000


def test_dark_is_dark_and_light_is_light(server: RunningPage, browser: Browser) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        with opened(browser, server.url, color_scheme=scheme) as page:
            for part in ("body", "h1"):
                which = "backgroundColor" if part == "body" else "color"
                colour = page.evaluate(
                    f"getComputedStyle(document.querySelector('{part}')).{which}"
                )
                red, green, blue = (int(text) for text in colour[4:-1].split(",")[:3])
                shades[scheme, part] = (red + green + blue) / 3
    assert shades["light", "body"] > 230
    assert shades["light", "h1"] < 60
    assert shades["dark", "body"] < 40
    assert shades["dark", "h1"] > 200


def test_there_is_one_first_heading(page: Page) -> None:
    assert page.locator("h1").all_inner_texts() == ["Captions in, pictures out"]
    assert page.title() == "Captions in, pictures out"
    assert page.locator("html").get_attribute("lang") == "en"
