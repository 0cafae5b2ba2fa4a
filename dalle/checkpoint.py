"""Published model folders: JSON and safetensors, parsed and verified, never executed.

A dVAE folder holds `config.json`, `vae.safetensors` and `SHA256SUMS`; a full model adds
`transformer.safetensors`, `tokenizer.json` and a card. Training state is another matter, see
`dalle.train.state`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dalle.captions import CaptionTokenizer
from dalle.checksums import verify_sums
from dalle.clip import build_clip
from dalle.config import SamplingConfig
from dalle.errors import ModelFormatError
from dalle.model_config import ClipConfig, SequenceConfig, TransformerConfig
from dalle.schema import Config, build_config, read_object
from dalle.transformer import JointTransformer
from dalle.weights import filled, replacing, save_tensors, stored
from vae.config import VaeConfig
from vae.model import DiscreteVAE

FORMAT_VERSION = 1

CONFIG_FILE = "config.json"
VAE_FILE = "vae.safetensors"
TRANSFORMER_FILE = "transformer.safetensors"
CLIP_FILE = "clip.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"

MAX_NUMBERS = 20_000_000_000
"""A config whose model needs more numbers than this is taken for a lie before it is built."""
MAX_BLOCKS = 512
"""So is one with more blocks in a row, which take time to build even where they take no memory."""


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """Everything a model folder holds, ready to use (eval mode, on the CPU, fp32)."""

    vae: DiscreteVAE
    transformer: JointTransformer
    tokenizer: CaptionTokenizer
    sampling: SamplingConfig
    """The sampling settings the model's makers recommend."""
    fingerprint: str
    """Of the files that pictures depend on; see `dalle.checksums.verify_sums`."""


@dataclass(frozen=True, kw_only=True)
class ClipParts:
    """A small CLIP of ours, ready to use (eval mode, on the CPU, fp32)."""

    model: nn.Module
    config: ClipConfig
    tokenizer: CaptionTokenizer


# ------------------------------------------------------------------------------------- writing


def save_vae(folder: Path, vae: DiscreteVAE, *, card: str | None = None) -> None:
    """Write a dVAE folder; what stood at `folder` is replaced once the new one is complete.

    Args:
        folder: Where to.
        vae: What to write.
        card: What people should know of it; None writes no card.

    Raises:
        OSError: It cannot be written; what stood there still stands.
    """
    with replacing(folder) as partial:
        save_tensors(stored(vae, torch.float32), partial / VAE_FILE)
        write_config(partial, {"vae": dataclasses.asdict(vae.config)})
        if card is not None:
            (partial / CARD_FILE).write_text(card, encoding="utf-8")


def save_model(
    folder: Path, parts: ModelParts, *, card: str, dtype: Literal["fp32", "fp16"] = "fp32"
) -> None:
    """Write a full model folder; what stood at `folder` is replaced once the new one is complete.

    Args:
        folder: Where to.
        parts: What to write; `fingerprint` is ignored, since it follows from the files.
        card: Text of the model card.
        dtype: Type the weights are stored in; they are always loaded as fp32. Tensors with values
            beyond 16 bits' range stay fp32.

    Raises:
        OSError: It cannot be written; what stood there still stands.
    """
    with replacing(folder) as partial:
        weights_type = torch.float16 if dtype == "fp16" else torch.float32
        save_tensors(stored(parts.vae, weights_type), partial / VAE_FILE)
        save_tensors(stored(parts.transformer, weights_type), partial / TRANSFORMER_FILE)
        parts.tokenizer.save(partial / TOKENIZER_FILE)
        (partial / CARD_FILE).write_text(card, encoding="utf-8")
        write_config(
            partial,
            {
                "vae": dataclasses.asdict(parts.vae.config),
                "sequence": dataclasses.asdict(parts.transformer.sequence),
                "transformer": dataclasses.asdict(parts.transformer.config),
                "sampling": dataclasses.asdict(parts.sampling),
            },
        )


