"""The model card that a finished training writes beside its weights."""

from __future__ import annotations

from dalle.checkpoint import ModelParts
from dalle.config import TrainTransformer


def model_card(parts: ModelParts, run: TrainTransformer) -> str:
    """A card with the facts the program knows; people add data, purpose and limits.

    Args:
        parts: The finished model.
        run: The settings it was trained with.
    """
    sequence, transformer, vae = parts.transformer.sequence, parts.transformer.config, parts.vae
    how = "" if run.lora_rank is None else f", of additions of rank {run.lora_rank} to {run.init}"
    counts = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in (("transformer", parts.transformer), ("dVAE", vae))
    }
    return f"""# Model card

A text-to-image model: a discrete VAE and a joint transformer over caption and image tokens.

| part | facts |
|---|---|
| pictures | {sequence.grid_w * vae.config.stride} x {sequence.grid_h * vae.config.stride} px |
| dVAE | {counts["dVAE"]:,} parameters, stride {vae.config.stride}, \
{vae.config.codebook_size} codes, {vae.config.quantizer}, {vae.config.likelihood} |
| transformer | {counts["transformer"]:,} parameters, {transformer.layers} layers, \
width {transformer.width}, {transformer.heads} heads, {transformer.attention} attention |
| sequence | {sequence.text_len} caption tokens (vocabulary {sequence.text_vocab}), \
{sequence.grid_h} x {sequence.grid_w} image tokens |
| training | {run.loop.steps:,} steps of {run.loop.batch} sequences, learning rate \
{run.optim.lr}, seed {run.loop.seed}, caption dropout {run.objective.caption_dropout}{how} |
| weights | stored as {run.publish_dtype}, averaged with decay {run.loop.ema_decay} |

Data, licence, intended use and limits: to be written by whoever publishes this model.
"""
