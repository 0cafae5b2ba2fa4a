"""Published model folders: JSON and safetensors, parsed and verified, never executed.

A dVAE folder holds `config.json`, `vae.safetensors` and `SHA256SUMS`; a full model adds
`transformer.safetensors` and `tokenizer.json`. Training state is another matter, see
`dalle.train.state`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from dalle.captions import CaptionTokenizer
from dalle.config import SamplingConfig
from dalle.errors import ModelFormatError
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.transformer import JointTransformer
from vae.config import VaeConfig
from vae.model import DiscreteVAE

FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 64 << 20
MAX_PARAMETERS = 20_000_000_000
"""A config that asks for more than this is taken for a lie, before anything is allocated."""

CONFIG_FILE = "config.json"
VAE_FILE = "vae.safetensors"
TRANSFORMER_FILE = "transformer.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"
SUMS_FILE = "SHA256SUMS"

Config = TypeVar("Config")


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
    """Write a dVAE folder; `folder` is replaced as a whole or not at all."""
    with _replacing(folder) as partial:
        save_file(_contiguous(vae, torch.float32), partial / VAE_FILE)
        _write_config(partial, {"vae": dataclasses.asdict(vae.config)})


def save_model(
    folder: Path, parts: ModelParts, *, card: str, dtype: Literal["fp32", "fp16"] = "fp32"
) -> None:
    """Write a full model folder; `folder` is replaced as a whole or not at all.

    Args:
        folder: Where to.
        parts: What to write; `fingerprint` is ignored, since it follows from the files.
        card: Text of the model card.
        dtype: Type the weights are stored in; they are always loaded as fp32.
    """
    with _replacing(folder) as partial:
        stored = torch.float16 if dtype == "fp16" else torch.float32
        save_file(_contiguous(parts.vae, stored), partial / VAE_FILE)
        save_file(_contiguous(parts.transformer, stored), partial / TRANSFORMER_FILE)
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


class _replacing:  # noqa: N801 (reads as a verb at the call)
    """A partial folder beside the final one; sealed with SHA256SUMS and swapped in on success."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = folder.with_name(folder.name + ".partial")

    def __enter__(self) -> Path:
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
            return
        write_sums(self.partial)
        if self.folder.exists():
            old = self.folder.with_name(self.folder.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            self.folder.rename(old)
            self.partial.rename(self.folder)
            shutil.rmtree(old)
        else:
            self.partial.rename(self.folder)


def _contiguous(module: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }


def _write_config(folder: Path, sections: Mapping[str, Any]) -> None:
    text = json.dumps({"format_version": FORMAT_VERSION, **sections}, indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------- hashes


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every other file of `folder`, in the form `sha256sum -c` reads."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS_FILE)
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in files]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def verify_sums(folder: Path) -> str:
    """Check every file that SHA256SUMS lists, and return the folder's fingerprint.

    Raises:
        ModelFormatError: The list is missing or malformed, or a file is missing or differs.
    """
    sums = folder / SUMS_FILE
    if not sums.is_file():
        raise ModelFormatError(
            f"{folder} has no {SUMS_FILE}, so its files cannot be verified; "
            "write it with `sha256sum` or publish the model again"
        )
    for line in sums.read_text(encoding="utf-8").splitlines():
        expected, separator, name = line.partition("  ")
        if not separator or Path(name).name != name:
            raise ModelFormatError(f"{sums}: line {line!r} is not 'HASH  FILE'")
        path = folder / name
        if not path.is_file():
            raise ModelFormatError(f"{folder} lacks {name}, which {SUMS_FILE} lists")
        if file_sha256(path) != expected:
            raise ModelFormatError(
                f"{path} is damaged: its SHA-256 differs from {SUMS_FILE}; copy the file again"
            )
    return file_sha256(sums)[:16]


# ------------------------------------------------------------------------------------- reading


def load_vae(folder: Path) -> DiscreteVAE:
    """The dVAE of a dVAE folder or of a full model folder, in eval mode on the CPU.

    Raises:
        ModelFormatError: The folder is missing, incomplete, damaged or does not fit its config.
    """
    config = _read_config(folder)
    verify_sums(folder)
    return _load_vae(folder, config)


def load_model(folder: Path) -> ModelParts:
    """Everything in a full model folder, verified.

    Raises:
        ModelFormatError: The folder is missing, incomplete, damaged or does not fit its config.
    """
    config = _read_config(folder)
    for name in (TRANSFORMER_FILE, TOKENIZER_FILE, VAE_FILE):
        if not (folder / name).is_file():
            raise ModelFormatError(f"{folder} lacks {name}; a text-to-image model needs it")
    fingerprint = verify_sums(folder)
    sequence = _section(config, "sequence", SequenceConfig, folder)
    transformer_config = _section(config, "transformer", TransformerConfig, folder)
    vae = _load_vae(folder, config)
    if sequence.image_vocab != vae.config.codebook_size:
        raise ModelFormatError(
            f"{folder / CONFIG_FILE}: sequence.image_vocab ({sequence.image_vocab}) differs from "
            f"vae.codebook_size ({vae.config.codebook_size})"
        )
    tokenizer_file = folder / TOKENIZER_FILE
    if tokenizer_file.stat().st_size > MAX_TOKENIZER_BYTES:
        raise ModelFormatError(f"{tokenizer_file} is larger than {MAX_TOKENIZER_BYTES} bytes")
    tokenizer = CaptionTokenizer.load(tokenizer_file)
    if tokenizer.vocab_size != sequence.text_vocab:
        raise ModelFormatError(
            f"{tokenizer_file} has {tokenizer.vocab_size} entries, but the model was trained "
            f"with {sequence.text_vocab}; use the tokenizer it was published with"
        )
    transformer = _build(
        lambda: JointTransformer(sequence, transformer_config), folder / TRANSFORMER_FILE
    )
    return ModelParts(
        vae=vae,
        transformer=transformer,
        tokenizer=tokenizer,
        sampling=_section(config, "sampling", SamplingConfig, folder),
        fingerprint=fingerprint,
    )


def _load_vae(folder: Path, config: Mapping[str, Any]) -> DiscreteVAE:
    vae_config = _section(config, "vae", VaeConfig, folder)
    return _build(lambda: DiscreteVAE(vae_config), folder / VAE_FILE)


Module = TypeVar("Module", bound=nn.Module)


def _build(construct: Any, weights: Path) -> Any:
    """The module `construct` makes, filled from `weights` after size and shape checks."""
    with torch.device("meta"):
        module: nn.Module = construct()
    expected = module.state_dict()
    count = sum(tensor.numel() for tensor in expected.values())
    if count > MAX_PARAMETERS:
        raise ModelFormatError(
            f"{weights.parent / CONFIG_FILE} describes {count:,} parameters, "
            f"more than the {MAX_PARAMETERS:,} this program allows"
        )
    found = _read_tensors(weights)
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"unexpected {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    ]
    if problems:
        raise ModelFormatError(
            f"{weights} does not fit {CONFIG_FILE}: " + "; ".join(sorted(problems)[:8])
        )
    module = construct()
    module.load_state_dict({name: tensor.float() for name, tensor in found.items()})
    return module.eval()


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as err:
        raise ModelFormatError(f"{path} cannot be read as safetensors: {err}") from err


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise ModelFormatError(f"model folder {folder} does not exist")
    if not path.is_file():
        raise ModelFormatError(
            f"{folder} is not a model folder: it has no {CONFIG_FILE}; give the folder that "
            "`dalle train` wrote, such as RUN/model"
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ModelFormatError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise ModelFormatError(f"{path} is not JSON: {err}") from err
    version = config.get("format_version") if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"{path} has format_version {version!r}; this program reads {FORMAT_VERSION}"
        )
    return dict(config)


def _section(
    config: Mapping[str, Any], name: str, schema: type[Config], folder: Path
) -> Config:
    """`config[name]` as a `schema`, refused if a key is unknown, missing or of the wrong type."""
    where = f"{folder / CONFIG_FILE}: {name}"
    values = config.get(name)
    if not isinstance(values, dict):
        raise ModelFormatError(f"{where} is missing or not an object")
    hints = get_type_hints(schema)
    if unknown := sorted(values.keys() - hints.keys()):
        raise ModelFormatError(f"{where} has unknown keys: {', '.join(unknown)}")
    for key, value in values.items():
        if not _fits(value, hints[key]):
            raise ModelFormatError(f"{where}.{key} must be {hints[key]}, got {value!r}")
    try:
        return schema(**values)
    except ValueError as err:
        raise ModelFormatError(f"{where}: {err}") from err


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value has the type a config field declares."""
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))
