"""The probe's protocol, on features that are known to hold the classes or not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="classifiers, extra `eval`")
from PIL import Image

from dalle.evaluate.features import CODE_COUNTS, CODES, PIXELS, Features
from dalle.evaluate.labelled import LabelledPictures, LabelledSplit
from dalle.evaluate.probe_report import (
    DEPTH_FILE,
    LOW_DATA_FILE,
    ProbeReport,
    markdown,
    write_probe_report,
)
from dalle.evaluate.probing import BEST_LAYER, ProbeFindings, pooled, probe_fold

CLASSES = ("animals", "food", "sky")
SIGNAL = (0.2, 1.0, 4.0, 1.0)
"""How clearly each depth tells the classes; the third does best."""


def pictures(each: int, first_unit: int) -> LabelledPictures:
    labels = np.repeat(np.arange(3), each)
    return LabelledPictures(
        images_u8=np.zeros((3 * each, 4, 4, 3), dtype=np.uint8),
        labels=labels,
        units=first_unit + np.arange(3 * each) // 2,
    )


def features(part: LabelledPictures, rng: np.random.Generator) -> Features:
    def of(signal: float) -> np.ndarray:
        noise = rng.normal(size=(len(part.labels), 12))
        noise[np.arange(len(part.labels)), part.labels] += signal
        return noise.astype(np.float32)

    return Features(
        layers=np.stack([of(signal) for signal in SIGNAL]),
        baselines={PIXELS: of(0.5), CODES: of(0.7), CODE_COUNTS: of(1.0)},
    )


def found_with(labels: tuple[int, ...], *, folds: int = 1) -> ProbeFindings:
    rng = np.random.default_rng(0)
    found = []
    for fold in range(folds):
        test = pictures(30, 1000 * (fold + 1))
        split = LabelledSplit(classes=CLASSES, train=pictures(40, 0), test=test)
        found.append(
            probe_fold(
                split,
                train=features(split.train, rng),
                test=features(split.test, rng),
                labels=labels,
                repeats=3,
                seed=0,
            )
        )
    return pooled(found, CLASSES, seed=0)


@pytest.fixture(scope="module")
def found() -> ProbeFindings:
    return found_with((4, 40))


def test_the_layer_that_tells_most_is_found(found: ProbeFindings) -> None:
    assert found.best_layers == (2,)
    assert found.best == found.layers[2]
    assert found.validation[2] == max(found.validation)
    assert found.layers[2].rate > 0.9
    assert found.layers[0].rate < 0.6
    assert found.layers[2].n == 45, "two pictures of each thing"


def test_the_gain_is_over_raw_pixels_on_the_same_pictures(found: ProbeFindings) -> None:
    difference = found.layers[2].rate - found.baselines[PIXELS].rate
    assert found.gain.rate == pytest.approx(difference)
    assert 0 < found.gain.low < found.gain.rate < found.gain.high
    assert np.mean([rate.rate for rate in found.by_class.values()]) == pytest.approx(
        found.layers[2].rate
    )


def test_folds_are_pooled(found: ProbeFindings) -> None:
    """Other things in each, so that intervals shrink; each with the layer that is best there."""
    many = found_with((40,), folds=3)
    assert (many.folds, many.best_layers) == (3, (2, 2, 2))
    assert many.best.n == 3 * found.best.n
    assert many.test_pictures == 3 * found.test_pictures
    assert many.gain.high - many.gain.low < 0.75 * (found.gain.high - found.gain.low)


def test_more_labels_do_better(found: ProbeFindings) -> None:
    assert set(found.low_data) == {BEST_LAYER, PIXELS, CODES, CODE_COUNTS}
    few, many = found.low_data[BEST_LAYER][4], found.low_data[BEST_LAYER][40]
    assert 1 / 3 < few.rate < many.rate
    assert many == found.layers[2]


@pytest.mark.usefixtures("log_reaches_caplog")
def test_labels_that_there_are_not_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """With 40 pictures of each class: 250 cannot be had, so all 40 are the most."""
    found = found_with((10, 250))
    assert found.labels == 40
    assert list(found.low_data[PIXELS]) == [10, 40]
    assert "the smallest class has 40 pictures to learn from, so 250 labels are left out" in (
        caplog.text
    )


def test_the_page_tells_gain_depths_and_labels(found: ProbeFindings, tmp_path: Path) -> None:
    report = ProbeReport(
        model="emoji",
        fingerprint="89abcdef",
        data="the groups of the emoji",
        seed=0,
        repeats=3,
        seconds=61.0,
        findings=found,
    )
    page = write_probe_report(report, tmp_path / "new").read_text(encoding="utf-8")
    assert page == markdown(report)
    lines = page.splitlines()
    assert any(
        line.startswith(f"**{100 * found.layers[2].rate:.1f} %** from layer 2, ") for line in lines
    )
    assert "| classes | 3, chance is 33.3 % |" in lines
    tested = "90 pictures of 45 things, each by classifiers that never saw it"
    assert f"| to test on | {tested} |" in lines
    assert any(line.startswith("| layer 2 |") and line.endswith("| 1 |") for line in lines)
    assert any(line.startswith(f"| **{BEST_LAYER}** |") for line in lines)
    assert any(line.startswith("| layer 3, the final states |") for line in lines)
    assert any(line.startswith("| features | 4 | 40 |") for line in lines)
    assert "fewer than 40 are the mean of 3 choices" in page
    for file in (DEPTH_FILE, LOW_DATA_FILE):
        with Image.open(tmp_path / "new" / file) as plot:
            assert plot.size == (1400, 840)
    assert json.loads(json.dumps(asdict(report)))["findings"]["low_data"][PIXELS]["4"]["n"] == 45


def test_one_number_of_labels_makes_no_curve(tmp_path: Path) -> None:
    report = ProbeReport(
        model="emoji", fingerprint="", data="x", seed=0, repeats=1, seconds=1,
        findings=found_with((40,)),
    )  # fmt: skip
    page = write_probe_report(report, tmp_path).read_text(encoding="utf-8")
    assert LOW_DATA_FILE not in page
    assert not (tmp_path / LOW_DATA_FILE).exists()
