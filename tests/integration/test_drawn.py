"""What a model draws for captions of a data set, and a CLIP that tells it from the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import logsigmoid

from dalle import TextToImage
from dalle.checkpoint import load_clip
from dalle.cli import main
from dalle.clip import ClipScorer, small_clip_scorer
from dalle.config import DataConfig, DataDrawn, OptimConfig, TrainClip
from dalle.data.drawn import DrawnPictures
from dalle.data.images import open_rgb
from dalle.data.order import Draw
from dalle.data.samples import open_samples
from dalle.data.tokens import TokenFolder
from dalle.drawn_command import run as draw_set
from dalle.errors import DataError, ModelFormatError
from dalle.seeds import generator
from dalle.train.clip_task import ClipTask
from dalle.train.pairs import Pair
from dalle.train.runs import train_clip
from tests.paths import SCENES
from vae.pixels import to_image_u8

DRAWN_PX = 16  # what the tiny model draws

ClipSettings = Callable[..., TrainClip]

pytestmark = pytest.mark.usefixtures("log_reaches_caplog")


@pytest.fixture(scope="module")
def drawn(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures for each of the first twenty captions."""
    out = tmp_path_factory.mktemp("drawn") / "tokens"
    words = ["--data", str(SCENES), "--model", str(tiny_model), "--out", str(out)]
    more = ["--captions", "20", "--candidates", "3", "--seed", "5", "--device", "cpu"]
    assert main(["data", "drawn", *words, *more]) == 0
    return out


@pytest.fixture
def settings(tmp_path: Path, drawn: Path, clip_settings: ClipSettings) -> TrainClip:
    """A training at the size of the drawn pictures."""
    run = clip_settings(tmp_path / "run", drawn=drawn, loop_changes={"batch": 12, "accumulate": 1})
    return replace(
        run,
        data=DataConfig(train=SCENES, heldout=SCENES, image_px=DRAWN_PX),
        model=replace(run.model, image_px=DRAWN_PX, patch_px=4),
    )


def test_a_model_draws_the_captions_of_a_set(drawn: Path, tiny_model: Path) -> None:
    folder, samples = TokenFolder(drawn), open_samples(SCENES)
    assert (len(folder), folder.meta.crops) == (20, 3)
    assert folder.meta.source == samples.fingerprint
    captions = [samples[index].caption.lower() for index in range(20)]
    assert list(folder.captions()) == captions
    grids = np.stack([folder.grid(index, crop) for index in range(20) for crop in range(3)])
    assert len(np.unique(grids, axis=0)) > 50, "hardly two are alike"
    model = TextToImage.from_pretrained(tiny_model, device="cpu")
    (picture,) = model.image_tokenizer.decode(folder.grid(4, 1)[None])
    assert picture.size == (DRAWN_PX, DRAWN_PX)


def test_the_same_seed_draws_the_same(drawn: Path, tiny_model: Path, tmp_path: Path) -> None:
    again = DataDrawn(
        data=SCENES, model=tiny_model, out=tmp_path / "again", captions=20, candidates=3, seed=5,
        device="cpu",
    )  # fmt: skip
    assert draw_set(again) == 0
    for name in ("tokens.u16", "captions.txt"):
        assert (again.out / name).read_bytes() == (drawn / name).read_bytes()
    other = replace(again, out=tmp_path / "other", seed=6)
    assert draw_set(other) == 0
    assert (other.out / "tokens.u16").read_bytes() != (drawn / "tokens.u16").read_bytes()


