"""A page that really runs, and a real browser that looks at it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.web.serving import RunningPage, new_tab, opened, running_page, visited

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def needs_gradio() -> None:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed; make setup installs it")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, needs_gradio: None) -> Iterator[RunningPage]:
    """The page with the bundled model, loaded."""
    with running_page(tmp_path_factory.mktemp("page")) as page:
        page.wait_for_model()
        yield page


@pytest.fixture(scope="module")  # it runs an event loop, which tests of other files start anew
def browser(needs_gradio: None) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed; make setup installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    """One tab for all tests of a file, which load the page anew."""
    with new_tab(browser) as tab:
        yield tab


@pytest.fixture
def page(server: RunningPage, tab: Page) -> Iterator[Page]:
    with visited(tab, server.url) as page:
        yield page


@pytest.fixture(scope="module")
def idle_page(server: RunningPage, browser: Browser) -> Iterator[Page]:
    """One page for all tests of a file that draw nothing, whatever others have left there."""
    with opened(browser, server.url) as page:
        yield page
