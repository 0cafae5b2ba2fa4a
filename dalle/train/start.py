"""Where training of a transformer begins: at the weights of a published model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import TOKENIZER_FILE, load_model
from dalle.errors import ModelFormatError
from dalle.folders import model_folder
from dalle.transformer import JointTransformer
from vae.model import DiscreteVAE

_WORD_ROWS = ("text_embedding.weight", "text_unembedding")
"""Weights with a row for each entry of the caption vocabulary; other rows may follow these."""
_PLACES = {"row_position.weight": "grid_h", "column_position.weight": "grid_w"}
"""Weights with a row for each row or column of the token grid."""


def start_from(
    init: Path,
    model: JointTransformer,
    *,
    vae: DiscreteVAE,
    tokenizer: CaptionTokenizer,
    tokens: Path,
) -> bool:
    """Give `model` the weights of a published model.

    The published model may have another caption vocabulary. An entry that it lacks begins at the
    mean of the pieces that it spells the entry with. Its token grid may be another, too: positions
    are interpolated, as for ViTs of another resolution (Dosovitskiy et al., arXiv:2010.11929,
    section 3.2).

    Args:
        init: The published model: a folder, or the name of a bundled one.
        model: Takes the weights over; of the same shape, vocabulary and grid aside.
        vae: What the image tokens were made with.
        tokenizer: The vocabulary of `model`.
        tokens: Where the tokens lie, for the error.

    Returns:
        Whether the published model has the same caption vocabulary.

    Raises:
        ModelFormatError: The published model cannot be loaded, its shape is another, or tokens
            mean something else to it.
    """
    folder = model_folder(init)
    parts = load_model(folder)
    part = parts.vae.part_unlike(vae)
    if part is not None:
        raise ModelFormatError(
            f"{tokens} was made with another {part} of the dVAE than {folder} has; "
            f"tokenize again with --vae {folder} --tokenizer {folder / TOKENIZER_FILE}"
        )
    differing = said_to_differ(_by_flag(parts.transformer), _by_flag(model))
    if differing:
        raise ModelFormatError(
            f"init {folder} has {differing}; set these as it has them, or train without init"
        )
    weights = parts.transformer.state_dict()
    same_words = tokenizer.same_as(parts.tokenizer)
    if not same_words:
        spelt = parts.tokenizer.spell(tokenizer)
        for name in _WORD_ROWS:
            if name in weights:
                weights[name] = _respelt(weights[name], spelt, parts.tokenizer.vocab_size)
    for name, side in _PLACES.items():
        weights[name] = _stretched(weights[name], getattr(model.sequence, side))
    model.load_state_dict(weights)
    return same_words


def said_to_differ(found: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """The settings of a published model that are not those of this run; empty if none is."""
    return ", ".join(
        f"{name} {found[name]}, not {wanted[name]}"
        for name in wanted
        if wanted[name] != found[name]
    )


def _by_flag(model: JointTransformer) -> dict[str, object]:
    """What must be alike in both models, by the flags that set it."""
    shape = {f"model.{name}": value for name, value in dataclasses.asdict(model.config).items()}
    sequence = model.sequence
    return {"text_len": sequence.text_len, "image_vocab": sequence.image_vocab, **shape}


def _stretched(rows: Tensor, count: int) -> Tensor:
    """`count` rows between the first and the last of `rows`, both of which stay."""
    # With ends that stay, the loss began lower than with other ways to make 24 columns of 16.
    stretched = interpolate(rows.T[None], size=count, mode="linear", align_corners=True)  # 1 d n
    return stretched[0].T


def _respelt(rows: Tensor, spelt: Sequence[Sequence[int]], vocabulary: int) -> Tensor:
    """Rows of another vocabulary, each the mean of its pieces' rows; those after it are kept."""
    means = [rows[list(pieces)].mean(dim=0) for pieces in spelt]
    return torch.cat([torch.stack(means), rows[vocabulary:]])
