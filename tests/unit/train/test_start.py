"""Training that goes on from a published model, with its vocabulary or another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import ModelParts, save_model
from dalle.config import SamplingConfig
from dalle.errors import ModelFormatError
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.train.start import start_from
from dalle.transformer import JointTransformer
from vae import DiscreteVAE, VaeConfig

TOKENIZER = CaptionTokenizer.train(["a fox on a blue background", "two foxes"] * 3, 266)
OTHER = CaptionTokenizer.train(["a yellow box", "two boxes and a fox"] * 3, 280)
SHAPE = TransformerConfig(width=16, layers=1, heads=2)
VAE = VaeConfig(channels=8, groups=2, blocks_per_group=1, codebook_size=16, codebook_dim=4)


def make(tokenizer: CaptionTokenizer, seed: int = 0) -> JointTransformer:
    torch.manual_seed(seed)
    sequence = SequenceConfig(
        text_len=8, text_vocab=tokenizer.vocab_size, grid_h=2, grid_w=2, image_vocab=16
    )
    return JointTransformer(sequence, SHAPE)


@pytest.fixture
def vae() -> DiscreteVAE:
    torch.manual_seed(1)
    return DiscreteVAE(VAE)


@pytest.fixture
def published(tmp_path: Path, vae: DiscreteVAE) -> tuple[Path, JointTransformer]:
    model = make(TOKENIZER)
    parts = ModelParts(
        vae=vae, transformer=model, tokenizer=TOKENIZER, sampling=SamplingConfig(), fingerprint=""
    )
    save_model(tmp_path / "published", parts, card="Random weights.\n")
    return tmp_path / "published", model


def started(folder: Path, tokenizer: CaptionTokenizer, vae: DiscreteVAE) -> JointTransformer:
    """Another model that has begun at the published one."""
    model = make(tokenizer, seed=5)
    start_from(folder, model, vae=vae, tokenizer=tokenizer, tokens=Path("tokens"))
    return model


def test_with_the_same_vocabulary_every_weight_is_taken_over(
    published: tuple[Path, JointTransformer], vae: DiscreteVAE
) -> None:
    folder, theirs = published
    model = started(folder, TOKENIZER, vae)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_an_entry_of_another_vocabulary_begins_at_the_mean_of_its_pieces(
    published: tuple[Path, JointTransformer], vae: DiscreteVAE
) -> None:
    folder, theirs = published
    model = started(folder, OTHER, vae)
    for text in ("fox", "box", "yellow", "a"):
        for entry in OTHER.encode(text):
            # A caption of that entry alone, for it is a word or the end of one.
            pieces = _spelt(OTHER.decode([entry]), begins=entry == OTHER.encode(text)[0])
            for old, new in (
                (theirs.text_embedding.weight, model.text_embedding.weight),
                (theirs.text_unembedding, model.text_unembedding),
            ):
                torch.testing.assert_close(new[entry], old[pieces].mean(dim=0))
    # Pads, and the class that ends a caption, come after the entries and are kept.
    pads, ended = theirs.text_embedding.weight[TOKENIZER.vocab_size :], theirs.text_unembedding[-1]
    torch.testing.assert_close(model.text_embedding.weight[OTHER.vocab_size :], pads)
    torch.testing.assert_close(model.text_unembedding[-1], ended)
    for name, tensor in theirs.state_dict().items():
        if not name.startswith(("text_embedding", "text_unembedding")):
            assert torch.equal(model.state_dict()[name], tensor), name


def _spelt(text: str, *, begins: bool) -> list[int]:
    """Tokens of a word, or of a part of one, by the library's own encoder."""
    if begins:
        return TOKENIZER.encode(text)
    # "z" begins no merge of this vocabulary, so what follows it is spelt as if alone.
    return TOKENIZER.encode("z" + text)[2:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text_len": 9}, "has text_len 8, not 9; set these as it has them"),
        ({"image_vocab": 17}, "has image_vocab 16, not 17"),
    ],
)
def test_another_shape_is_refused(
    published: tuple[Path, JointTransformer],
    vae: DiscreteVAE,
    change: dict[str, int],
    said: str,
) -> None:
    model = JointTransformer(replace(make(OTHER).sequence, **change), SHAPE)
    with pytest.raises(ModelFormatError, match=said):
        start_from(published[0], model, vae=vae, tokenizer=OTHER, tokens=Path("tokens"))


def test_rows_and_columns_of_another_grid_lie_between_those_that_are_known(
    published: tuple[Path, JointTransformer], vae: DiscreteVAE
) -> None:
    folder, theirs = published
    model = JointTransformer(replace(make(TOKENIZER, seed=5).sequence, grid_h=3, grid_w=5), SHAPE)
    start_from(folder, model, vae=vae, tokenizer=TOKENIZER, tokens=Path("tokens"))
    for name, parts in (("row_position", 2), ("column_position", 4)):
        first, last = getattr(theirs, name).weight
        for place, row in enumerate(getattr(model, name).weight):
            torch.testing.assert_close(row, first + place / parts * (last - first))
    for name, tensor in theirs.state_dict().items():
        if "_position" not in name or name.startswith("text"):
            assert torch.equal(model.state_dict()[name], tensor), name


def test_tokens_of_a_dvae_with_another_decoder_mean_the_same(
    published: tuple[Path, JointTransformer], vae: DiscreteVAE
) -> None:
    torch.manual_seed(2)
    wider = DiscreteVAE(replace(VAE, decoder_channels=12))
    wider.encoder.load_state_dict(vae.encoder.state_dict())
    wider.quantizer.load_state_dict(vae.quantizer.state_dict())
    started(published[0], TOKENIZER, wider)


def test_another_dvae_is_refused(published: tuple[Path, JointTransformer]) -> None:
    torch.manual_seed(2)
    with pytest.raises(ModelFormatError, match="another encoder of the dVAE"):
        start_from(
            published[0],
            make(TOKENIZER),
            vae=DiscreteVAE(VAE),
            tokenizer=TOKENIZER,
            tokens=Path("tokens"),
        )
