"""From captioned pictures to a CLIP that ranks: training, packing, and drawing with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dalle import TextToImage
from dalle.captions import CaptionTokenizer
from dalle.checkpoint import has_clip, load_clip, load_model, load_vae, save_vae
from dalle.cli import main
from dalle.clip import moved, small_clip_scorer
from dalle.config import ClipObjectiveConfig, DataConfig, OptimConfig, Pack, TrainClip
from dalle.data.images import open_rgb
from dalle.data.order import Draw
from dalle.data.samples import open_samples, samples_together
from dalle.errors import DataError, ModelFormatError
from dalle.pack_command import run as pack
from dalle.train.clip_task import ClipTask
from dalle.train.metrics import read_metrics
from dalle.train.pairs import Pair
from dalle.train.runs import train_clip
from tests.paths import SCENES
from tests.pictures import write_red_squares
from vae.pixels import to_pixels

ClipSettings = Callable[..., TrainClip]

pytestmark = pytest.mark.usefixtures("log_reaches_caplog")


@pytest.fixture(scope="module")
def contrasts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed scenes, declared to belong together in twos."""
    folder = tmp_path_factory.mktemp("contrasts") / "scenes"
    shutil.copytree(SCENES, folder)
    index = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    (folder / "dataset.json").write_text(json.dumps(index | {"together": 2}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("loss", "steps"), [("clip", 60), ("siglip", 120)])
def test_a_tiny_set_is_learnt(
    loss: str, steps: int, tmp_path: Path, contrasts: Path, clip_settings: ClipSettings
) -> None:
    """Every picture finds its caption and every caption its picture, hard negatives included."""
    base = clip_settings(tmp_path / "run")
    run = clip_settings(
        tmp_path / "run",
        data=DataConfig(train=contrasts, heldout=contrasts, image_px=32),
        model=type(base.model)(**{**vars(base.model), "loss": loss}),
        optim=OptimConfig(lr=3e-3, warmup_steps=5),
        loop_changes={
            "steps": steps, "batch": 12, "accumulate": 1, "ema_decay": 0.5, "eval_every": steps,
            "save_every": steps, "sample_every": steps,
        },
    )  # fmt: skip
    assert train_clip(run) == 0
    last = [line for line in read_metrics(run.out / "metrics.jsonl") if "heldout_contrast" in line]
    assert last[-1]["heldout_image_to_text_r1"] == 1
    assert last[-1]["heldout_text_to_image_r1"] == 1
    assert last[-1]["heldout_contrast"] == 1
    parts = load_clip(run.out / "model")
    scorer = small_clip_scorer(parts.model, parts.config, parts.tokenizer, torch.device("cpu"))
    samples = [open_samples(contrasts)[index] for index in range(6)]
    images = [open_rgb(sample.image) for sample in samples]
    for number, sample in enumerate(samples):
        scores = scorer.scores(sample.caption, images)
        assert max(range(6), key=scores.__getitem__) == number, sample.caption


def test_another_tokenizer_or_dvae_of_the_same_name_is_noticed(
    tmp_path: Path, trained_vae: Path, clip_settings: ClipSettings
) -> None:
    """Bug: a run went on with either, and published a tokenizer that it was not trained with."""
    tokenizer = tmp_path / "tokenizer.json"
    vae = shutil.copytree(trained_vae / "model", tmp_path / "vae")
    run = clip_settings(tmp_path / "run", tokenizer=tokenizer, vae=vae)
    CaptionTokenizer.train(["a fox"], 260).save(tokenizer)
    first = ClipTask(run).data_fingerprint
    assert ClipTask(run).data_fingerprint == first
    CaptionTokenizer.train(["two apples"], 260).save(tokenizer)
    second = ClipTask(run).data_fingerprint
    weights = load_vae(vae)
    with torch.no_grad():
        next(weights.parameters()).add_(1)
    save_vae(vae, weights)
    assert len({first, second, ClipTask(run).data_fingerprint}) == 3


def test_shaken_pictures_are_moved_each_by_itself(
    tmp_path: Path, contrasts: Path, clip_settings: ClipSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = clip_settings(
        tmp_path,
        data=DataConfig(train=contrasts, heldout=contrasts, image_px=32),
        objective=ClipObjectiveConfig(shift_px=2),
    )
    task = ClipTask(run)
    batch = task.collate([task.dataset()[Draw(index=i, epoch=0)] for i in range(12)])
    seen: list[torch.Tensor] = []
    original = task._features

    def features(model: object, pixels: torch.Tensor, text_ids: torch.Tensor) -> object:
        seen.append(pixels)
        return original(model, pixels, text_ids)

    monkeypatch.setattr(task, "_features", features)
    for seed in (1, 1, 2):
        task.loss(batch, 0, torch.Generator().manual_seed(seed))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2]), "chance decides"
    still = to_pixels(batch.tensors["image_u8"])
    offsets = set()
    for before, after in zip(still, seen[0], strict=True):
        fitting = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(moved(before[None], down, right)[0], after)
        ]
        assert fitting, "each is one of 25 moves"
        offsets.add(fitting[0])
    assert len(offsets) > 5


