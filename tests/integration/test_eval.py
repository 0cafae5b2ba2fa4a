"""`dalle eval` from end to end, on a model of random weights: what is reported, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle.cli import main
from dalle.config import EvalModel
from dalle.eval_command import run
from dalle.evaluate.report import REPORT_FILE

SCENES = Path(__file__).parents[1] / "data" / "scenes"


@pytest.mark.usefixtures("font")
def test_everything_is_measured_and_written(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    words = [
        "eval", "--model", str(random_model), "--captions", "4", "--candidates", "3",
        "--temperatures", "0.5", "1.0", "--train_data", str(SCENES), "--out", str(out), "--json",
    ]  # fmt: skip
    assert main(words) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found == json.loads((out / "eval.json").read_text(encoding="utf-8"))
    assert (found["captions"], found["candidates"], found["set"]) == (4, 3, "heldout")
    at_1 = found["hit_at_1"]
    assert at_1["clip"] is None  # the model has none
    for name in ("random", "likelihood", "oracle"):
        rate = at_1[name]
        assert 0 <= rate["low"] <= rate["rate"] <= rate["high"] <= 1
        assert rate["n"] == 4
    # Random weights draw noise, and noise shows nothing that a caption says.
    assert at_1["oracle"]["rate"] == 0
    assert [point["k"] for point in found["hit_at_k"]["likelihood"]] == [1, 2, 3]
    assert set(found["temperatures"]) == {"0.5", "1"}
    assert len(found["envelope"]) == 3
    assert found["ranked_by"] == "likelihood"
    assert set(found["ranked_temperatures"]) == {"0.5", "1"}
    assert len(found["ranked_envelope"]) == 3
    assert found["gap_closed"] == {"likelihood": None}, "no candidate hits, so there is no gap"
    judge = found["judge"]
    assert judge["images"]["rate"] >= 0.75, "weights have no part in it"
    assert judge["rebuilt"]["rate"] == 0, "random weights keep nothing"
    assert judge["images"]["n"] == judge["rebuilt"]["n"] == judge["others"]["n"] == 4
    assert judge["caught"].keys() == judge["caught_rebuilt"].keys() >= {"background"}
    assert found["attributes"]["subject"]["n"] == 4
    assert found["bits_per_token"]["image"]["rate"] == pytest.approx(4, abs=0.2)  # log2 of 16 codes
    assert found["reconstruction"]["pictures"] == 4
    assert found["memorisation"]["training_pictures"] == 24
    assert found["retrieval"] is None
    page = (out / REPORT_FILE).read_text(encoding="utf-8")
    assert "## Memorisation" in page
    with Image.open(out / "best.png") as sheet:
        assert sheet.width > 64


def test_captions_without_truth_are_drawn_and_not_judged(
    random_model: Path, tmp_path: Path
) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("\ufeffa fox\n\na pizza\n", encoding="utf-8")
    settings = EvalModel(
        out=tmp_path / "out", model=str(random_model), set=str(captions), candidates=2, device="cpu"
    )
    assert run(settings) == 0
    found = json.loads((tmp_path / "out" / "eval.json").read_text(encoding="utf-8"))
    assert (found["captions"], found["hit_at_1"], found["bits_per_token"]) == (2, None, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--captions", "0"], "captions must be greater than 0"),
        (["--candidates", "0"], "candidates must be between 1 and"),
        (["--temperatures", "[-1]"], "temperature must be between 0"),
        (["--set", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(
    words: list[str],
    message: str,
    random_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main(["eval", "--model", str(random_model), "--out", str(out), *words]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not out.exists()
