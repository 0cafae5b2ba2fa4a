"""Joint sequences as the transformer is trained on them, and its held-out losses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle.captions import CaptionTokenizer
from dalle.config import LoopConfig, TrainTransformer, TransformerObjectiveConfig
from dalle.data.order import Draw
from dalle.data.tokens import TokenFolder, TokenWriter
from dalle.model_config import TransformerConfig
from dalle.seeds import generator
from dalle.sequence import null_caption
from dalle.train.transformer_task import Sequences, TransformerTask
from vae import DiscreteVAE, VaeConfig

CAPTIONS = [
    f"a fox next to {number} pizzas{' on a blue background' * (number % 2)}" for number in range(40)
]
CROPS = 3

Run = Callable[..., TrainTransformer]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Makes settings of a training on forty random grids in three versions."""
    vae = VaeConfig(channels=8, groups=2, blocks_per_group=1, codebook_size=16, codebook_dim=4)
    grids = np.random.default_rng(0).integers(16, size=(len(CAPTIONS), CROPS, 2, 2))
    with TokenWriter(tmp_path / "tokens", DiscreteVAE(vae), crops=CROPS, source="s") as writer:
        for caption, versions in zip(CAPTIONS, grids, strict=True):
            writer.add(caption, versions)
        writer.finish(CaptionTokenizer.train(CAPTIONS, 290), skipped=0)

    def make(*, loop: dict[str, Any] | None = None, **objective: float) -> TrainTransformer:
        settings: dict[str, Any] = {"batch": 4, "device": "cpu", "precision": "fp32"}
        return TrainTransformer(
            out=tmp_path / "run",
            tokens=tmp_path / "tokens",
            text_len=24,
            heldout_fraction=0.25,
            model=TransformerConfig(width=16, layers=1, heads=2),
            objective=TransformerObjectiveConfig(**objective),
            loop=LoopConfig(**(settings | (loop or {}))),
        )

    return make


def drawn(task: TransformerTask, index: int, epoch: int) -> Sequences:
    return task.train_set[Draw(index=index, epoch=epoch)]


def captions(task: TransformerTask, epoch: int) -> list[list[int]]:
    return [drawn(task, index, epoch).text_ids.tolist() for index in range(30)]


def test_what_is_drawn_depends_on_seed_epoch_and_picture_alone(run: Run) -> None:
    first, again = TransformerTask(run()), TransformerTask(run())
    captions(again, epoch=3)  # what was drawn before changes nothing
    assert captions(first, epoch=1) == captions(again, epoch=1)
    assert captions(first, epoch=1) != captions(first, epoch=2)
    other = TransformerTask(run(loop={"seed": 1}))
    other.train_set.indices = first.train_set.indices
    assert captions(first, epoch=1) != captions(other, epoch=1)