def test_a_damaged_caption_is_skipped_and_counted(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    samples = open_samples(SCENES)
    for name, caption in (("a", "a fox"), ("b", "  "), ("c", "two apples")):
        (data / f"{name}.png").write_bytes(samples[0].image)
        (data / f"{name}.txt").write_text(caption, encoding="utf-8")
    out = tmp_path / "out"
    assert draw_set(DataDrawn(data=data, model=tiny_model, out=out, device="cpu")) == 0
    folder = TokenFolder(out)
    assert (list(folder.captions()), folder.meta.skipped) == (["a fox", "two apples"], 1)
    assert "skipped sample 1" in caplog.text
    with pytest.raises(ValueError, match="exists"):
        draw_set(DataDrawn(data=data, model=tiny_model, out=out, device="cpu"))


def test_a_pair_brings_what_was_drawn_for_its_caption(settings: TrainClip, drawn: Path) -> None:
    task, folder = ClipTask(settings), TokenFolder(drawn)
    for index in (3, 19):
        (pair,) = task.train_set[Draw(index=index, epoch=0)]
        assert isinstance(pair, Pair)
        assert pair.drawn is not None
        grids = [folder.grid(index, crop).tolist() for crop in range(3)]
        assert pair.drawn.tolist() in grids
    (without,) = task.train_set[Draw(index=22, epoch=0)]
    assert isinstance(without, Pair)
    assert without.drawn is None
    batch = task.collate([task.train_set[Draw(index=i, epoch=0)] for i in (18, 19, 20)])
    assert batch.tensors["drawn"].shape == (2, 4, 4)
    assert batch.tensors["image_u8"].shape[0] == 3


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_drawn_pictures_fit_no_caption(
    loss: Literal["clip", "siglip"], settings: TrainClip
) -> None:
    """Against the definition, written out term by term."""
    task = ClipTask(replace(settings, model=replace(settings.model, loss=loss)))
    batch = task.collate([task.train_set[Draw(index=i, epoch=0)] for i in range(17, 22)])
    found = task.loss(batch, 0, generator(0)).value.item()
    pixels = torch.cat(
        [
            batch.tensors["image_u8"].permute(0, 3, 1, 2) / 127.5 - 1,
            task.drawn_vae.decode(batch.tensors["drawn"]),  # type: ignore[union-attr]
        ]
    )
    with torch.no_grad():
        images = task.model.encode_image(pixels, normalize=True)
        texts = task.model.encode_text(batch.tensors["text_ids"], normalize=True)
        logits = task.model.logit_scale.exp() * texts @ images.T  # 5 texts, 5 + 3 pictures
        if loss == "siglip":
            signs = 2 * torch.eye(5, 8) - 1
            expected = -logsigmoid(signs * (logits + task.model.logit_bias)).sum() / 5
        else:
            to_images = -logits.log_softmax(1).diagonal().mean()
            to_texts = -logits[:, :5].log_softmax(0).diagonal().mean()
            expected = (to_images + to_texts) / 2
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_clip_learns_to_prefer_the_truth(settings: TrainClip, drawn: Path) -> None:
    longer = replace(
        settings.loop, steps=60, eval_every=60, save_every=60, sample_every=60, ema_decay=0.5
    )
    taught = replace(settings, loop=longer, optim=OptimConfig(lr=3e-3, warmup_steps=5))
    blind = replace(taught, out=taught.out.with_name("blind"), drawn=None)
    leads = []
    for run in (taught, blind):
        assert train_clip(run) == 0
        leads.append(_leads(_scorer(run.out / "model"), drawn))
    assert (leads[0] > 0).mean() > 0.9
    assert leads[0].mean() > 1.2 * leads[1].mean()


def _scorer(folder: Path) -> ClipScorer:
    parts = load_clip(folder)
    return small_clip_scorer(parts.model, parts.config, parts.tokenizer, torch.device("cpu"))


def _leads(scorer: ClipScorer, drawn: Path) -> np.ndarray:
    """By how much each true picture fits its caption better than those drawn for it."""
    pictures, samples = DrawnPictures(drawn, image_px=(DRAWN_PX, DRAWN_PX)), open_samples(SCENES)
    leads = []
    for index in range(20):
        grids = np.stack([pictures.tokens.grid(index, crop) for crop in range(3)])
        decoded = to_image_u8(pictures.vae.decode(torch.from_numpy(grids)))
        images = [open_rgb(samples[index].image), *map(Image.fromarray, decoded)]
        truth, *others = scorer.scores(samples[index].caption, images)
        leads += [truth - score for score in others]
    return np.array(leads)


def test_pictures_of_another_size_are_refused(settings: TrainClip) -> None:
    data = replace(settings.data, image_px=32)
    model = replace(settings.model, image_px=32)
    with pytest.raises(DataError, match="are 16 x 16 px, and those of"):
        ClipTask(replace(settings, data=data, model=model))


def test_training_goes_on_from_a_clip(settings: TrainClip) -> None:
    first = replace(settings, loop=replace(settings.loop, steps=2))
    assert train_clip(first) == 0
    second = replace(settings, out=settings.out.with_name("second"), init=first.out)
    with pytest.raises(ModelFormatError, match="of another shape or tokenizer"):
        ClipTask(replace(second, model=replace(second.model, embed_dim=8)))
    task = ClipTask(replace(second, tokenizer=first.out / "model" / "tokenizer.json"))
    for name, tensor in load_clip(first.out / "model").model.state_dict().items():
        assert torch.equal(task.model.state_dict()[name], tensor), name
