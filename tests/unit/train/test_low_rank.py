"""Low-rank additions: what is trained, what stays, and what is published."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import ModelParts, load_model, save_model
from dalle.config import LoopConfig, OptimConfig, SamplingConfig, TrainTransformer
from dalle.data.tokens import TokenWriter
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.train.loop import Trainer
from dalle.train.low_rank import SCALE, LowRankLinear, merged, train_low_rank
from dalle.train.transformer_task import TransformerTask
from dalle.transformer import JointTransformer
from vae import DiscreteVAE, VaeConfig

CAPTIONS = [f"{number} foxes on a blue background" for number in range(30)]
WIDTH, LAYERS, RANK = 16, 2, 3
ADDED = LAYERS * RANK * WIDTH * ((1 + 3) + (1 + 1) + (1 + 4) + (4 + 1))
"""Numbers of all additions: r x (i + o) for qkv, out, mlp_in and mlp_out of each layer."""


def random_model(tokenizer: CaptionTokenizer) -> JointTransformer:
    torch.manual_seed(0)
    sequence = SequenceConfig(
        text_len=24, text_vocab=tokenizer.vocab_size, grid_h=2, grid_w=2, image_vocab=16
    )
    return JointTransformer(sequence, TransformerConfig(width=WIDTH, layers=LAYERS, heads=2))


@pytest.fixture
def settings(tmp_path: Path) -> TrainTransformer:
    """A run that goes on from a published model with random weights."""
    torch.manual_seed(1)
    vae = DiscreteVAE(
        VaeConfig(channels=8, groups=2, blocks_per_group=1, codebook_size=16, codebook_dim=4)
    )
    tokenizer = CaptionTokenizer.train(CAPTIONS, 280)
    grids = np.random.default_rng(0).integers(16, size=(len(CAPTIONS), 1, 2, 2))
    with TokenWriter(tmp_path / "tokens", vae, crops=1, source="s") as writer:
        for caption, versions in zip(CAPTIONS, grids, strict=True):
            writer.add(caption, versions)
        writer.finish(tokenizer, skipped=0)
    parts = ModelParts(
        vae=vae, transformer=random_model(tokenizer), tokenizer=tokenizer,
        sampling=SamplingConfig(), fingerprint="",
    )  # fmt: skip
    save_model(tmp_path / "published", parts, card="Random weights.\n")
    return TrainTransformer(
        out=tmp_path / "run",
        tokens=tmp_path / "tokens",
        init=tmp_path / "published",
        lora_rank=RANK,
        text_len=24,
        model=TransformerConfig(width=WIDTH, layers=LAYERS, heads=2),
        optim=OptimConfig(lr=1e-2, warmup_steps=1),
        loop=LoopConfig(steps=6, batch=4, device="cpu", precision="fp32", log_every=1),
    )


def trainer_of(settings: TrainTransformer) -> Trainer:
    settings.out.mkdir(exist_ok=True)
    return Trainer(
        TransformerTask(settings), loop=settings.loop, optim=settings.optim, out=settings.out,
        max_bad_fraction=0.05,
    )  # fmt: skip


def some(model: JointTransformer) -> tuple[Tensor, Tensor]:
    sequence = model.sequence
    words = torch.arange(2 * sequence.text_len).view(2, -1) % sequence.text_vocab
    return words, torch.arange(2 * sequence.image_len).view(2, -1) % sequence.image_vocab


def test_a_model_begins_as_it_was_and_additions_alone_are_trained(
    settings: TrainTransformer,
) -> None:
    task = TransformerTask(settings)
    assert settings.init is not None
    published = load_model(settings.init).transformer
    torch.testing.assert_close(
        task.model(*some(published)).image, published(*some(published)).image, rtol=0, atol=0
    )
    trained = [one for one in task.model.parameters() if one.requires_grad]
    assert sum(one.numel() for one in trained) == ADDED


def test_a_merged_matrix_is_the_sum_by_hand(settings: TrainTransformer) -> None:
    model = TransformerTask(settings).model
    layer = model.block_list()[1].mlp_in
    assert isinstance(layer, LowRankLinear)
    torch.nn.init.normal_(layer.up)
    expected = layer.weight + SCALE * torch.einsum("or,ri->oi", layer.up, layer.down)
    plain = merged(model)
    assert type(plain.block_list()[1].mlp_in) is torch.nn.Linear
    torch.testing.assert_close(plain.block_list()[1].mlp_in.weight, expected)
    assert {*plain.state_dict()} == {*random_model_names(settings)}
    torch.testing.assert_close(plain(*some(plain)).image, model(*some(model)).image)
    assert layer is model.block_list()[1].mlp_in, "the model itself stays"
    assert merged(plain) is plain


def random_model_names(settings: TrainTransformer) -> list[str]:
    assert settings.init is not None
    return list(load_model(settings.init).transformer.state_dict())


def test_a_run_changes_matrices_of_blocks_by_their_rank_and_nothing_else(
    settings: TrainTransformer,
) -> None:
    trainer = trainer_of(settings)
    originals = [one for one in trainer.model.parameters() if not one.requires_grad]
    held = {id(one) for one in trainer.average.parameters()}
    assert {id(one) for one in originals} <= held, "what stays is held once"
    assert trainer.run(resume=False) == 0
    assert settings.init is not None
    before = load_model(settings.init).transformer.state_dict()
    after = load_model(settings.out / "model").transformer.state_dict()
    for name, weight in after.items():
        change = weight - before[name]
        in_block = name.startswith("blocks.") and weight.ndim == 2
        assert bool(change.any()) == in_block, name
        if in_block:
            # Of the fourth singular value nothing is left but rounding.
            values = torch.linalg.svdvals(change.double())
            assert values[RANK] < 1e-4 * values[0]
    card = (settings.out / "model" / "README.md").read_text()
    assert f"additions of rank {RANK} to {settings.init}" in card


def test_a_stopped_run_goes_on_as_if_it_had_not_been(settings: TrainTransformer) -> None:
    whole = replace(settings, out=settings.out.with_name("whole"))
    assert trainer_of(whole).run(resume=False) == 0
    stopped = trainer_of(settings)
    stopped.task.window_metrics = lambda: _stop(stopped)  # type: ignore[method-assign]
    stopped.run(resume=False)
    assert not (settings.out / "model").exists()
    assert trainer_of(settings).run(resume=True) == 0
    ours = load_model(settings.out / "model").transformer.state_dict()
    theirs = load_model(whole.out / "model").transformer.state_dict()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name


def _stop(trainer: Trainer) -> dict[str, float]:
    trainer.stop.signal = signal.SIGTERM
    return {}


def test_new_words_are_trained_as_well(settings: TrainTransformer) -> None:
    model = random_model(CaptionTokenizer.train(CAPTIONS, 280))
    train_low_rank(model, RANK, words=True)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert {"text_embedding.weight", "text_unembedding"} <= trained
    assert "image_embedding.weight" not in trained


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": 0}, "lora_rank must be greater than 0, got 0"),
        ({"init": None}, "no weights to add to; name a model with init"),
        ({"optim": OptimConfig(optimizer="muon")}, "set optim.optimizer to adamw"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    changes: dict[str, object], message: str, settings: TrainTransformer
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(settings, **changes)  # type: ignore[arg-type]


def test_a_rank_beyond_the_width_is_refused(settings: TrainTransformer) -> None:
    with pytest.raises(ValueError, match=r"at most the model's width, 16, got 17"):
        TransformerTask(replace(settings, lora_rank=17))
