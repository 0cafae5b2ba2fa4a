"""The page on transforms says what was measured, the unseen transform apart, and shows cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dalle.evaluate.estimators import Rate
from dalle.evaluate.transforms import (
    ATTRIBUTES,
    MEASURES,
    ORACLE,
    RANDOM,
    RECONSTRUCTION,
    SEEN,
    TRUTH,
    ZERO_SHOT,
    GroupRates,
    TransformEvaluation,
)
from dalle.evaluate.transforms_report import (
    RATES_FILE,
    SHEET_FILE,
    Example,
    markdown,
    write_sheet,
    write_transforms_report,
)
from dalle.sheets import GAP_PX, ROW_LABEL_PX


def rate(value: float, n: int = 40) -> Rate:
    return Rate(rate=value, low=value - 0.05, high=value + 0.05, n=n)


def group(cases: int, value: float) -> GroupRates:
    by_chooser = {RANDOM: rate(value), "clip": rate(value + 0.2), ORACLE: rate(value + 0.4)}
    near = {RANDOM: rate(0.3), "clip": rate(0.2), RECONSTRUCTION: rate(0.1)}
    return GroupRates(
        cases=cases,
        right=dict.fromkeys(ATTRIBUTES, by_chooser),
        closeness=dict.fromkeys(MEASURES, near),
    )


FOUND = TransformEvaluation(
    model="emoji",
    fingerprint="89abcdef",
    subjects=20,
    candidates=16,
    seed=7,
    temperature=0.8,
    ranker="clip",
    seconds=245.0,
    groups={SEEN: group(40, 0.25), ZERO_SHOT: group(20, 0.125)},
    looks={"sketch": group(20, 0.2), "hat": group(20, 0.3), "colored green": group(20, 0.125)},
    zero_shot_looks=("colored green",),
    judged_right={TRUTH: rate(0.95, n=60), RECONSTRUCTION: rate(0.9, n=60)},
)


def lines_of(page: str, title: str) -> list[str]:
    return page.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()


def test_the_header_says_what_was_run() -> None:
    header = markdown(FOUND).split("\n## ")[0]
    for row in (
        "# Transforms of emoji",
        "| cases | 60 (20 subjects for each look) |",
        "| candidates per case | 16 |",
        "| time taken | 4 min 5 s |",
    ):
        assert row in header.splitlines()


def test_looks_with_fewer_subjects_than_were_asked_for_are_told() -> None:
    """Bug: the header said what was asked for."""
    looks = {**FOUND.looks, "pixel art": group(11, 0.2)}
    header = markdown(replace(FOUND, looks=looks)).split("\n## ")[0]
    assert "(11 to 20 subjects for each look)" in header


def test_the_first_sentence_has_the_figures_people_look_for() -> None:
    assert markdown(FOUND).splitlines()[2] == (
        "Subject and look right in the best of 16 by CLIP, bottom half, transforms that training "
        "showed: **45.0 %** of cases, 65.0 % in any candidate; the one it never showed: "
        "**32.5 %** of cases, 52.5 % in any candidate."
    )


def test_seen_and_never_seen_are_told_apart() -> None:
    page = markdown(FOUND)
    seen = lines_of(page, "Transforms that training showed")
    assert any(line.startswith("40 cases: sketch, hat.") for line in seen)
    assert (
        "| CLIP, bottom half | 45.0 % (40.0 to 50.0) | 45.0 % (40.0 to 50.0) "
        "| 45.0 % (40.0 to 50.0) |"
    ) in seen
    unseen = lines_of(page, "The transform that training never showed")
    assert any(line.startswith("20 cases: colored green. ") for line in unseen)
    assert any(line.startswith("| oracle | 52.5 %") for line in unseen)


def test_a_model_without_the_unseen_transform_has_no_section_for_it() -> None:
    page = markdown(replace(FOUND, groups={SEEN: FOUND.groups[SEEN]}))
    assert "never showed\n" not in page


def test_every_look_is_listed_and_the_unseen_one_marked() -> None:
    lines = lines_of(markdown(FOUND), "Look by look")
    assert any(line.startswith("| colored green (never shown in panels) | 20 |") for line in lines)
    assert any(line.startswith("| sketch | 20 | 20.0 % (15.0 to 25.0) |") for line in lines)


def test_closeness_has_its_yardstick_and_leaves_out_what_was_not_measured() -> None:
    lines = lines_of(markdown(FOUND), "How near to the truth")
    row = "0.100 (0.050 to 0.150) | " * 3
    assert f"| seen: the truth through the dVAE | {row.strip()}" in lines
    assert not any("another subject |" in line for line in lines)


def test_page_and_plot_are_written(tmp_path: Path) -> None:
    page = write_transforms_report(FOUND, tmp_path / "new")
    assert page.read_text(encoding="utf-8") == markdown(FOUND)
    with Image.open(page.with_name(RATES_FILE)) as plot:
        assert plot.width == 1400


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 2), (5, 3)])
def test_the_sheet_has_two_cases_to_a_row(count: int, rows: int, tmp_path: Path) -> None:
    example = Example(
        subject="fox",
        look="sketch",
        truth=Image.new("RGB", (64, 64), "red"),
        first=Image.new("RGB", (64, 64), "lime"),
        best=Image.new("RGB", (64, 64), "blue"),
        first_hits=False,
        best_hits=True,
    )
    path = write_sheet([example] * count, tmp_path, candidates=16)
    assert path.name == SHEET_FILE
    with Image.open(path) as sheet:
        assert sheet.width == ROW_LABEL_PX + 6 * (128 + GAP_PX) + GAP_PX
        assert (sheet.height - rows * (128 + GAP_PX)) < 128
        found = sheet.convert("RGB").getcolors(1 << 16)
    assert found is not None
    counted = {colour: number for number, colour in found}
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        assert counted[colour] == count * 128 * 128