def write_config(folder: Path, sections: Mapping[str, Any]) -> None:
    """Write `config.json`: the format's version, then `sections`."""
    text = json.dumps({"format_version": FORMAT_VERSION, **sections}, indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def save_clip(folder: Path, parts: ClipParts, *, dtype: Literal["fp32", "fp16"] = "fp32") -> None:
    """Write a CLIP folder; what stood at `folder` is replaced once the new one is complete.

    Raises:
        OSError: It cannot be written; what stood there still stands.
    """
    with replacing(folder) as partial:
        weights_type = torch.float16 if dtype == "fp16" else torch.float32
        save_tensors(stored(parts.model, weights_type), partial / CLIP_FILE)
        parts.tokenizer.save(partial / TOKENIZER_FILE)
        write_config(partial, {"clip": dataclasses.asdict(parts.config)})


# ------------------------------------------------------------------------------------- reading


def load_vae(folder: Path) -> DiscreteVAE:
    """The dVAE of a dVAE folder or of a full model folder, in eval mode on the CPU.

    Raises:
        ModelFormatError: The folder is missing, incomplete, damaged or does not fit its config.
    """
    tree, _ = _open_folder(folder, (VAE_FILE,), purpose="a dVAE")
    return _load_vae(folder, tree)


def load_model(folder: Path) -> ModelParts:
    """Everything in a full model folder, verified.

    Raises:
        ModelFormatError: The folder is missing, incomplete, damaged or does not fit its config.
    """
    files = (VAE_FILE, TRANSFORMER_FILE, TOKENIZER_FILE)
    tree, fingerprint = _open_folder(folder, files, purpose="a text-to-image model")
    sequence = _section(tree, "sequence", SequenceConfig, folder)
    config = _section(tree, "transformer", TransformerConfig, folder)
    sampling = _section(tree, "sampling", SamplingConfig, folder)
    vae = _load_vae(folder, tree)
    if sequence.image_vocab != vae.config.codebook_size:
        raise ModelFormatError(
            f"{folder / CONFIG_FILE}: sequence.image_vocab ({sequence.image_vocab}) must equal "
            f"vae.codebook_size ({vae.config.codebook_size}); get the folder again from where it "
            "was published"
        )
    tokenizer = CaptionTokenizer.load(folder / TOKENIZER_FILE)
    if tokenizer.vocab_size != sequence.text_vocab:
        raise ModelFormatError(
            f"{folder / TOKENIZER_FILE} has {tokenizer.vocab_size} entries, but the model was "
            f"trained with {sequence.text_vocab}; use the tokenizer it was published with"
        )
    numbers = _transformer_numbers(sequence, config)
    _check_size(folder / CONFIG_FILE, blocks=config.layers, numbers=numbers)
    transformer = filled(lambda: JointTransformer(sequence, config), folder / TRANSFORMER_FILE)
    return ModelParts(
        vae=vae,
        transformer=transformer,
        tokenizer=tokenizer,
        sampling=sampling,
        fingerprint=fingerprint,
    )


def has_clip(folder: Path) -> bool:
    """Whether a model folder brings a CLIP of its own."""
    return (folder / CLIP_FILE).is_file()


def load_clip(folder: Path) -> ClipParts:
    """The CLIP in a CLIP folder or a full model folder, verified.

    Raises:
        ModelFormatError: The folder is missing, incomplete, damaged or does not fit its config.
    """
    tree, _ = _open_folder(folder, (CLIP_FILE, TOKENIZER_FILE), purpose="a CLIP")
    config = _section(tree, "clip", ClipConfig, folder)
    tokenizer = CaptionTokenizer.load(folder / TOKENIZER_FILE)
    _check_size(
        folder / CONFIG_FILE,
        blocks=max(config.image_layers, config.text_layers),
        numbers=_clip_numbers(config, tokenizer.vocab_size),
    )
    model = filled(lambda: build_clip(config, tokenizer.vocab_size), folder / CLIP_FILE)
    return ClipParts(model=model, config=config, tokenizer=tokenizer)


def _load_vae(folder: Path, tree: Mapping[str, Any]) -> DiscreteVAE:
    config = _section(tree, "vae", VaeConfig, folder)
    check_vae_size(config, folder / CONFIG_FILE)
    return filled(lambda: DiscreteVAE(config), folder / VAE_FILE)


def _open_folder(
    folder: Path, files: Sequence[str], *, purpose: str
) -> tuple[Mapping[str, Any], str]:
    """The config of a folder that holds `files`, all of them verified, and its fingerprint."""
    if folder.is_file():
        raise ModelFormatError(
            f"{folder} is a file, not a model folder; .pt, .bin and .ckpt files can run code when "
            f"opened, so they are not read. Give a folder with {CONFIG_FILE} and safetensors"
        )
    if not folder.is_dir():
        raise ModelFormatError(f"model folder {folder} does not exist; check its name")
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelFormatError(
            f"{folder} is not a model folder: it has no {CONFIG_FILE}; give the folder that "
            "`dalle train` wrote, such as RUN/model"
        )
    try:
        tree = read_object(path)
    except (OSError, ValueError) as err:
        raise ModelFormatError(f"model config {err}; is {folder} one of our models?") from err
    version = tree.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"{path} has format_version {version!r}, but this program reads {FORMAT_VERSION}; "
            "it is not one of our models, or a newer version of this program made it"
        )
    for name in files:
        if not (folder / name).is_file():
            raise ModelFormatError(
                f"{folder} lacks {name}, which {purpose} needs; only safetensors are read, never "
                ".pt or .bin files"
            )
    return tree, verify_sums(folder, (CONFIG_FILE, *files))


