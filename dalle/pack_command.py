"""`dalle pack`: what training left in several places, as the one folder that people download."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import (
    CARD_FILE,
    CLIP_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    TRANSFORMER_FILE,
    VAE_FILE,
    ModelParts,
    has_clip,
    load_clip,
    load_model,
    load_vae,
    write_config,
)
from dalle.config import Pack
from dalle.errors import ModelFormatError
from dalle.folders import model_folder
from dalle.model_config import ClipConfig
from dalle.schema import read_object
from dalle.weights import check_replaceable, replacing, save_tensors
from vae.model import DiscreteVAE

log = logging.getLogger(__name__)


def run(settings: Pack) -> int:
    """Check every part, write the folder; 0 when done.

    Raises:
        ModelFormatError: A part is damaged, the CLIP reads captions with another tokenizer, the
            dVAE has other codes, or the model to average with is of another kind.
        ValueError: Something other than a model stands where it shall be written.
        OSError: A file cannot be read or written.
    """
    check_replaceable(settings.out)
    source = model_folder(settings.model)
    parts = load_model(source)
    tree = read_object(source / CONFIG_FILE)
    tree["sampling"] = dataclasses.asdict(settings.sampling(parts.sampling))
    files = {name: source / name for name in (VAE_FILE, TRANSFORMER_FILE, TOKENIZER_FILE)}
    if settings.vae is not None:
        vae_folder = model_folder(settings.vae)
        vae = load_vae(vae_folder)
        _check_codes(parts.vae, vae, where=vae_folder)
        tree["vae"] = dataclasses.asdict(vae.config)
        files[VAE_FILE] = vae_folder / VAE_FILE
    if (clip := _clip(settings, source, parts.tokenizer)) is not None:
        files[CLIP_FILE], config = clip
        tree["clip"] = dataclasses.asdict(config)
    card = settings.card or source / CARD_FILE
    if card.is_file() or settings.card is not None:
        files[CARD_FILE] = card
    averaged = None
    if settings.mean_with is not None:
        other = model_folder(settings.mean_with)
        averaged = _mean(source, parts, other, share=settings.mean_share)
    with replacing(settings.out) as partial:
        for name, path in files.items():
            shutil.copyfile(path, partial / name)
        if averaged is not None:
            save_tensors(averaged, partial / TRANSFORMER_FILE)
        write_config(partial, {name: tree[name] for name in tree if name != "format_version"})
    load_model(settings.out)
    size = sum(path.stat().st_size for path in settings.out.iterdir())
    log.info("the model is in %s, %.1f MB", settings.out, size / 1e6)
    return 0


def _mean(ours: Path, one: ModelParts, theirs: Path, *, share: float) -> dict[str, Tensor]:
    """The mean of two transformers' weights, in the types of the first, whose parts are loaded.

    The second counts for `share` of it.

    What two passes over different data learn by heart differs and is averaged away; what both
    learn stays, as long as the second began where the first ended.

    Source: Wortsman et al., arXiv:2203.05482.

    Raises:
        ModelFormatError: The second is damaged, or of another shape, vocabulary or dVAE.
    """
    other = load_model(theirs)
    same = {
        "sequence": one.transformer.sequence == other.transformer.sequence,
        "transformer": one.transformer.config == other.transformer.config,
        "tokenizer": one.tokenizer.same_as(other.tokenizer),
        "dVAE": one.vae.part_unlike(other.vae) is None,
    }
    for part, is_same in same.items():
        if not is_same:
            raise ModelFormatError(
                f"mean_with {theirs} has another {part} than {ours}; only passes of one training "
                "have a mean: train the second with --init at the first"
            )
    weights, others = (load_file(folder / TRANSFORMER_FILE) for folder in (ours, theirs))
    return {
        name: tensor.float().lerp(others[name].float(), share).to(tensor.dtype)
        for name, tensor in weights.items()
    }


def _check_codes(ours: DiscreteVAE, theirs: DiscreteVAE, *, where: Path) -> None:
    """Refuse a dVAE whose tokens mean something else than the model's.

    Raises:
        ModelFormatError: They do.
    """
    part = ours.part_unlike(theirs)
    if part is not None:
        raise ModelFormatError(
            f"the dVAE in {where} has another {part} than the model's, so that the model's "
            "tokens would be drawn as something else; train it with --codes_of the model's"
        )


def _clip(
    settings: Pack, model: Path, tokenizer: CaptionTokenizer
) -> tuple[Path, ClipConfig] | None:
    """Weights and config of the CLIP asked for, else of the model's own; None without either.

    Raises:
        ModelFormatError: It is damaged, reads captions with another tokenizer than the model, or is
            to be changed and not there.
    """
    weight = settings.likelihood_weight
    if settings.clip is None and not has_clip(model):
        if weight is not None:
            raise ModelFormatError(
                f"likelihood_weight is part of a CLIP, and {model} has none; give one with --clip"
            )
        return None
    folder = model if settings.clip is None else model_folder(settings.clip)
    clip = load_clip(folder)
    if not tokenizer.same_as(clip.tokenizer):
        raise ModelFormatError(
            f"the CLIP in {folder} has another tokenizer than the model in {model}; train it with "
            f"--tokenizer {model / TOKENIZER_FILE}"
        )
    config = clip.config
    if weight is not None:
        config = dataclasses.replace(config, likelihood_weight=weight)
    return folder / CLIP_FILE, config
