"""The tab Draw, as people use it."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.random_models import save_random_model
from tests.web.serving import (
    DRAWN,
    RunningPage,
    ask,
    opened,
    running_page,
    set_number,
    use_settings,
    visited,
    wait_for_status,
)

if TYPE_CHECKING:
    from playwright.sync_api import APIResponse, Browser, Dialog, Page, Route

WATCH_SHIFTS = """() => {
  window.shifts = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries())
      if (!entry.hadRecentInput) window.shifts.push(entry.value);
  }).observe({type: 'layout-shift'});
}"""

WATCH_ROWS = """() => {
  window.frames_seen = [];
  new MutationObserver(() => {
    const tiles = [...document.querySelectorAll('.stage .tile img')];
    const first = tiles.find((one) => one.offsetParent);
    const rows = first?.alt.match(/(\\d+) of 16 rows/);
    if (rows) window.frames_seen.push([first.src, Number(rows[1])]);
  }).observe(document.body, {subtree: true, childList: true, attributes: true});
}"""
"""Notes the picture of the first candidate, and how many of its rows are drawn, at each change."""


def tiles(page: Page) -> list[str]:
    """Alternative texts of the pictures on the stage, in their order."""
    found = page.locator(".stage:visible .pick img").evaluate_all("all => all.map(one => one.alt)")
    return [str(text) for text in found]


def chosen_png(page: Page) -> bytes:
    url = page.get_by_role("link", name="Download PNG").get_attribute("href")
    assert url is not None
    return base64.b64decode(url.removeprefix("data:image/png;base64,"))


def choose(page: Page, place: int, *, shown: str) -> None:
    page.locator(".stage:visible .pick").nth(place).click()
    page.locator(".chosen:visible").filter(has_text=shown).wait_for()


def settings_in(png: bytes) -> dict[str, object]:
    with Image.open(io.BytesIO(png)) as image:
        found: dict[str, object] = json.loads(image.info["parameters"])
    return found


def test_a_caption_becomes_pictures_in_the_order_of_their_scores(page: Page) -> None:
    page.evaluate(WATCH_SHIFTS)
    use_settings(page, candidates=5, keep=4)  # three tiles in a row become two
    page.wait_for_timeout(700)  # what the click on Settings moved is no surprise
    page.evaluate("window.shifts.length = 0")
    ask(page, "two apples")
    assert "best first by CLIP" in wait_for_status(page, DRAWN)
    page.wait_for_timeout(300)
    assert sum(page.evaluate("window.shifts")) < 0.02
    names = tiles(page)
    assert len(names) == 4
    assert all(name.startswith("two apples: picture") for name in names)
    scores = [float(re.findall(r"CLIP (-?\d\.\d+)", name)[0]) for name in names]
    assert scores == sorted(scores, reverse=True)
    assert page.locator(".stage:visible").inner_text().count("CLIP") == 4
    page.get_by_label("Show all 5 candidates").check()
    page.locator(".stage:visible .pick").nth(4).wait_for()
    assert len(tiles(page)) == 5


def test_choosing_a_picture_shows_it_with_its_settings(page: Page) -> None:
    use_settings(page, candidates=3, keep=3, seed=5)
    ask(page, "a pizza")
    wait_for_status(page, DRAWN)
    first = chosen_png(page)
    choose(page, 2, shown="3 of 3")
    third = chosen_png(page)
    assert first != third
    assert settings_in(third)["caption"] == "a pizza"
    assert settings_in(third)["seed"] == 5
    page.get_by_role("button", name="Copy as Python").filter(visible=True).click()
    page.locator(".cm-content:visible").nth(1).wait_for()  # the editors open with the fold
    code = page.locator(".cm-content:visible").all_inner_texts()
    assert "seed=5" in code[0]
    assert code[1].startswith("dalle generate")
    dtype = settings_in(chosen_png(page))["dtype"]
    assert f"dtype='{dtype}'" in code[0]
    assert f"--dtype={dtype}" in code[1]


# By the page itself: on a machine with other work, all is drawn before a test's click gets there.
STOP_AFTER_A_BATCH = """() => {
  const watch = new MutationObserver(() => {
    if (!document.querySelector('img[alt^="Candidate 1, 16 of 16 rows"]')) return;
    watch.disconnect();
    [...document.querySelectorAll('button')].find((one) => one.innerText.trim() === 'Stop').click();
  });
  watch.observe(document.body, {subtree: true, childList: true, attributes: true});
}"""


LATE_MS = 2000
ANSWERED_LATE = """(wait) => {
  const fetched = window.fetch;
  window.fetch = async (...request) => {
    const answer = await fetched(...request);
    if (String(request[0]).includes('/run/')) await new Promise((done) => setTimeout(done, wait));
    return answer;
  };
}"""


def test_rows_appear_one_after_another(page: Page) -> None:
    page.evaluate(WATCH_ROWS)
    use_settings(page, candidates=16)
    ask(page, "a fox")
    wait_for_status(page, DRAWN)
    frames = dict(page.evaluate("window.frames_seen"))
    assert len(frames) >= 3
    assert list(frames.values()) == sorted(frames.values())


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, needs_gradio: None) -> Iterator[RunningPage]:
    """A page without the compiled step: it draws 64 pictures in batches, for half a minute."""
    folder = tmp_path_factory.mktemp("slow-page")
    model = save_random_model(folder / "model", grid=16)
    with running_page(folder, "--model", str(model), compiled=False) as page:
        page.wait_for_model()
        yield page


def test_stop_keeps_what_is_finished(tab: Page, slow: RunningPage) -> None:
    with visited(tab, slow.url) as page:
        use_settings(page, candidates=64)
        page.evaluate(STOP_AFTER_A_BATCH)
        page.evaluate(ANSWERED_LATE, LATE_MS)  # to pressing Stop, after the last of the drawing
        ask(page, "a fox on a blue background")
        line = wait_for_status(page, "complete and are kept", timeout_s=200)
        kept = int(re.findall(r"(\d+) of 64", line)[0])
        assert 1 <= kept < 64
        assert "Stopped" in line
        page.wait_for_timeout(1.5 * LATE_MS)
        assert wait_for_status(page, "kept", timeout_s=1) == line, "what came late changes nothing"
        assert page.get_by_role("button", name="Draw", exact=True).is_visible()
        page.get_by_label(f"Show all {kept} candidates").check()
        page.locator(".stage:visible .pick").nth(kept - 1).wait_for()
        assert len(tiles(page)) == kept


def test_a_drawing_asked_for_while_the_stream_of_answers_closes_is_answered(
    server: RunningPage, tab: Page
) -> None:
    """Gradio's client lets the stream close over an event that it sent at that moment."""
    server.wait_for_model()  # so that the page's own first event is answered at once
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    tab.route("**/queue/data?*", hold)
    try:
        with visited(tab, server.url) as page:
            while not held:
                page.wait_for_timeout(20)
            ((route, answers),) = held
            assert "close_stream" in answers.text()
            use_settings(page, candidates=1)
            with page.expect_response("**/queue/join?*"):
                ask(page, "a fox")
            route.fulfill(response=answers)
            wait_for_status(page, DRAWN, timeout_s=60)
    finally:
        tab.unroute_all()