def test_groups_stay_whole_and_in_order(
    tmp_path: Path, contrasts: Path, clip_settings: ClipSettings
) -> None:
    run = clip_settings(tmp_path, data=DataConfig(train=contrasts, heldout=contrasts, image_px=32))
    task = ClipTask(run)
    groups = task.dataset()
    samples = open_samples(contrasts)
    assert (len(groups), task.units_per_sample) == (12, 2)  # type: ignore[arg-type]
    first, second = groups[Draw(index=5, epoch=3)]
    assert isinstance(first, Pair)
    assert [first.picture.key, second.picture.key] == [samples[10].key, samples[11].key]
    assert task.collate([[first, second]]).keys == (samples[10].key, samples[11].key)


def test_a_split_at_random_leaves_nothing_together(
    tmp_path: Path, contrasts: Path, clip_settings: ClipSettings
) -> None:
    """It parts what was made to be compared, and neighbours are then strangers."""
    data = DataConfig(train=contrasts, image_px=32, heldout_fraction=0.25)
    assert ClipTask(clip_settings(tmp_path, data=data)).units_per_sample == 1


def test_training_captions_that_are_cut_are_told(
    tmp_path: Path, clip_settings: ClipSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Bug: only held-out captions were measured, which may be others."""
    folders = {"train": "a fox " * 40, "heldout": "a fox"}
    for name, caption in folders.items():
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (32, 32), (number * 50,) * 3).save(tmp_path / name / f"{number}.png")
            (tmp_path / name / f"{number}.txt").write_text(caption)
    data = DataConfig(train=tmp_path / "train", heldout=tmp_path / "heldout", image_px=32)
    ClipTask(clip_settings(tmp_path / "run", data=data))
    assert "3 of the 3 captions that were looked at have over 15 tokens" in caplog.text


def test_captions_that_name_sides_are_never_shown_a_mirrored_picture(
    tmp_path: Path, clip_settings: ClipSettings
) -> None:
    """Bug: the paper's crops were the dVAE's, half of which are mirrored."""
    picture = Image.new("RGB", (48, 48), "red")
    picture.paste("blue", (24, 0, 48, 48))
    for number in range(10):
        picture.save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("red on the left")
    data = DataConfig(train=tmp_path, image_px=32, heldout_fraction=0.2, augment="paper")
    groups = ClipTask(clip_settings(tmp_path / "run", data=data)).train_set
    for epoch in range(20):
        (pair,) = groups[Draw(index=0, epoch=epoch)]
        assert isinstance(pair, Pair)
        assert pair.picture.image_u8[16, 0].tolist() == [255, 0, 0]
        assert pair.picture.image_u8[16, -1].tolist() == [0, 0, 255]


def test_micro_batches_of_one_pair_are_refused(
    tmp_path: Path, contrasts: Path, clip_settings: ClipSettings
) -> None:
    """Bug: with nothing to compare, the loss was 0 and a random model was published."""
    alone = {"batch": 4, "accumulate": 4}
    with pytest.raises(ValueError, match=r"must be two at least, got loop.batch 4 in loop.accumul"):
        ClipTask(clip_settings(tmp_path, loop_changes=alone))
    data = DataConfig(train=contrasts, heldout=contrasts, image_px=32)
    ClipTask(clip_settings(tmp_path, data=data, loop_changes=alone))  # a group is two pairs


def test_a_set_smaller_than_a_group_is_named(
    tmp_path: Path, contrasts: Path, clip_settings: ClipSettings
) -> None:
    """Bug: cannot draw batches from 0 samples, of no folder."""
    few = tmp_path / "few"
    shutil.copytree(contrasts, few)
    index = json.loads((few / "dataset.json").read_text(encoding="utf-8"))
    (few / "dataset.json").write_text(json.dumps(index | {"together": 25}), encoding="utf-8")
    for name, folders in (("train", (few, contrasts)), ("heldout", (contrasts, few))):
        data = DataConfig(train=folders[0], heldout=folders[1], image_px=32)
        message = rf"data.{name} {few} has 24 pictures, of which 25 belong together"
        with pytest.raises(DataError, match=message):
            ClipTask(clip_settings(tmp_path / "run", data=data))


def test_a_dvae_whose_stride_does_not_divide_the_pictures_is_refused(
    tmp_path: Path, trained_vae: Path, clip_settings: ClipSettings
) -> None:
    base = clip_settings(tmp_path)
    data, model = replace(base.data, image_px=30), replace(base.model, image_px=30, patch_px=6)
    with pytest.raises(ValueError, match=r"data.image_px \(30\) must be divisible by .* \(4\)"):
        ClipTask(clip_settings(tmp_path, data=data, model=model, vae=trained_vae))


def test_unreadable_held_out_pictures_are_named(
    tmp_path: Path, clip_settings: ClipSettings, caplog: pytest.LogCaptureFixture
) -> None:
    write_red_squares(tmp_path, damaged=1)
    task = ClipTask(
        clip_settings(
            tmp_path / "run", data=DataConfig(train=SCENES, heldout=tmp_path, image_px=32)
        )
    )
    assert len(task.heldout_captions) == 2
    assert "skipped held-out 1.png: " in caplog.text


def test_held_out_scores_do_not_tie_under_autocast(
    tmp_path: Path, clip_settings: ClipSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: cosines in bf16 tie where pictures are close, and the first one won."""
    task = ClipTask(clip_settings(tmp_path))
    angles = torch.tensor([0.0, 0.02])  # a cosine of 0.9998, which bf16 rounds to 1
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    monkeypatch.setattr(task, "_heldout_features", lambda model: (vectors, vectors))
    task.heldout_captions = ["a fox", "a dog"]
    with torch.autocast("cpu", torch.bfloat16):
        values = task.evaluate(task.model)
    assert values == {"heldout_image_to_text_r1": 1.0, "heldout_text_to_image_r1": 1.0}


@pytest.mark.parametrize("together", [0, 1.5, "2", True])
def test_nonsense_in_dataset_json_is_refused(together: object, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"shards": [], "together": together}))
    with pytest.raises(DataError, match="together must be a whole number from 1 on"):
        samples_together(tmp_path)


