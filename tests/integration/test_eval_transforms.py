"""`dalle eval transforms` on a model of random weights: what is measured, and refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from dalle import TextToImage
from dalle.checkpoint import load_model
from dalle.cli import main
from dalle.clip import small_clip_scorer
from dalle.config import EvalTransforms
from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import list_subjects
from dalle.data.emoji.wording import LOOK_NAMES
from dalle.eval_transforms_command import evaluate_transforms
from dalle.evaluate.transforms import (
    ORACLE,
    OTHER_SUBJECT,
    RANDOM,
    RECONSTRUCTION,
    SEEN,
    TRUTH,
    ZERO_SHOT,
    TransformEvaluation,
)
from dalle.evaluate.transforms_report import REPORT_FILE, Example
from dalle.rerank import ClipRanker
from tests.random_models import random_clip

Found = tuple[TransformEvaluation, list[Example]]


@pytest.fixture(scope="module")
def found(random_model: Path, painter: Painter) -> Found:
    """Two subjects of a tenth of the list for each look, three candidates, ranked by a CLIP."""
    parts = load_model(random_model)
    clip = random_clip(parts.tokenizer, seed=1)
    scorer = small_clip_scorer(clip.model, clip.config, clip.tokenizer, torch.device("cpu"))
    settings = EvalTransforms(
        out=Path("unused"), subjects=2, candidates=3, seed=1, device="cpu", workers=2
    )
    drawing = TextToImage(parts, ranker=ClipRanker(lambda: scorer), device="cpu")
    subjects = list_subjects(painter.font, "core")[::10]
    return evaluate_transforms(settings, drawing, parts, painter=painter, subjects=subjects)


def test_seen_and_never_seen_looks_are_measured_apart(found: Found) -> None:
    evaluation, _ = found
    assert set(evaluation.looks) <= set(LOOK_NAMES)
    assert len(evaluation.looks) > 12
    assert evaluation.zero_shot_looks == ("colored green",)
    cases = {name: group.cases for name, group in evaluation.groups.items()}
    assert cases[ZERO_SHOT] == evaluation.looks["colored green"].cases == 2
    assert cases[SEEN] + cases[ZERO_SHOT] == sum(group.cases for group in evaluation.looks.values())


def test_every_way_to_choose_is_measured(found: Found) -> None:
    evaluation, _ = found
    assert evaluation.ranker == "clip"
    for group in (*evaluation.groups.values(), *evaluation.looks.values()):
        for rates in group.right.values():
            assert list(rates) == [RANDOM, "likelihood", "clip whole", "clip", ORACLE]
            for rate in rates.values():
                assert 0 <= rate.low <= rate.rate <= rate.high <= 1
                assert rate.rate <= rates[ORACLE].rate
                assert rate.n == group.cases


def test_noise_is_wrong_and_the_truth_is_right(found: Found) -> None:
    """Random weights draw noise, which shows no subject in its look but by accident."""
    evaluation, _ = found
    assert evaluation.groups[SEEN].right["both"][RANDOM].rate < 0.2
    assert evaluation.judged_right[TRUTH].rate == 1
    # What an untrained dVAE makes of the truth is noise too.
    assert evaluation.judged_right[RECONSTRUCTION].rate < 0.5


def test_distances_have_their_yardsticks(found: Found) -> None:
    near = found[0].groups[SEEN].closeness
    assert near["token agreement"][RECONSTRUCTION].rate == 1
    assert near["token agreement"][RANDOM].rate < 0.5
    assert 0 < near["pixel distance"][OTHER_SUBJECT].rate < near["pixel distance"][RANDOM].rate
    assert near["edge distance"][OTHER_SUBJECT].rate > 0


def test_the_first_two_cases_of_each_look_are_shown(found: Found) -> None:
    evaluation, examples = found
    assert len(examples) == sum(min(2, group.cases) for group in evaluation.looks.values())
    shown = [(example.look, example.subject) for example in examples]
    assert [look for look, _ in shown[:2]] == ["sketch", "sketch"]
    assert len(set(shown)) == len(shown)


def test_what_is_found_is_ready_for_json(found: Found) -> None:
    assert json.loads(json.dumps(asdict(found[0])))["groups"][SEEN]["right"]["both"]["clip"]["n"]


@pytest.mark.slow
def test_the_command_writes_its_report(
    random_model: Path, painter: Painter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slow, for it paints every subject in every look."""
    del painter  # asks only for a font
    out = tmp_path / "report"
    words = [
        "--subjects",
        "1",
        "--candidates",
        "2",
        "--model",
        str(random_model),
        "--out",
        str(out),
    ]
    assert main(["eval", "transforms", *words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "transforms.json").read_text(encoding="utf-8"))
    assert printed["ranker"] == "likelihood"  # the model has no CLIP
    assert {path.name for path in out.iterdir()} == {
        REPORT_FILE, "transforms.json", "looks.png", "unselected.png"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--subjects", "0"], "subjects must be greater than 0"),
        (["--workers", "-1"], "workers must"),
        (["--candidates", "0"], "candidates must be between 1 and"),
        (["--subject-list", "some"], "subject_list"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["eval", "transforms", "--out", str(out), *words]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not out.exists()