def test_stop_before_any_picture_is_complete_says_so(page: Page) -> None:
    use_settings(page, candidates=16)
    ask(page, "a fox")
    page.get_by_text(re.compile(r"row \d+ of 16")).wait_for()
    page.keyboard.press("Escape")
    assert "No picture was complete" in wait_for_status(page, "Stopped")
    assert page.locator(".stage:visible .hole img").count() == 16


FOCUSED = "document.activeElement.textContent.trim()"


def test_the_keyboard_stays_where_it_draws_and_stops(page: Page) -> None:
    """Each button is hidden by being pressed, and its focus once was lost with it."""
    use_settings(page, candidates=64)
    page.get_by_role("textbox", name="Caption").filter(visible=True).fill("a fox")
    draw = page.get_by_role("button", name="Draw", exact=True)
    draw.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"{FOCUSED} === 'Stop'")
    page.get_by_text(re.compile(r"row \d+ of 16")).wait_for()
    page.keyboard.press("Enter")
    wait_for_status(page, "Stopped")
    page.wait_for_function(f"{FOCUSED} === 'Draw'")


def test_escape_closes_a_list_of_choices_and_stops_nothing(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Settings")).filter(visible=True).click()
    set_number(page, "Candidates", 16)
    ask(page, "a fox")
    page.get_by_text(re.compile(r"row \d+ of 16")).wait_for()
    page.get_by_label("Order of the pictures").filter(visible=True).click()
    page.get_by_role("option", name="As drawn").wait_for()
    page.keyboard.press("Escape")
    assert "Stopped" not in wait_for_status(page, DRAWN)


def test_a_stage_draws_one_thing_at_a_time(page: Page) -> None:
    use_settings(page, candidates=1)
    ask(page, "a fox")
    wait_for_status(page, DRAWN)
    use_settings(page, candidates=64)
    page.get_by_role("button", name="Variations").filter(visible=True).click()
    page.get_by_text(re.compile(r"row \d+ of 16")).wait_for()
    ask(page, "a pizza")
    page.get_by_text("pictures are still being drawn here; press Stop first").wait_for()
    assert page.get_by_role("button", name="Stop").is_visible()
    page.get_by_role("button", name="Stop").click()
    wait_for_status(page, "Stopped")
    assert page.get_by_role("button", name="Draw", exact=True).is_visible()


def test_closing_the_tab_frees_the_model(slow: RunningPage, browser: Browser, tab: Page) -> None:
    with opened(browser, slow.url) as leaving:
        use_settings(leaving, candidates=64)
        ask(leaving, "a fox")
        detail = leaving.locator(".status:visible .detail").filter(has_text=re.compile(r"about \d"))
        detail.wait_for()  # not for a certain row: fast machines show only some
        text = detail.inner_text()
        left = float(re.findall(r"about (\d+)", text)[0]) * (60 if "min" in text else 1)
    with visited(tab, slow.url) as page:
        use_settings(page, candidates=1)
        started = time.monotonic()
        ask(page, "a pizza")
        wait_for_status(page, DRAWN)
    assert time.monotonic() - started < left, "the other job went on"


def test_two_people_get_their_own_pictures(
    server: RunningPage, browser: Browser, page: Page
) -> None:
    with opened(browser, server.url) as other:
        for one, seed in ((page, 1), (other, 2)):
            use_settings(one, candidates=2, seed=seed)
        ask(page, "two apples", keys="Control+Enter")
        ask(other, "a robot", keys="Control+Enter")
        found = []
        for one in (page, other):
            wait_for_status(one, DRAWN)
            settings = settings_in(chosen_png(one))
            found.append((settings["caption"], settings["seed"]))
        assert found == [("two apples", 1), ("a robot", 2)]
        assert all(name.startswith("a robot") for name in tiles(other))


def test_html_in_captions_is_shown_as_text(page: Page) -> None:
    dialogs: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    caption = "<img src=x onerror=alert(1)><b id=planted>fox</b> ${alert(2)} {{7*7}}"
    use_settings(page, candidates=1)
    ask(page, caption)
    wait_for_status(page, DRAWN)
    page.wait_for_timeout(500)
    assert page.locator(".chosen:visible h2").inner_text() == caption
    assert page.locator(".history span").first.inner_text() == caption
    assert page.locator("#planted").count() == 0
    assert not dialogs


def test_a_dropped_png_restores_its_settings(page: Page, tmp_path: Path) -> None:
    use_settings(page, candidates=2, seed=77)
    ask(page, "a robot above a car")
    wait_for_status(page, DRAWN)
    png = chosen_png(page)
    file = tmp_path / "robot.png"
    file.write_bytes(png)
    page.reload()
    page.get_by_role("button", name="Restore settings").click()
    page.locator(".dropped input[type=file]").set_input_files(file)
    assert "seed 77" in wait_for_status(page, "Settings restored")
    box = page.get_by_role("textbox", name="Caption").filter(visible=True)
    assert box.input_value() == "a robot above a car"
    page.get_by_role("button", name="Draw", exact=True).click()
    wait_for_status(page, DRAWN)
    kept = []
    for place in range(page.locator(".stage:visible .pick").count()):
        choose(page, place, shown=f"{place + 1} of")
        kept.append(chosen_png(page))
    pixels = [Image.open(io.BytesIO(content)).tobytes() for content in kept]
    assert Image.open(io.BytesIO(png)).tobytes() in pixels


def test_a_png_without_settings_is_told_apart(idle_page: Page, tmp_path: Path) -> None:
    file = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(file)
    idle_page.get_by_role("button", name="Restore settings").click()
    idle_page.locator(".dropped input[type=file]").set_input_files(file)
    assert "Not done" in wait_for_status(idle_page, "holds no settings")


def test_earlier_pictures_come_back_with_their_settings(page: Page) -> None:
    use_settings(page, candidates=2, seed=3)
    for caption in ("two apples", "a pizza"):
        ask(page, caption)
        page.locator(".chosen:visible h2", has_text=caption).wait_for()
    first = page.locator(".history button").filter(has_text="two apples")
    first.click()
    page.locator(".chosen:visible h2", has_text="two apples").wait_for()
    box = page.get_by_role("textbox", name="Caption").filter(visible=True)
    assert box.input_value() == "two apples"
    assert settings_in(chosen_png(page))["caption"] == "two apples"


def test_an_example_is_one_click(idle_page: Page) -> None:
    idle_page.get_by_role("button", name="a grayscale owl").click()
    box = idle_page.get_by_role("textbox", name="Caption").filter(visible=True)
    idle_page.wait_for_function(
        "element => element.value === 'a grayscale owl'", arg=box.element_handle()
    )


def test_an_empty_caption_is_answered_in_words(idle_page: Page) -> None:
    ask(idle_page, "   ")
    assert "Not done" in wait_for_status(idle_page, "a caption must not be empty")
    assert idle_page.get_by_role("button", name="Draw", exact=True).is_visible()


def test_there_is_one_first_heading(idle_page: Page) -> None:
    assert idle_page.locator("h1").all_inner_texts() == ["Captions in, pictures out"]
    assert idle_page.title() == "Captions in, pictures out"
    assert idle_page.locator("html").get_attribute("lang") == "en"