# ---------------------------------------------------------------------------- packing, and drawing


@pytest.fixture(scope="module")
def packed(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, clip_settings: ClipSettings
) -> Path:
    """The tiny model with a CLIP of its own."""
    folder = tmp_path_factory.mktemp("packed")
    run = clip_settings(
        folder / "clip", tokenizer=tiny_model / "tokenizer.json", loop_changes={"steps": 3}
    )
    assert train_clip(run) == 0
    (folder / "CARD.md").write_text("A card.\n", encoding="utf-8")
    settings = Pack(
        model=tiny_model, clip=run.out, card=folder / "CARD.md", out=folder / "model", top_k=5
    )
    assert pack(settings) == 0
    return folder / "model"


def test_a_packed_model_is_the_old_one_with_a_clip(packed: Path, tiny_model: Path) -> None:
    old, new = load_model(tiny_model), load_model(packed)
    assert has_clip(packed)
    assert not has_clip(tiny_model)
    assert (new.sampling.top_k, new.sampling.temperature) == (5, old.sampling.temperature)
    assert new.fingerprint != old.fingerprint
    assert (packed / "README.md").read_text(encoding="utf-8") == "A card.\n"
    for name, tensor in old.transformer.state_dict().items():
        assert torch.equal(tensor, new.transformer.state_dict()[name]), name


def test_packing_again_keeps_the_clip(packed: Path, tmp_path: Path) -> None:
    assert pack(Pack(model=packed, out=tmp_path / "again", temperature=0.5)) == 0
    model = TextToImage.from_pretrained(tmp_path / "again", device="cpu")
    assert model.ranker.name == "clip"
    assert model.sampling.temperature == 0.5


