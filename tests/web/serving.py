"""What the tests of the page share: a server that really runs, and what people do on it."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.commands import Command

if TYPE_CHECKING:
    import httpx
    from playwright.sync_api import Browser, Error, Page, Request


@dataclass(frozen=True)
class RunningPage:
    """A server in a process of its own."""

    url: str
    process: Command
    folder: Path
    """Where it was started, and where it keeps its files and those of its log."""

    def wait_for_model(self) -> None:
        """Have the model loaded at once, as a browser that has loaded the page does."""
        client = http_client()
        events = client.get(f"{self.url}/config").json()["dependencies"]
        (load,) = [one["id"] for one in events if any(what == "load" for _, what in one["targets"])]
        asked = {"data": [], "fn_index": load, "session_hash": "the first visitor"}
        client.post(f"{self.url}/gradio_api/queue/join", json=asked).raise_for_status()
        self.process.wait_until(lambda: "the model is ready" in self.log, what="model")

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return self.process.stderr


@contextlib.contextmanager
def running_page(folder: Path, *flags: str, compiled: bool = True) -> Iterator[RunningPage]:
    """`dalle demo` on a free port until the block ends, started in `folder`, not in the clone.

    What `make setup` compiled is used, as for whoever starts the page, unless `compiled` is false.
    """
    environment: dict[str, str | None] = {"TMPDIR": str(folder)}
    if compiled:
        environment["DALLE_CACHE"] = None  # where tests find nothing compiled
    words = ["demo", "--port", "0", *flags]
    with Command(words, folder / "page", folder=folder, environment=environment) as process:
        process.wait_until(lambda: process.stdout.endswith("\n"), what="address")
        url = process.stdout.strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), process.stderr
        yield RunningPage(url, process, folder)
        if process.status is None:
            process.send(signal.SIGTERM)
        process.ended()


@functools.cache
def http_client() -> httpx.Client:
    """What asks the server; one for all, since each reads all certificates when it is made."""
    import httpx

    return httpx.Client(timeout=30)


def call(
    page: RunningPage, endpoint: str, body: object, *, client: str, seconds: float = 60
) -> str:
    """What an endpoint answers to a client of that address: its events, or why it refuses.

    The server believes a proxy on its own machine about who asks, and so us.
    """
    address = f"{page.url}/gradio_api/call"
    headers = {"x-forwarded-for": client, "content-type": "application/json"}
    asked = http_client().post(
        f"{address}/v2/{endpoint}", content=json.dumps(body), headers=headers, timeout=seconds
    )
    assert asked.status_code < 500, asked.text
    if asked.status_code != 200:
        return asked.text
    event = asked.json()["event_id"]
    answer = http_client().get(f"{address}/{endpoint}/{event}", headers=headers, timeout=seconds)
    assert answer.status_code == 200
    return answer.text


@contextlib.contextmanager
def opened(browser: Browser, url: str) -> Iterator[Page]:
    """The page in a browser profile of its own."""
    with new_tab(browser) as tab, visited(tab, url) as page:
        yield page


@contextlib.contextmanager
def new_tab(browser: Browser) -> Iterator[Page]:
    """An empty tab in a browser profile of its own."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        yield tab


@contextlib.contextmanager
def visited(tab: Page, url: str) -> Iterator[Page]:
    """The page, loaded anew into a tab; every request must go to its own server.

    The page keeps nothing in the browser, so whoever loads it again is a new visitor; and a tab
    that has shown it before takes a third of the time that a new one takes.
    """
    foreign: list[str] = []
    broken: list[str] = []

    def check(request: Request) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            foreign.append(request.url)

    def note(error: Error) -> None:
        broken.append(str(error))

    tab.on("request", check)
    tab.on("pageerror", note)
    try:
        tab.goto(url)
        tab.get_by_role("button", name="Draw", exact=True).wait_for()
        yield tab
        assert not foreign, "the page asks other hosts"
        assert not broken, "scripts of the page fail"
        kept = "[localStorage.length, sessionStorage.length, document.cookie.length]"
        assert tab.evaluate(kept) == [0, 0, 0], "the page keeps something in the browser"
    finally:
        tab.remove_listener("request", check)
        tab.remove_listener("pageerror", note)


def set_number(page: Page, name: str, value: float) -> None:
    """Type a number into a setting of the tab that is shown.

    Again, where it was typed sooner than a person could: for some 20 ms after it appears, a setting
    may still return to its first value.
    """
    box = page.get_by_role("spinbutton", name=name).filter(visible=True).first
    for _ in range(5):
        box.fill(str(value))
        box.press("Tab")
        page.wait_for_timeout(60)
        if box.input_value() == str(value):
            return
    raise AssertionError(f"{name} does not keep {value}")


def use_settings(
    page: Page, *, candidates: int, keep: int | None = None, seed: int | None = None
) -> None:
    """Choose how many pictures are drawn; with a `seed`, the same ones each time."""
    settings = page.get_by_role("button", name=re.compile("^Settings")).filter(visible=True)
    settings.click()
    set_number(page, "Candidates", candidates)
    if keep is not None:
        set_number(page, "Keep", keep)
    if seed is not None:
        page.get_by_label("New seed each time").filter(visible=True).uncheck()
        page.get_by_label("Seed", exact=True).filter(visible=True).fill(str(seed))
    settings.click()


def ask(page: Page, caption: str, keys: str = "Enter") -> None:
    """Type a caption into the tab Draw and send it off."""
    box = page.get_by_role("textbox", name="Caption").filter(visible=True)
    box.fill(caption)
    box.press(keys)


def wait_for_status(page: Page, text: str | re.Pattern[str], timeout_s: float = 120) -> str:
    """The status line of the tab that is shown, once it says `text`."""
    line = page.locator(".status").filter(visible=True).filter(has_text=text).first
    line.wait_for(timeout=1000 * timeout_s)
    return line.inner_text()


DRAWN = re.compile(r"candidates? drawn in")
