"""`dalle eval` from end to end, on a model of random weights: what is reported, and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dalle import TextToImage
from dalle.checkpoint import load_model, save_clip
from dalle.cli import main
from dalle.clip import ClipScorer, small_clip_scorer
from dalle.config import EvalModel
from dalle.data.samples import open_samples
from dalle.errors import DataError
from dalle.eval_command import SHEET_COLUMNS, run
from dalle.evaluate.asked import ask_pictures
from dalle.evaluate.report import REPORT_FILE
from dalle.sheets import picture_grid
from tests.paths import SCENES
from tests.random_models import CAPTIONS, random_clip, save_random_model


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


@pytest.fixture(scope="module")
def clip(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipScorer]:
    """A CLIP of random weights, as a folder and as what scores."""
    tokenizer = load_model(random_model).tokenizer
    clip = random_clip(tokenizer, seed=2)
    folder = tmp_path_factory.mktemp("clips") / "random"
    save_clip(folder, clip)
    return folder, small_clip_scorer(clip.model, clip.config, tokenizer, torch.device("cpu"))


def test_clip_ranks_and_finds_captions_as_worked_out_by_hand(
    random_model: Path, clip: tuple[Path, ClipScorer], tmp_path: Path
) -> None:
    pool = [*CAPTIONS, "a photo of a banana", "three owls", "an emoji of a boat", "rain"]
    captions = [*pool, pool[1], pool[1]]
    file, out = tmp_path / "captions.txt", tmp_path / "out"
    file.write_text("\n".join(captions), encoding="utf-8")
    settings = EvalModel(
        out=out, model=str(random_model), set=str(file), candidates=4, seed=3, device="cpu",
        clip=str(clip[0]),
    )  # fmt: skip
    assert run(settings) == 0

    model = TextToImage.from_pretrained(random_model, device="cpu")
    drawn = model.generate(captions, candidates=4, seed=3, ranker="none").results
    best, by_likelihood, places = [], [], []
    for result in drawn:
        images = [one.image for one in result.images]
        scores = clip[1].scores(result.caption or "", images)
        best.append(scores.index(max(scores)))
        likelihoods = [one.log_likelihood for one in result.images]
        by_likelihood.append(likelihoods.index(max(likelihoods)))
        of_first = {caption: clip[1].scores(caption, images[:1])[0] for caption in pool}
        ordered = sorted(pool, key=lambda caption: -of_first[caption])
        places.append(ordered.index(result.caption or ""))
    assert best != by_likelihood, "or the sheet would not tell who has chosen"
    sheet = picture_grid(
        [one.images[index].image for one, index in zip(drawn, best, strict=True)],
        columns=SHEET_COLUMNS,
        labels=captions,
    )
    with Image.open(out / "best.png") as written:
        assert written.convert("RGB").tobytes() == sheet.tobytes()
    retrieval = json.loads((out / "eval.json").read_text(encoding="utf-8"))["retrieval"]
    assert (retrieval["captions"], retrieval["r_at_1"]["n"]) == (8, 10), "each caption once"
    assert retrieval["r_at_1"]["rate"] == sum(place < 1 for place in places) / len(captions)
    assert retrieval["r_at_5"]["rate"] == sum(place < 5 for place in places) / len(captions)
    # Random weights see little of a picture: all put the captions in about the same order, and
    # the one asked for three times tells its two ends apart.
    assert [places.count(0), places.count(7)] == [3, 1]


@pytest.mark.usefixtures("font")
def test_a_picture_is_found_among_many_captions_and_not_among_one(
    random_model: Path, clip: tuple[Path, ClipScorer], tmp_path: Path
) -> None:
    """Of one caption, R@1 was 100 %, and "another scene's caption" was its own and right."""
    settings = EvalModel(
        out=tmp_path / "one", model=str(random_model), captions=1, candidates=2, device="cpu",
        clip=str(clip[0]), workers=1,
    )  # fmt: skip
    assert run(settings) == 0
    found = json.loads((tmp_path / "one" / "eval.json").read_text(encoding="utf-8"))
    assert found["retrieval"]["captions"] >= 500, "other scenes' captions, which are not drawn"
    assert (found["ranked_by"], found["hit_at_1"]["clip"]["n"]) == ("clip", 1)
    assert found["judge"]["others"] is None
    assert found["judge"]["images"]["n"] == 1

    file = tmp_path / "captions.txt"
    file.write_text("a fox\n", encoding="utf-8")
    settings = replace(settings, set=str(file))
    assert run(settings) == 0
    found = json.loads((tmp_path / "one" / "eval.json").read_text(encoding="utf-8"))
    assert found["retrieval"] is None
    assert "more than one caption" in (tmp_path / "one" / REPORT_FILE).read_text(encoding="utf-8")


@pytest.mark.usefixtures("font")
def test_what_fails_late_leaves_an_earlier_report_as_it_was(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new best.png was left beside the old report."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("dalle.eval_command.bits_per_token", fail)
    settings = EvalModel(
        out=tmp_path / "out", model=str(random_model), captions=1, candidates=1, device="cpu",
        workers=1,
    )  # fmt: skip
    with pytest.raises(MemoryError):
        run(settings)
    assert not list(settings.out.iterdir())


def test_training_pictures_are_opened_before_anything_is_drawn(
    random_model: Path, tmp_path: Path
) -> None:
    training, out = tmp_path / "training", tmp_path / "out"
    training.mkdir()
    (training / "a.png").write_bytes(b"no picture")
    settings = EvalModel(
        out=out, model=str(random_model), captions=12, candidates=1, device="cpu", set=str(SCENES),
        train_data=training,
    )  # fmt: skip
    with pytest.raises(DataError, match="no training pictures to compare with"):
        run(settings)
    assert not out.exists()
    # A dVAE's pictures need no captions.
    Image.new("RGB", (20, 20), "red").save(training / "a.png")
    assert run(settings) == 0
    found = json.loads((out / "eval.json").read_text(encoding="utf-8"))["memorisation"]
    assert (found["training_pictures"], found["trained_on"]) == (1, 0)


def test_tables_are_of_captions_or_of_pictures_by_what_they_hold(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    for name, text in (
        ("words.csv", "caption\na fox\nan owl\n"),
        ("pictures.csv", "file_name,caption\na.png,a fox\n"),
        ("pictures.jsonl", '{"file_name": "a.png", "text": "a fox"}\n'),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        words = ["eval", "--model", str(random_model), "--set", name, "--candidates", "1", "--json"]
        assert main([*words, "--out", "out", "--device", "cpu"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["bits_per_token"] is None) == (name == "words.csv")
    (tmp_path / "wrong.jsonl").write_text('{"picture": "a.png", "text": "a fox"}', encoding="utf-8")
    assert main(["eval", "--model", str(random_model), "--set", "wrong.jsonl", "--out", "o"]) == 1
    assert "exactly one column of pictures" in capsys.readouterr().err
    words = ["eval", "--model", str(random_model), "--set", "words.csv", "--train_data", "."]
    assert main([*words, "--out", "new"]) == 2
    assert "train_data needs captions with known pictures" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("font")
def test_a_folder_called_like_scenes_is_not_taken_without_a_word(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    words = [
        "eval",
        "--model",
        str(random_model),
        "--set",
        "train",
        "--captions",
        "1",
        "--out",
        "o",
    ]
    assert main([*words, "--candidates", "1", "--workers", "1"]) == 0
    assert (
        "set train means emoji scenes; for what lies here write ./train" in capsys.readouterr().err
    )


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


def test_pictures_of_ones_own_are_compared_with_what_is_drawn_for_their_captions(
    random_model: Path, clip: tuple[Path, ClipScorer], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [
        "eval", "--model", str(random_model), "--set", str(SCENES), "--captions", "12",
        "--candidates", "2", "--seed", "5", "--clip", str(clip[0]), "--device", "cpu",
        "--train_data", str(SCENES), "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert f"12 of the 24 pictures in {SCENES}, drawn by lot; --captions 24 takes all" in err
    assert f"12 of the 12 pictures in {SCENES} are training pictures" in err
    found: dict[str, Any] = json.loads(out)
    assert (found["captions"], found["hit_at_1"], found["judge"]) == (12, None, None)
    memory = found["memorisation"]
    assert (memory["trained_on"], memory["training_pictures"]) == (12, 24)
    assert memory["generated"]["n"] == 12
    assert found["bits_per_token"]["image"]["rate"] == pytest.approx(4, abs=0.2)  # log2 of 16 codes
    assert found["reconstruction"]["pictures"] == 12

    model = TextToImage.from_pretrained(random_model, device="cpu")
    asked = ask_pictures(open_samples(SCENES), 12, image_px=model.image_px, seed=5)
    cosines: dict[str, list[float]] = {"drawn": [], "best": [], "true": []}
    pairs, labels = [], []
    for one in asked:
        result = model.generate(one.caption, candidates=2, seed=5, ranker="none")
        scores = clip[1].scores(one.caption, [image.image for image in result.images])
        assert one.image is not None
        cosines["drawn"].append(scores[0])
        cosines["best"].append(max(scores))
        cosines["true"] += clip[1].scores(one.caption, [one.image])
        pairs += [result.images[scores.index(max(scores))].image, one.image]
        labels += [one.caption, "the true picture"]
    for name, values in cosines.items():
        rate = found["agreement"][name]
        assert rate["rate"] == pytest.approx(sum(values) / 12, abs=1e-5), name
        assert rate["n"] == 12
    assert found["agreement"]["others"]["n"] == found["likeness"]["drawn"]["n"] == 12
    # Noise is told from scenes; the random dVAE rebuilds noise as well.
    assert found["likeness"]["drawn"]["low"] > 0
    page = (tmp_path / "out" / REPORT_FILE).read_text(encoding="utf-8")
    assert "## Distance from true pictures" in page
    with Image.open(tmp_path / "out" / "best.png") as written:
        sheet = picture_grid(pairs, columns=SHEET_COLUMNS, labels=labels)
        assert written.convert("RGB").tobytes() == sheet.tobytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--captions", "0"], "captions must be greater than 0"),
        (["--candidates", "0"], "candidates must be between 1 and"),
        (["--temperatures", "[-1]"], "temperature must be between 0"),
        (["--set", "nowhere.txt"], "nowhere.txt"),
        (
            ["--set", "heldot"],
            "set must be heldout or train, a file of captions (.txt, .csv, .tsv)",
        ),
        (["--set", str(SCENES), "--temperatures", "[0.7, 0.9]"], "captions with ground truth"),
        # All was drawn and judged before it was opened.
        (["--train_data", "nowhere"], "nowhere is not a folder"),
        # Other temperatures were drawn for nothing, training pictures not looked at.
        (["--set", "a.txt", "--temperatures", "[0.7, 0.9]"], "temperatures needs captions with"),
        (["--set", __file__, "--train_data", str(SCENES)], "train_data needs captions with"),
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


def test_pictures_too_small_to_compare_are_refused_before_they_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It once was said after all had been drawn."""
    model = save_random_model(tmp_path / "model", grid=2)
    out = tmp_path / "out"
    words = ["--model", str(model), "--set", str(SCENES), "--out", str(out)]
    assert main(["eval", *words]) == 2
    assert "must have sides of at least 11 px, got 8 x 8" in capsys.readouterr().err
    assert not out.exists()
