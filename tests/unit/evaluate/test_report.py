"""The report says what was measured, and in one line what was not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dalle.evaluate.estimators import Curve, Rate, share
from dalle.evaluate.report import (
    RANKED_TEMPERATURES_FILE,
    RANKERS_FILE,
    RATES_FILE,
    TEMPERATURES_FILE,
    markdown,
    write_report,
)
from dalle.evaluate.results import (
    Agreement,
    BitsPerToken,
    Evaluation,
    HitAt1,
    HitAtK,
    Likeness,
    Memorisation,
    Nearness,
    Reconstruction,
    Retrieval,
    Validation,
    curve_points,
    envelope_points,
)

NOTHING = Evaluation(
    model="emoji",
    fingerprint="89abcdef",
    set="heldout",
    captions=1200,
    candidates=48,
    seed=7,
    temperature=0.7,
    seconds=4512.4,
)


def rate(value: float, n: int = 200) -> Rate:
    return Rate(rate=value, low=value - 0.05, high=value + 0.05, n=n)


def curve(first: float, last: float, n: int = 48) -> tuple[HitAtK, ...]:
    rates = np.linspace(first, last, n)
    return curve_points(Curve(rates=rates, low=rates - 0.05, high=rates + 0.05))


@pytest.fixture(scope="module")
def everything() -> Evaluation:
    cold, warm = np.linspace(0.3, 0.5, 48), np.linspace(0.1, 0.9, 48)
    near = Nearness(median=0.25, p05=0.125, least=0.0625, n=320)
    return replace(
        NOTHING,
        hit_at_1=HitAt1(random=rate(0.2), likelihood=rate(0.3), clip=rate(0.55), oracle=rate(0.9)),
        gap_closed={"likelihood": rate(1 / 7), "clip": rate(0.5)},
        hit_at_k={"clip": curve(0.2, 0.55), "random": curve(0.2, 0.9)},
        temperatures={"0.5": curve(0.3, 0.5), "1.0": curve(0.1, 0.9)},
        envelope=envelope_points({0.5: cold, 1.0: warm}),
        ranked_by="clip",
        ranked_temperatures={"0.5": curve(0.3, 0.4), "1.0": curve(0.1, 0.2)},
        ranked_envelope=envelope_points({0.5: np.linspace(0.3, 0.4, 48)}),
        judge=Validation(
            images=rate(0.95),
            rebuilt=rate(0.85),
            others=rate(0.05),
            caught={"count": rate(0.75, n=30)},
            caught_rebuilt={"count": rate(0.65, n=30)},
        ),
        retrieval=Retrieval(captions=1200, r_at_1=rate(0.4), r_at_5=rate(0.7)),
        agreement=Agreement(drawn=rate(0.25), best=rate(0.5), true=rate(0.75), others=rate(-0.125)),
        likeness=Likeness(drawn=rate(0.25), best=rate(0.125), rebuilt=rate(0.0625)),
        attributes={"all": rate(0.2), "subject": rate(0.3)},
        kinds={"plain": rate(0.5, n=40)},
        ranked_kinds={"plain": rate(0.75, n=40)},
        bits_per_token=BitsPerToken(image=rate(2.5), caption=rate(1.25)),
        reconstruction=Reconstruction(
            psnr_db=24.256,
            ssim=0.87654,
            codebook_usage=0.98,
            codebook_perplexity=219.4,
            pictures=150,
        ),
        memorisation=Memorisation(
            generated=near,
            heldout=replace(near, median=0.5),
            training_pictures=60000,
            trained_on=3,
        ),
    )


def section(page: str, title: str) -> str:
    return re.split(r"^## ", page, flags=re.MULTILINE)[
        [part.split("\n")[0] for part in re.split(r"^## ", page, flags=re.MULTILINE)].index(title)
    ]


def test_the_header_says_what_was_run() -> None:
    header = markdown(NOTHING).split("\n## ")[0]
    assert header.startswith("# Evaluation of emoji\n")
    for row in (
        "| model | emoji |",
        "| fingerprint | 89abcdef |",
        "| captions | 1,200 of heldout |",
        "| candidates per caption | 48 |",
        "| seed | 7 |",
        "| temperature | 0.7 |",
        "| time taken | 1 h 15 min |",
    ):
        assert f"\n{row}\n" in header


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7200, "2 h 0 min")],
)
def test_time_is_told_for_people(seconds: float, told: str) -> None:
    assert f"| time taken | {told} |" in markdown(replace(NOTHING, seconds=seconds))


def test_what_was_not_measured_takes_one_line_at_the_end(everything: Evaluation) -> None:
    page = markdown(NOTHING)
    (part,) = page.split("\n## ")[1:]
    title, empty, _, empty_too, *needs = part.rstrip("\n").split("\n")
    assert (title, empty, empty_too) == ("Not measured", "", "")
    titles = re.findall(r"^## (.*)", markdown(everything), re.MULTILINE)
    assert [line.split(":")[0] for line in needs] == [f"- {title}" for title in titles]
    assert all(re.search(r": it needs .*\.$", line) for line in needs)
    assert "![" not in page
    some = markdown(replace(everything, memorisation=None)).split("\n## ")
    assert some[-1] == (
        "Not measured\n\nWhat is missing here:\n\n"
        "- Memorisation: it needs the training pictures and held-out ones.\n"
    )


def test_hit_at_1_is_told_by_ranker(everything: Evaluation) -> None:
    part = section(markdown(everything), "Hit at 1")
    assert "| random | 20.0 % | 15.0 to 25.0 % | 200 |  |\n" in part
    assert "| likelihood | 30.0 % | 25.0 to 35.0 % | 200 | 14.3 % (9.3 to 19.3) |\n" in part
    assert "| CLIP | 55.0 % | 50.0 to 60.0 % | 200 | 50.0 % (45.0 to 55.0) |\n" in part
    assert "| oracle | 90.0 % | 85.0 to 95.0 % | 200 |  |\n" in part


def test_a_ranker_that_was_not_there_is_said_to_be_missing() -> None:
    some = HitAt1(random=rate(0.9), oracle=rate(0.9), likelihood=rate(0.9))
    page = markdown(replace(NOTHING, hit_at_1=some, gap_closed={"likelihood": None}))
    assert "| CLIP | not measured |  |  |  |\n" in page
    assert "| likelihood | 90.0 % | 85.0 to 95.0 % | 200 | no gap |\n" in page


def test_hit_at_k_has_the_powers_of_two(everything: Evaluation) -> None:
    part = section(markdown(everything), "Hit at k")
    assert "| k | any of k | best of k by CLIP |\n| --- | ---: | ---: |\n" in part
    assert re.findall(r"^\| (\d+) \|", part, re.MULTILINE) == ["1", "2", "4", "8", "16", "32"]
    # 0.2 + 0.7 * 31 / 47 and 0.2 + 0.35 * 31 / 47
    assert "| 32 | 66.2 % (61.2 to 71.2) | 43.1 % (38.1 to 48.1) |\n" in part
    few = markdown(replace(NOTHING, hit_at_k={"random": curve(0.2, 0.9, n=5)}))
    assert re.findall(r"^\| (\d+) \|", few, re.MULTILINE) == ["1", "2", "4"]


def test_temperatures_stand_beside_the_best(everything: Evaluation) -> None:
    part = section(markdown(everything), "Temperature")
    assert "| k | 0.5 | 1.0 | best |\n" in part
    assert "| 1 | 30.0 % (25.0 to 35.0) | 10.0 % (5.0 to 15.0) | 30.0 % at 0.5 |\n" in part
    # 0.3 + 0.2 * 31 / 47 and 0.1 + 0.8 * 31 / 47
    assert "| 32 | 43.2 % (38.2 to 48.2) | 62.8 % (57.8 to 67.8) | 62.8 % at 1 |\n" in part


def test_the_ranked_temperatures_stand_below(everything: Evaluation) -> None:
    part = section(markdown(everything), "Temperature")
    assert "\nThe same, best of k by CLIP:\n" in part
    assert "| 1 | 30.0 % (25.0 to 35.0) | 10.0 % (5.0 to 15.0) | 30.0 % at 0.5 |\n" in part
    # 0.3 + 0.1 * 31 / 47
    assert "| 32 | 36.6 % (31.6 to 41.6) |" in part


def test_the_judge_shows_its_own_marks(everything: Evaluation) -> None:
    part = section(markdown(everything), "How far the judge can be trusted")
    assert "| ground truth | 95.0 % | 90.0 to 100.0 % | 200 |\n" in part
    assert "| ground truth through the dVAE | 85.0 % | 80.0 to 90.0 % | 200 |\n" in part
    assert "| ground truth beside another scene's caption | 5.0 % | 0.0 to 10.0 % | 200 |\n" in part
    assert "| count | 75.0 % | 70.0 to 80.0 % | 65.0 % | 60.0 to 70.0 % | 30 |\n" in part

    assert "The first two should be right, the third wrong." in part
    assert everything.judge is not None
    alone = replace(everything, judge=replace(everything.judge, others=None))
    part = section(markdown(alone), "How far the judge can be trusted")
    assert "another scene's caption" not in part
    assert "Both should be right." in part


def test_every_other_section_has_its_numbers(everything: Evaluation) -> None:
    page = markdown(everything)
    assert "Not measured" not in page
    attributes = section(page, "Attributes")
    tables = re.split(r"^\| (By .*) \| right \| interval \| cases \|\n", attributes, flags=re.M)[1:]
    assert tables[::2] == [
        "By attribute, a candidate at random",
        "By kind of scene, a candidate at random",
        "By kind of scene, after ranking",
    ]
    assert "| subject | 30.0 % | 25.0 to 35.0 % | 200 |\n" in tables[1]
    assert "| plain | 50.0 % | 45.0 to 55.0 % | 40 |\n" in tables[3]
    assert "| plain | 75.0 % | 70.0 to 80.0 % | 40 |\n" in tables[5]
    retrieval = section(page, "Retrieval")
    assert "among 1,200 captions" in retrieval
    assert "| R@1 | 40.0 % | 35.0 to 45.0 % | 200 |\n" in retrieval
    assert "| R@5 | 70.0 % |" in retrieval
    agreement = section(page, "Agreement with the caption")
    assert "| drawn, chosen by nobody | 0.250 | 0.200 to 0.300 | 200 |\n" in agreement
    assert "| drawn, best of 48 | 0.500 |" in agreement
    assert "| true pictures | 0.750 |" in agreement
    assert "| drawn, beside another's caption | -0.125 | -0.175 to -0.075 | 200 |\n" in agreement
    likeness = section(page, "Distance from true pictures")
    assert "| drawn, chosen by nobody | 250.000 | 200.000 to 300.000 | 200 |\n" in likeness
    assert "| drawn, best of 48 | 125.000 |" in likeness
    assert "| true, through the dVAE | 62.500 |" in likeness
    bits = section(page, "Likelihood of true pairs")
    assert "| image token | 2.500 | 2.450 to 2.550 | 200 |\n" in bits
    assert "| caption token | 1.250 |" in bits
    dvae = section(page, "Reconstruction by the dVAE")
    for row in ("PSNR | 24.26 dB", "SSIM | 0.8765", "codebook usage | 98.0 %"):
        assert f"| {row} |\n" in dvae
    assert "| codebook perplexity | 219 |\n| pictures | 150 |\n" in dvae
    memorisation = section(page, "Memorisation")
    assert "nearest of 60,000 training pictures" in memorisation
    assert "**3 of the true pictures are training pictures.**" in memorisation
    assert "| drawn | 0.25 | 0.125 | 0.0625 | 320 |\n" in memorisation
    assert "| true | 0.5 | 0.125 | 0.0625 | 320 |\n" in memorisation
    assert everything.memorisation is not None
    unseen = replace(everything, memorisation=replace(everything.memorisation, trained_on=0))
    memorisation = section(markdown(unseen), "Memorisation")
    assert "None of the true pictures is among them, pixel for pixel." in memorisation
    assert "are training pictures" not in memorisation
    few = replace(NOTHING, retrieval=Retrieval(captions=5, r_at_1=rate(0.4), r_at_5=rate(1.0)))
    assert "R@5" not in markdown(few), "of five captions, five are found by anybody"
    odd = markdown(replace(NOTHING, set="caf\udce9"))
    assert "1,200 of caf\\\\udce9" in odd
    assert odd.encode()


def test_tables_are_whole(everything: Evaluation) -> None:
    """Every row has as many cells as its head, whatever the names hold."""
    wild = replace(everything, model="a|b\n*c*", attributes={"x|y": rate(0.5)})
    tables = re.findall(r"(?:^\|.*\n)+", markdown(wild), re.MULTILINE)
    assert len(tables) == 16
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, table
    assert markdown(wild).startswith("# Evaluation of a\\|b \\*c\\*\n")


def test_the_page_links_the_plots_beside_it(everything: Evaluation, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib, extra `eval`")
    page = write_report(everything, tmp_path / "new" / "report")
    text = page.read_text(encoding="utf-8")
    assert text == markdown(everything)
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert links == [RANKERS_FILE, TEMPERATURES_FILE, RANKED_TEMPERATURES_FILE, RATES_FILE]
    assert {path.name for path in page.parent.iterdir()} == {page.name, *links}


def test_what_is_missing_is_not_linked(tmp_path: Path) -> None:
    """One candidate per caption makes a table of one row, but no curve."""
    pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib, extra `eval`")
    one = {"random": curve(0.2, 0.2, n=1)}
    page = write_report(replace(NOTHING, hit_at_k=one, temperatures=one), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [page.name]
    text = page.read_text(encoding="utf-8")
    assert "![" not in text
    assert text.count("| 1 | 20.0 % (15.0 to 25.0) |") == 2
    write_report(replace(NOTHING, kinds={"plain": share([True])}), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {page.name, RATES_FILE}