def test_a_clip_with_another_tokenizer_is_not_packed(
    tiny_model: Path, tmp_path: Path, clip_settings: ClipSettings
) -> None:
    run = clip_settings(tmp_path / "clip", loop_changes={"steps": 1})
    assert train_clip(run) == 0
    with pytest.raises(ModelFormatError, match="has another tokenizer than the model"):
        pack(Pack(model=tiny_model, clip=run.out, out=tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_the_models_own_clip_ranks_unless_told_otherwise(packed: Path) -> None:
    model = TextToImage.from_pretrained(packed, device="cpu")
    result = model.generate("a fox", candidates=5)
    assert {image.ranker for image in result.images} == {"clip"}
    assert model.clip is not None
    drawn = model.generate("a fox", candidates=5, ranker="none").images
    assert [image.recipe.index for image in drawn] == [0, 1, 2, 3, 4]
    assert {image.score for image in drawn} == {None}
    scores = model.clip.scores("a fox", [image.image for image in drawn])
    best = sorted(range(5), key=lambda index: -scores[index])
    assert [image.recipe.index for image in result.images] == best
    assert [image.score for image in result.images] == pytest.approx(sorted(scores, reverse=True))
    likely = model.generate("a fox", candidates=5, ranker="likelihood").images
    assert [image.score for image in likely] == [image.log_likelihood for image in likely]


def test_a_clip_may_leave_a_share_to_the_likelihood(packed: Path, tmp_path: Path) -> None:
    assert pack(Pack(model=packed, out=tmp_path / "both", likelihood_weight=0.5)) == 0
    model = TextToImage.from_pretrained(tmp_path / "both", device="cpu")
    images = model.generate("a fox", candidates=5).images
    assert model.clip is not None
    cosines = model.clip.scores("a fox", [image.image for image in images])
    wanted = [
        cosine + 0.5 * image.log_likelihood for cosine, image in zip(cosines, images, strict=True)
    ]
    assert [image.score for image in images] == pytest.approx(wanted, abs=1e-6)
    assert wanted == sorted(wanted, reverse=True)
    assert {image.ranker for image in images} == {"clip"}
    again = model.redraw(images[0].recipe)
    assert again.score == pytest.approx(images[0].score, abs=1e-5)


def test_a_share_for_the_likelihood_needs_a_clip(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pack", "--model", str(tiny_model), "--out", str(tmp_path / "model")]
    assert main([*words, "--likelihood-weight", "0.2"]) == 1
    assert "likelihood_weight is part of a CLIP, and" in capsys.readouterr().err
    assert main([*words, "--likelihood-weight", "-1"]) == 2
    assert "likelihood_weight must be a number from 0 on, got -1.0" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_redrawn_picture_is_scored_as_at_first(packed: Path) -> None:
    model = TextToImage.from_pretrained(packed, device="cpu")
    first = model.generate("two apples", candidates=3).images[0]
    again = model.redraw(first.recipe)
    assert again.image.tobytes() == first.image.tobytes()
    assert again.ranker == "clip"
    assert again.score == pytest.approx(first.score, abs=1e-5)


def test_the_command_line_ranks_by_clip_and_says_so(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "a fox", "--model", str(packed), "--candidates", "3", "--keep", "2"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.startswith("a fox (best first by clip):")
    assert main([*words, "--out", str(tmp_path / "b"), "--ranker", "none", "--json"]) == 0
    images = json.loads(capsys.readouterr().out)["captions"][0]["images"]
    assert [(image["ranker"], image["score"], image["index"]) for image in images] == [
        ("none", None, 0),
        ("none", None, 1),
    ]


def test_a_clip_in_a_folder_can_be_named(packed: Path, tiny_model: Path, tmp_path: Path) -> None:
    with_clip = TextToImage.from_pretrained(tiny_model, clip=packed, device="cpu")
    own = TextToImage.from_pretrained(packed, device="cpu")
    scores = [model.generate("a pizza").images[0].score for model in (with_clip, own)]
    # The packed model samples with another top_k, so only the rankers are compared.
    assert with_clip.ranker.name == own.ranker.name == "clip"
    assert all(score is not None for score in scores)
