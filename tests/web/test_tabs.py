"""The tabs beside Draw: image prompts, exploring, batches, and going from one to another."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from tests.paths import ROOT
from tests.web.serving import DRAWN, ask, set_number, use_settings, wait_for_status

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOX = ROOT / "dalle" / "page" / "examples" / "fox.png"


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.get_by_role("tab", name=name, selected=True).wait_for()


def give_picture(page: Page, file: Path) -> None:
    page.locator(".given").filter(visible=True).locator("input[type=file]").set_input_files(file)


def test_an_uploaded_picture_is_completed(page: Page) -> None:
    open_tab(page, "Image prompt")
    give_picture(page, FOX)
    kept = page.get_by_alt_text(re.compile("the upper 8 rows are kept"))
    kept.wait_for()
    set_number(page, "Kept rows of tokens", 5)
    page.get_by_alt_text(re.compile("the upper 5 rows are kept")).wait_for()
    use_settings(page, candidates=2, keep=2)
    page.get_by_role("button", name="Complete").click()
    wait_for_status(page, DRAWN)
    assert page.locator(".stage:visible .pick").count() == 2
    assert page.locator(".chosen:visible h2").inner_text() == "(no caption)"


def test_a_part_of_a_picture_is_drawn_anew(page: Page) -> None:
    open_tab(page, "Image prompt")
    page.get_by_role("button", name="Try a fox").click()
    page.get_by_alt_text(re.compile("the upper 8 rows are kept")).wait_for()
    page.get_by_role("radio", name="All but a part").check()
    page.get_by_alt_text(re.compile("all but the outlined part is kept")).wait_for()
    page.get_by_label("Kept rows of tokens").first.wait_for(state="hidden")
    for label, value in {"Top edge": 10, "Bottom edge": 13, "Left edge": 9}.items():
        set_number(page, label, value)
    use_settings(page, candidates=1)
    page.get_by_role("button", name="Complete").click()
    wait_for_status(page, DRAWN)
    page.get_by_text("Copy as Python or command line").filter(visible=True).click()
    page.get_by_text("--region=[0.5625, 0.625, 0.75, 0.8125]").filter(visible=True).wait_for()
    # Another drawing, and back: the widgets are as they were.
    page.get_by_role("radio", name="Keep its top").check()
    page.get_by_label("Kept rows of tokens").first.wait_for()
    page.get_by_role("button", name="Complete").click()
    page.wait_for_function("document.querySelectorAll('.history button').length === 2")
    page.locator(".history button").last.click()
    page.get_by_alt_text(re.compile("all but the outlined part is kept")).wait_for()
    assert page.get_by_role("radio", name="All but a part").is_checked()
    assert page.get_by_label("Top edge").first.input_value() == "10"


def test_a_transform_writes_the_caption(page: Page) -> None:
    open_tab(page, "Image prompt")
    page.get_by_role("button", name="Try a fox").click()
    page.get_by_alt_text(re.compile("rows are kept")).wait_for()
    page.get_by_label("It shows").fill("fox")
    page.get_by_label("Transform", exact=True).click()
    page.get_by_role("option", name="sketch").click()
    caption = "the exact same fox on the top as a sketch on the bottom"
    box = page.get_by_role("textbox", name="Caption").filter(visible=True)
    page.wait_for_function(
        "([element, text]) => element.value === text", arg=[box.element_handle(), caption]
    )
    assert page.get_by_role("radio", name="Whole picture on top").is_checked()
    use_settings(page, candidates=1)
    page.get_by_role("button", name="Complete").click()
    wait_for_status(page, DRAWN)
    assert page.locator(".chosen:visible h2").inner_text() == caption


def test_every_transform_has_the_whole_picture_on_top(page: Page) -> None:
    open_tab(page, "Image prompt")
    page.get_by_role("button", name="Try a fox").click()
    page.get_by_alt_text(re.compile("the upper 8 rows are kept")).wait_for()
    page.get_by_label("It shows").fill("fox")
    use_settings(page, candidates=1)
    page.get_by_role("button", name="Draw every transform").click()
    wait_for_status(page, "16 pictures drawn in")
    assert page.locator(".stage:visible .pick").count() == 16
    assert page.get_by_role("radio", name="Whole picture on top").is_checked()
    assert page.locator(".chosen:visible h2").inner_text() == (
        "the exact same fox on the top as a sketch on the bottom"
    )


def test_a_file_that_is_no_picture_is_refused(idle_page: Page, tmp_path: Path) -> None:
    open_tab(idle_page, "Image prompt")
    file = tmp_path / "page.png"
    file.write_text("<html><script>alert(1)</script></html>")
    give_picture(idle_page, file)
    idle_page.get_by_text("Not done.").filter(visible=True).wait_for()
    idle_page.get_by_role("button", name="Complete").click()
    assert "give a picture first" in wait_for_status(idle_page, "give a picture")


def test_a_drawn_picture_goes_on_to_the_other_tabs(page: Page) -> None:
    use_settings(page, candidates=2, keep=2)
    ask(page, "a fox on a blue background")
    wait_for_status(page, DRAWN)
    page.get_by_role("button", name="Variations").filter(visible=True).click()
    page.wait_for_function("document.querySelectorAll('.history button').length === 2")
    page.get_by_role("button", name="Use this picture").filter(visible=True).click()
    page.get_by_role("tab", name="Image prompt", selected=True).wait_for()
    page.get_by_alt_text(re.compile("rows are kept")).wait_for()
    open_tab(page, "Draw")
    page.get_by_role("button", name="Explore").filter(visible=True).click()
    page.get_by_role("tab", name="Explore", selected=True).wait_for()
    page.get_by_alt_text("The picture drawn again from its tokens").wait_for()
    assert "16 × 16 tokens" in page.locator(".explore:visible").inner_text()
    assert page.locator(".codes:visible li").count() >= 1


def test_a_grid_shows_every_combination(page: Page) -> None:
    open_tab(page, "Explore")
    open_tab(page, "X/Y grid")
    use_settings(page, candidates=1)
    page.get_by_role("textbox", name="Caption").filter(visible=True).fill("a [[red, blue]] fox")
    page.get_by_label("Values down").fill("0.5, 1")
    page.get_by_role("button", name="Draw grid").click()
    assert wait_for_status(page, "pictures drawn in").startswith("4 pictures")
    labels = page.locator(".stage:visible .tile p").all_inner_texts()
    assert [label.split(",")[0] for label in labels] == ["red", "blue", "red", "blue"]
    page.get_by_alt_text(re.compile("^Grid of a ")).wait_for()


def choose_axis(page: Page, label: str, name: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=name, exact=True).click()
    page.get_by_role("listbox").wait_for(
        state="hidden"
    )  # it fades, and may not stand beside the next


def test_an_earlier_grid_comes_back_with_its_axes(page: Page) -> None:
    """Its pictures once came back beside the axes, the caption and the sheet of a later grid."""
    open_tab(page, "Explore")
    open_tab(page, "X/Y grid")
    use_settings(page, candidates=1)
    caption = page.get_by_role("textbox", name="Caption").filter(visible=True)
    for text, across, values, down, below in (
        ("a [[red, blue]] fox", "words in [[ ]]", "", "temperature", "0.5"),
        ("a pizza", "seed", "8", "nothing", ""),
    ):
        caption.fill(text)
        choose_axis(page, "Across", across)
        page.get_by_label("Values across").fill(values)
        choose_axis(page, "Down", down)
        page.get_by_label("Values down").fill(below)
        page.get_by_role("button", name="Draw grid").click()
        page.get_by_alt_text(f"Grid of {text}: {across} across").wait_for(timeout=120_000)
    open_tab(page, "How it sees")
    open_tab(page, "Draw")
    page.locator(".history button").filter(has_text="fox").click()
    page.get_by_alt_text("Grid of a [[red, blue]] fox: words in [[ ]] across").wait_for()
    assert caption.input_value() == "a [[red, blue]] fox"
    shown = [
        page.get_by_label(label, exact=True).input_value()
        for label in ("Across", "Values across", "Down", "Values down")
    ]
    assert shown == ["words in [[ ]]", "", "temperature", "0.5"]


def test_a_file_of_captions_is_drawn_and_downloaded(page: Page, tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    captions.write_text("id,caption\n1,two apples\n2,<i>a robot</i>\n", encoding="utf-8")
    open_tab(page, "Batch")
    page.locator(".captions-file input[type=file]").set_input_files(captions)
    page.get_by_text("2 captions").wait_for()
    assert page.locator(".captions li").all_inner_texts() == ["two apples", "<i>a robot</i>"]
    use_settings(page, candidates=1)
    page.get_by_role("button", name="Draw all").click()
    wait_for_status(page, "2 pictures drawn in")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all (zip)").filter(visible=True).click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        assert len([name for name in names if name.endswith(".png")]) == 2
    with page.expect_download() as download:
        page.get_by_role("button", name="Contact sheet").filter(visible=True).click()
    with Image.open(download.value.path()) as sheet:
        assert sheet.format == "PNG"


def test_too_many_captions_are_answered_with_the_command(idle_page: Page, tmp_path: Path) -> None:
    captions = tmp_path / "many.txt"
    captions.write_text("a fox\n" * 51, encoding="utf-8")
    open_tab(idle_page, "Batch")
    idle_page.locator(".captions-file input[type=file]").set_input_files(captions)
    idle_page.get_by_text("dalle generate").filter(visible=True).wait_for()
