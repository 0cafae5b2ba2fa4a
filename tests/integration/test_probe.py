"""`dalle probe` on the tiny model: emoji groups, a folder of one's own, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="classifiers, extra `eval`")
from PIL import Image

from dalle.cli import main
from dalle.evaluate.features import CODE_COUNTS, CODES, PIXELS
from dalle.evaluate.probe_report import DEPTH_FILE, LOW_DATA_FILE, REPORT_FILE


@pytest.mark.usefixtures("font")
def test_the_groups_of_the_emoji_are_told_apart(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probe"
    words = ["--labels", "[2, 4]", "--test-pictures", "2", "--repeats", "2"]
    assert main(["probe", *words, "--model", str(tiny_model), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "probe.json").read_text(encoding="utf-8"))
    found = report["findings"]
    assert {"animals", "food", "faces"} <= set(found["classes"])
    assert len(found["layers"]) == 3
    assert set(found["baselines"]) == {PIXELS, CODES, CODE_COUNTS}
    assert found["labels"] == 4
    assert found["test_pictures"] == 4 * 2 * len(found["classes"]), "four folds of two"
    assert list(found["low_data"][PIXELS]) == ["2", "4"]
    assert {path.name for path in out.iterdir()} == {
        REPORT_FILE, DEPTH_FILE, LOW_DATA_FILE, "probe.json"
    }  # fmt: skip


def test_a_folder_of_ones_own_is_classified(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Red and blue pictures: raw pixels cannot fail."""
    for colour in ("red", "blue"):
        (tmp_path / "mine" / colour).mkdir(parents=True)
        for number in range(12):
            noise = Image.effect_noise((20, 20), 60).convert("RGB")
            picture = Image.blend(noise, Image.new("RGB", (20, 20), colour), 0.7)
            picture.save(tmp_path / "mine" / colour / f"{number}.jpg")
    words = ["--data", str(tmp_path / "mine"), "--labels", "[3, 9]", "--model", str(tiny_model)]
    assert main(["probe", *words, "--out", str(tmp_path / "out")]) == 0
    page = capsys.readouterr().out
    assert page == (tmp_path / "out" / REPORT_FILE).read_text(encoding="utf-8")
    assert "| data | mine |" in page
    assert "| raw pixels | 100.0 %" in page
    assert "| classes | 2, chance is 50.0 % |" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "[50, 10]"], "labels must be different numbers from 2 on, in rising order"),
        (["--labels", "[]"], "labels must be different numbers from 2 on"),
        (["--labels", "[1, 5]"], "got [1, 5]"),
        (["--repeats", "0"], "repeats must be greater than 0"),
        (["--data", "nowhere"], "nowhere must hold a sub-folder of pictures for each class"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_anything_is_written(
    words: list[str],
    message: str,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main(["probe", "--model", str(tiny_model), "--out", str(out), *words]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not out.exists()