def _section(tree: Mapping[str, Any], name: str, schema: type[Config], folder: Path) -> Config:
    try:
        return build_config(schema, tree.get(name), where=f"{folder / CONFIG_FILE}: {name}")
    except ValueError as err:
        raise ModelFormatError(f"{err}; get the folder again from where it was published") from err


def check_vae_size(config: VaeConfig, file: Path) -> None:
    """Refuse a dVAE that is larger than any honest one, before anything is built.

    Args:
        config: Its shape.
        file: Where that was read, for the error.

    Raises:
        ModelFormatError: It is.
    """
    blocks = config.groups * max(config.blocks_per_group, config.decoder_shape[1])
    _check_size(file, blocks=blocks, numbers=_vae_numbers(config))


def _check_size(file: Path, *, blocks: int, numbers: int) -> None:
    """Refuse what no honest config asks for, before anything is built or allocated."""
    for count, limit, what in (
        (blocks, MAX_BLOCKS, "blocks in a row"),
        (numbers, MAX_NUMBERS, "weights and mask entries"),
    ):
        if count > limit:
            raise ModelFormatError(
                f"{file} describes a model of more {what} than the {limit:,} that "
                "this program allows; the file is not to be trusted"
            )


def _vae_numbers(config: VaeConfig) -> int:
    """About how many weights a dVAE has."""
    is_vqgan = config.family == "vqgan"
    # A block from and to width w has 58 (w / 4)^2 kernel entries; VQGAN's 18 w^2, with up to three
    # more of them in a group, and its attention 4 w^2.
    sixteenths, more = (16 * 22, 3) if is_vqgan else (58, 0)
    weights = 0
    for channels, blocks in ((config.channels, config.blocks_per_group), config.decoder_shape):
        widths = [channels * multiple for multiple in config.multiple_of]
        weights += (blocks + more) * sum(sixteenths * width**2 // 16 for width in widths)
    ends = 3 * (6 + config.patch_px) ** 2 * (config.channels + config.decoder_shape[0])
    features = config.codebook_dim if is_vqgan else config.channels << config.groups - 1
    return weights + ends + config.codebook_size * (features + config.codebook_dim)


def _clip_numbers(config: ClipConfig, text_vocab: int) -> int:
    """About how many weights a small CLIP has."""
    height, width = config.size_px
    patches = height * width // config.patch_px**2
    image = 12 * config.image_layers * config.image_width**2
    image += (patches + 3 * config.patch_px**2 + config.embed_dim) * config.image_width
    text = 12 * config.text_layers * config.text_width**2
    text += (text_vocab + config.text_len + config.embed_dim) * config.text_width
    return image + text + config.text_len**2


def _transformer_numbers(sequence: SequenceConfig, config: TransformerConfig) -> int:
    """About how many weights and mask entries a joint transformer has."""
    blocks = config.layers * (4 + 2 * config.mlp_ratio) * config.width**2
    vocabularies = 2 * (sequence.text_vocab + sequence.image_vocab)
    positions = 2 * sequence.text_len + sequence.grid_h + sequence.grid_w
    numbers = blocks + (vocabularies + positions) * config.width
    if config.attention == "paper":
        # While a mask is built, each of its entries is an 8-byte number for a moment.
        numbers += 8 * (sequence.total_len**2 + config.conv_kernel**2)
    return numbers
