"""Published model folders: JSON and safetensors, parsed and verified, never executed.

A dVAE folder holds `config.json`, `vae.safetensors` and `SHA256SUMS`; a full model adds
`transformer.safetensors`, `tokenizer.json` and a card. Training state is another matter, see
`dalle.train.state`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dalle.captions import CaptionTokenizer
from dalle.checksums import verify_sums, write_sums
from dalle.config import SamplingConfig
from dalle.errors import ModelFormatError
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.schema import build_config, read_object
from dalle.transformer import JointTransformer
from vae.config import VaeConfig
from vae.model import DiscreteVAE

FORMAT_VERSION = 1

CONFIG_FILE = "config.json"
VAE_FILE = "vae.safetensors"
TRANSFORMER_FILE = "transformer.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"

MAX_NUMBERS = 20_000_000_000
"""A config whose model needs more numbers than this is taken for a lie before it is built."""
MAX_BLOCKS = 512
"""So is one with more blocks in a row, which take time to build even where they take no memory."""

_FLOAT_TYPES = ("F32", "F16", "BF16")

Config = TypeVar("Config")
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """Everything a model folder holds, ready to use (eval mode, on the CPU, fp32)."""

    vae: DiscreteVAE
    transformer: JointTransformer
    tokenizer: CaptionTokenizer
    sampling: SamplingConfig
    """The sampling settings the model's makers recommend."""
    fingerprint: str
    """First 16 hex digits of the SHA-256 of the folder's SHA256SUMS."""


# ------------------------------------------------------------------------------------- writing


def save_vae(folder: Path, vae: DiscreteVAE) -> None:
    """Write a dVAE folder; what stood at `folder` is replaced once the new one is complete.

    Raises:
        OSError: It cannot be written; what stood there still stands.
    """
    with _replacing(folder) as partial:
        save_file(_stored(vae, torch.float32), partial / VAE_FILE)
        _write_config(partial, {"vae": dataclasses.asdict(vae.config)})


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
    with _replacing(folder) as partial:
        weights_type = torch.float16 if dtype == "fp16" else torch.float32
        save_file(_stored(parts.vae, weights_type), partial / VAE_FILE)
        save_file(_stored(parts.transformer, weights_type), partial / TRANSFORMER_FILE)
        parts.tokenizer.save(partial / TOKENIZER_FILE)
        (partial / CARD_FILE).write_text(card, encoding="utf-8")
        _write_config(
            partial,
            {
                "vae": dataclasses.asdict(parts.vae.config),
                "sequence": dataclasses.asdict(parts.transformer.sequence),
                "transformer": dataclasses.asdict(parts.transformer.config),
                "sampling": dataclasses.asdict(parts.sampling),
            },
        )


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A partial folder beside `folder`; sealed with SHA256SUMS and put in its place on success."""
    partial = folder.with_name(f"{folder.name}.partial")
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        write_sums(partial)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _stored(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of `module` as they are written: on the CPU, contiguous, in `dtype`."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        whole = tensor.detach().cpu().contiguous()
        narrow = whole.to(dtype)
        overflow = bool((narrow.isinf() & ~whole.isinf()).any())
        tensors[name] = whole.float() if overflow else narrow
    return tensors


def _write_config(folder: Path, sections: Mapping[str, Any]) -> None:
    text = json.dumps({"format_version": FORMAT_VERSION, **sections}, indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


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
    _check_size(folder, blocks=config.layers, numbers=_transformer_numbers(sequence, config))
    transformer = _filled(lambda: JointTransformer(sequence, config), folder / TRANSFORMER_FILE)
    return ModelParts(
        vae=vae,
        transformer=transformer,
        tokenizer=tokenizer,
        sampling=sampling,
        fingerprint=fingerprint,
    )


def _load_vae(folder: Path, tree: Mapping[str, Any]) -> DiscreteVAE:
    config = _section(tree, "vae", VaeConfig, folder)
    blocks = config.groups * config.blocks_per_group
    _check_size(folder, blocks=blocks, numbers=_vae_numbers(config))
    return _filled(lambda: DiscreteVAE(config), folder / VAE_FILE)


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


def _check_size(folder: Path, *, blocks: int, numbers: int) -> None:
    """Refuse what no honest config asks for, before anything is built or allocated."""
    for count, limit, what in (
        (blocks, MAX_BLOCKS, "blocks in a row"),
        (numbers, MAX_NUMBERS, "weights and mask entries"),
    ):
        if count > limit:
            raise ModelFormatError(
                f"{folder / CONFIG_FILE} describes a model of more {what} than the {limit:,} that "
                "this program allows; the file is not to be trusted"
            )


def _vae_numbers(config: VaeConfig) -> int:
    """About how many weights a dVAE has."""
    widths = [config.channels << group for group in range(config.groups)]
    # A block from and to width w has 58 (w / 4)^2 kernel entries, and there are two stacks.
    per_group = sum(2 * 58 * width**2 // 16 for width in widths)
    codes = config.codebook_size * (widths[-1] + config.codebook_dim)
    return config.blocks_per_group * per_group + codes


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


def _filled(construct: Callable[[], Module], weights: Path) -> Module:
    """The module `construct` makes, in eval mode, with the weights in a file that fits it."""
    with torch.device("meta"):
        expected = construct().state_dict()
    try:
        with safe_open(weights, framework="pt") as file:
            _check_fit(expected, file, weights)
            tensors = {name: file.get_tensor(name).float() for name in expected}
    except (SafetensorError, OSError) as err:
        raise ModelFormatError(
            f"{weights} cannot be read as safetensors: {err}; copy the file again"
        ) from err
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced at once
        module = construct()
    module.load_state_dict(tensors)
    return module.eval()


def _check_fit(expected: Mapping[str, Tensor], file: Any, weights: Path) -> None:
    """Refuse a safetensors file whose names, shapes or types differ from those expected."""
    names = set(file.keys())
    problems = [f"missing {name}" for name in expected.keys() - names]
    problems += [f"unexpected {name}" for name in names - expected.keys()]
    for name in expected.keys() & names:
        found = file.get_slice(name)
        shape, wanted = tuple(found.get_shape()), tuple(expected[name].shape)
        if shape != wanted:
            problems.append(f"{name} has shape {shape} instead of {wanted}")
        elif found.get_dtype() not in _FLOAT_TYPES:
            problems.append(f"{name} has type {found.get_dtype()}, not a float of 16 or 32 bits")
    if problems:
        raise ModelFormatError(
            f"{weights} does not fit its {CONFIG_FILE} ({len(problems)} differences): "
            f"{'; '.join(sorted(problems)[:8])}. Both must come from the same training"
        )
