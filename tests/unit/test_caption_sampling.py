"""Captions that a model writes: fair draws of the text half, and those of training if learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dalle import TextToImage
from dalle.caption_sampling import CaptionSampler
from dalle.captions import CaptionTokenizer
from dalle.cli import main
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.sequence import joint_loss, pad_caption
from dalle.transformer import JointTransformer

CAPTIONS = ("a fox", "a fox on a box", "two owls", "ein füchslein")


@torch.no_grad()
def test_scores_are_those_of_training(tiny_pipeline: TextToImage) -> None:
    """Token after token, what the whole sequence says at each place of the caption."""
    transformer = tiny_pipeline._drawer.transformer
    sequence = transformer.sequence
    ids = [5, 200, 17, 260, 3]
    text_ids = pad_caption(ids, sequence)[None]
    image_tokens = torch.zeros(1, sequence.image_len, dtype=torch.int64)
    whole = transformer(text_ids, image_tokens).text[0]  # t v
    for place in range(len(ids) + 1):
        alone = transformer.caption_logits(torch.tensor([ids[:place]], dtype=torch.int64))
        torch.testing.assert_close(alone[0], whole[place], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def learnt() -> CaptionSampler:
    """A model that knows four captions by heart."""
    tokenizer = CaptionTokenizer.train(CAPTIONS * 3, 262)
    sequence = SequenceConfig(
        text_len=16, text_vocab=tokenizer.vocab_size, grid_h=2, grid_w=2, image_vocab=4
    )
    torch.manual_seed(0)
    transformer = JointTransformer(sequence, TransformerConfig(width=64, heads=4, layers=2))
    text_ids = torch.stack([pad_caption(tokenizer.encode(one), sequence) for one in CAPTIONS])
    images = torch.zeros(len(CAPTIONS), 4, dtype=torch.int64)
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=3e-3)
    for _ in range(120):
        logits = transformer(text_ids, images)
        loss = joint_loss(
            logits.text, logits.image,
            text_ids=text_ids,
            image_tokens=images,
            text_weight=1.0,
            scored_text=torch.ones(len(CAPTIONS), dtype=torch.bool),
        ).loss  # fmt: skip
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return CaptionSampler(transformer.eval(), tokenizer, torch.device("cpu"))


def test_captions_of_training_come_back(learnt: CaptionSampler) -> None:
    assert set(learnt.suggest(count=4)) == set(CAPTIONS)
    assert set(learnt.suggest("a", count=2)) == {"a fox", "a fox on a box"}
    assert learnt.suggest("A  FOX on", count=8, top_p=0.9) == ["a fox on a box"]
    assert learnt.suggest("two", temperature=0, count=3) == ["two owls"]


def test_a_caption_depends_on_seed_and_number_alone(learnt: CaptionSampler) -> None:
    four = [learnt.suggest(count=4, seed=seed) for seed in range(6)]
    assert len({tuple(found) for found in four}) > 1
    for seed, found in enumerate(four):
        assert learnt.suggest(count=2, seed=seed) == found[:2]


def test_what_is_no_text_is_left_out(tiny_pipeline: TextToImage) -> None:
    """A model of random weights writes bytes that are no UTF-8."""
    assert tiny_pipeline.captions.suggest(count=5, top_p=1) == []


def test_frequencies_are_the_models(learnt: CaptionSampler) -> None:
    """All four were shown equally often, so each comes about as often as the others."""
    drawn = [learnt.suggest(count=1, seed=seed, top_p=1) for seed in range(200)]
    counts = [sum(found == [one] for found in drawn) for one in CAPTIONS]
    assert sum(counts) > 180
    assert all(25 < count < 80 for count in counts), counts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--count 0", "count must be from 1 to 4096, got 0"),
        ("--temperature -1", "temperature must be between 0"),
        ("--top_p 0", "top_p must be"),
        (f"{'fox ' * 30}", "begin has "),
    ],
)
def test_what_cannot_be_drawn_is_an_error(
    tiny_model: Path, words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = [words.strip()] if words.startswith("fox") else words.split()
    assert main(["suggest", "--model", str(tiny_model), *begin]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


def test_what_is_no_text_to_begin_with_is_refused(learnt: CaptionSampler) -> None:
    with pytest.raises(TypeError, match="begin must be a string, got NoneType"):
        learnt.suggest(None)  # type: ignore[arg-type]


def test_the_command_prints_a_caption_a_line(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suggest", "a fox", "--count", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("a fox ") for line in lines)
    assert main(["suggest", "--model", str(tiny_model), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["captions"] == []
    assert "0 of 8 captions" in err
