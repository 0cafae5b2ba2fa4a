"""What `dalle eval vae` measures, against numbers worked out another way."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dalle.checkpoint import load_vae
from dalle.cli import main
from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.subjects import Subject
from dalle.errors import DataError
from dalle.evaluate.judging import Judging
from dalle.evaluate.subjects import SubjectJudge
from dalle.evaluate.vae import BATCH, Scene, evaluate_vae
from tests.paths import SCENES
from vae import DiscreteVAE
from vae.pixels import to_image_u8, to_pixels


@pytest.fixture
def dvae(tiny_model: Path) -> DiscreteVAE:
    return load_vae(tiny_model)


def noise(count: int) -> list[Scene]:
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return [Scene(image_u8=image) for image in images]


def test_numbers_equal_a_plain_computation(dvae: DiscreteVAE) -> None:
    scenes = noise(BATCH + 3)  # two batches
    report = evaluate_vae(dvae, iter(scenes), judging=None)
    levels, codes = [], []
    for scene in scenes:
        with torch.inference_mode():
            tokens = dvae.encode(to_pixels(torch.from_numpy(scene.image_u8)[None]))
            rebuilt = to_image_u8(dvae.decode(tokens))[0].astype(float)
        levels.append(20 * np.log10(255 / np.sqrt(np.mean((rebuilt - scene.image_u8) ** 2))))
        codes += tokens.flatten().tolist()
    shares = np.bincount(codes, minlength=32) / len(codes)
    used = shares[shares > 0]
    assert report["pictures"] == BATCH + 3
    assert report["psnr_db"] == pytest.approx(np.mean(levels), abs=1e-3)
    assert report["codebook_usage"] == len(used) / 32
    assert report["codebook_perplexity"] == pytest.approx(np.exp(-(used * np.log(used)).sum()))
    assert "subject_retrieval" not in report


@pytest.fixture
def judge(font: EmojiFont) -> SubjectJudge:
    return SubjectJudge(image_px=16, which="core", font=font.path)


def test_a_scene_is_retrieved_when_all_its_subjects_are(
    dvae: DiscreteVAE, judge: SubjectJudge
) -> None:
    """Each picture looks most like some subject, be it noise; another one beside it is missing."""
    (scene,) = noise(1)
    with torch.inference_mode():
        tokens = dvae.encode(to_pixels(torch.from_numpy(scene.image_u8)[None]))
        rebuilt = Image.fromarray(to_image_u8(dvae.decode(tokens))[0])

    def truth(*subjects: Subject) -> dict[str, Any]:
        place = {"cell": [0, 0, 32], "look": None, "panel": None}
        entries = [{"glyph": item.glyph, "name": item.name, **place} for item in subjects]
        return {"scene": "pair", "subjects": entries, "background": {"name": "white"}}

    def is_shown(item: Subject) -> bool:
        return judge.retrieved(rebuilt, truth(item)) == [True]

    judging = Judging(image_px=16, subjects="core", workers=1)
    found = next(item for item in judge.subjects if is_shown(item))
    other = next(item for item in judge.subjects if not is_shown(item))
    for shown, rate in (((found,), 1), ((found, other), 0), ((other,), 0)):
        known = replace(scene, truth=truth(*shown))
        report = evaluate_vae(dvae, [known, known, scene], judging=judging)
        assert report["pictures"] == 3
        assert {name: entry["n"] for name, entry in report["subject_retrieval"].items()} == {
            "all": 2,  # the third has no truth
            "pair": 2,
        }
        assert report["subject_retrieval"]["all"]["rate"] == rate


def test_nothing_to_evaluate_is_an_error(dvae: DiscreteVAE) -> None:
    with pytest.raises(DataError, match="no pictures to evaluate on"):
        evaluate_vae(dvae, [], judging=None)


def test_the_verb_judges_the_subjects_of_emoji_scenes(
    tiny_model: Path, judge: SubjectJudge, capsys: pytest.CaptureFixture[str]
) -> None:
    """It once looked for the subject list in the wrong place of dataset.json and judged none."""
    del judge  # skips without a font
    words = ["eval", "vae", "--vae", str(tiny_model), "--data", str(SCENES), "--samples", "5"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] == 5
    retrieval = report["subject_retrieval"]
    assert retrieval["all"]["n"] == 5 == sum(retrieval[kind]["n"] for kind in retrieval) - 5
    assert retrieval["all"]["rate"] <= 0.4, "an untrained dVAE keeps no subject"
    words[-1] = "1"
    assert main(words) == 0
    table = capsys.readouterr().out
    assert table.startswith("pictures              1\nPSNR ")
    assert "\nsubjects, all " in table


def test_scenes_are_judged_in_the_size_they_were_drawn_in(
    tiny_model: Path, tmp_path: Path, judge: SubjectJudge, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of 128 px were once shrunk to 64, and their dVAE looked worse than it is."""
    del judge  # skips without a font
    scenes, judged = tmp_path / "scenes", ["eval", "vae", "--vae", str(tiny_model)]
    words = ["data", "emoji", "--out", str(scenes), "--scenes", "2", "--subjects", "core"]
    assert main([*words, "--image-px", "32"]) == 0
    reports = []
    for size in ([], ["--image-px", "32"], ["--image-px", "64"]):
        capsys.readouterr()
        assert main([*judged, "--data", str(scenes), "--json", *size]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1] != reports[2]


def test_damaged_pictures_are_named_and_left_out(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Without captions, which a dVAE does not need: such pictures were once left out.
    for name in ("a", "b"):
        Image.new("RGB", (20, 16), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "a.png").write_bytes(b"not a picture")
    words = ["eval", "vae", "--vae", str(tiny_model), "--data", str(tmp_path), "--image-px", "16"]
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["pictures"] == 1
    assert "left out a.png: the picture is damaged" in err
    (tmp_path / "b.png").unlink()
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("error: there are no pictures to evaluate on\n")


def test_a_size_that_the_stride_does_not_divide_is_refused(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "vae", "--vae", str(tiny_model), "--data", str(SCENES)]
    assert main([*words, "--image-px", "18", "--samples", "1"]) == 2
    assert (
        "image_px (18) must be divisible by the stride of the dVAE in " in capsys.readouterr().err
    )