def test_captions_that_are_cut_are_counted(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Bug: what lay beyond text_len was never learnt, and nobody heard of it."""
    TransformerTask(run())
    assert not caplog.records
    TransformerTask(replace(run(), text_len=8))
    (line,) = caplog.messages
    assert re.fullmatch(
        r"\d+ of the 30 captions .* have over 8 tokens \(the longest \d+\), .*; raise text_len, .*",
        line,
    )


def test_sheets_show_held_out_captions_unless_others_are_named(run: Run) -> None:
    """Bug: foxes and pizzas were drawn by whatever model."""
    settings = run()
    task = TransformerTask(settings)
    assert len(task.sheet_captions) == 4
    trained = {TokenFolder(settings.tokens).caption(index) for index in task.train_set.indices}
    assert not {*task.sheet_captions} & trained
    named = TransformerTask(replace(settings, sample_captions=("a fox",)))
    assert named.sheet_captions == ("a fox",)


def test_every_version_of_a_picture_has_its_turn(run: Run) -> None:
    task = TransformerTask(run())
    folder, index = TokenFolder(task.run.tokens), task.train_set.indices[5]
    seen = [drawn(task, 5, epoch).image_tokens.tolist() for epoch in range(60)]
    versions = [folder.grid(index, crop).flatten().tolist() for crop in range(CROPS)]
    # The chance that one of three is missing from sixty draws is 3 (2/3)^60 = 1e-10.
    assert all(version in seen for version in versions)
    assert all(tokens in versions for tokens in seen)


def test_captions_are_dropped_at_their_rate_and_not_scored_then(run: Run) -> None:
    task = TransformerTask(run(caption_dropout=0.25, bpe_dropout=0.0))
    null = null_caption(task.sequence).tolist()
    found = [drawn(task, index, epoch) for index in range(30) for epoch in range(40)]
    for sequence in found:
        assert (sequence.text_ids.tolist() == null) is not sequence.scored
    rate = sum(not sequence.scored for sequence in found) / len(found)
    assert rate == pytest.approx(0.25, abs=0.05)  # four standard deviations of 1,200 draws


def test_without_dropouts_a_caption_is_its_plain_tokens(run: Run) -> None:
    task = TransformerTask(run(caption_dropout=0.0, bpe_dropout=0.0))
    assert captions(task, epoch=0) == captions(task, epoch=1)
    plain = task.tokenizer.encode(CAPTIONS[task.train_set.indices[0]])
    assert len(plain) < 24
    assert captions(task, epoch=0)[0][: len(plain)] == plain
    wild = TransformerTask(run(caption_dropout=0.0, bpe_dropout=0.5))
    assert captions(wild, epoch=0) != captions(wild, epoch=1)


def test_noise_changes_what_is_read_and_not_what_is_predicted(run: Run) -> None:
    task, plain = TransformerTask(run(image_noise=0.5)), TransformerTask(run())
    found = [drawn(task, index, epoch) for index in range(30) for epoch in range(40)]
    clean = [drawn(plain, index, epoch) for index in range(30) for epoch in range(40)]
    assert all(
        torch.equal(a.image_tokens, b.image_tokens) for a, b in zip(found, clean, strict=True)
    )
    assert all(torch.equal(one.read_tokens, one.image_tokens) for one in clean)
    wrong = torch.stack([one.read_tokens != one.image_tokens for one in found]).float().mean()
    # Half are drawn anew, one in 16 of which stays as it was; 4,800 tokens.
    assert float(wrong) == pytest.approx(0.5 * 15 / 16, abs=0.03)
    batch = task.collate(found[:4])
    unread = {**batch.tensors, "read_tokens": batch.tensors["image_tokens"]}
    swapped = type(batch)(tensors=unread, keys=batch.keys)
    assert task.loss(batch, 0, generator(0)).value != task.loss(swapped, 0, generator(0)).value


def test_held_out_sequences_are_whole_plain_and_apart(run: Run) -> None:
    task = TransformerTask(run(caption_dropout=1.0, bpe_dropout=1.0, image_noise=1.0))
    held = task.heldout.tensors
    assert held["scored"].all()
    keys = [int(key.rpartition("[")[2].rstrip("]")) for key in task.heldout.keys]
    assert len(keys) == 10
    assert not set(keys) & set(task.train_set.indices)
    folder = TokenFolder(task.run.tokens)
    for row, index in enumerate(keys):
        ids = task.tokenizer.encode(CAPTIONS[index])[:24]
        assert held["text_ids"][row, : len(ids)].tolist() == ids
        assert held["image_tokens"][row].tolist() == folder.grid(index, 0).flatten().tolist()
        assert torch.equal(held["read_tokens"], held["image_tokens"])


def test_the_loss_weighs_text_and_image_as_configured(run: Run) -> None:
    task = TransformerTask(run(text_weight=0.3, caption_dropout=0.0))
    batch = task.collate([drawn(task, index, 0) for index in range(4)])
    loss = task.loss(batch, 0, generator(0))
    text, image = loss.metrics["text_loss"], loss.metrics["image_loss"]
    assert loss.value.item() == pytest.approx(0.3 * text.item() + 0.7 * image.item(), rel=1e-5)
    dropped = {**batch.tensors, "scored": torch.zeros(4, dtype=torch.bool)}
    silent = task.loss(type(batch)(tensors=dropped, keys=batch.keys), 0, generator(0))
    assert silent.metrics["text_loss"].item() == 0


def test_evaluation_takes_every_held_out_picture_whatever_the_batch(run: Run) -> None:
    values = []
    for batch in (1, 3, 10):
        task = TransformerTask(run(loop={"batch": batch}))
        values.append(task.evaluate(task.model))
    held = task.heldout.tensors
    logits = task.model(held["text_ids"], held["image_tokens"])
    expected = mean_nll(logits.image, held["image_tokens"])
    assert [v["heldout_image_loss"] for v in values] == pytest.approx([expected] * 3, rel=1e-5)
    # Captions differ in length here, so a mean of means would differ from the mean.
    lengths = (held["text_ids"] < task.sequence.text_vocab).sum(dim=1)
    assert len(lengths.unique()) > 1
    texts = [v["heldout_text_loss"] for v in values]
    assert texts == pytest.approx(texts[-1:] * 3, rel=1e-5)


def mean_nll(logits: Tensor, tokens: Tensor) -> float:
    """Cross-entropy, written out."""
    chosen = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])
    return -chosen.mean().item()


def test_initial_weights_follow_the_seed(run: Run) -> None:
    before = torch.random.get_rng_state()
    starts = [TransformerTask(run(loop={"seed": seed})).model.start for seed in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_model_recomputes_if_the_run_says_so(run: Run) -> None:
    assert not TransformerTask(run()).model.recompute
    assert TransformerTask(replace(run(), recompute=True)).model.recompute
