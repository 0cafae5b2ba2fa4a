"""Held-out pairs of picture and caption: how surprised the model is by them.

Axes: b pairs, t caption tokens, m image tokens; y x pixel rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch.nn.functional import cross_entropy

from dalle.checkpoint import ModelParts
from dalle.data.order import in_groups
from dalle.evaluate.estimators import mean_interval
from dalle.evaluate.results import BitsPerToken
from dalle.sequence import fit_caption, text_targets
from vae.pixels import to_pixels

BATCH = 32


@torch.inference_mode()
def bits_per_token(
    parts: ModelParts, images_u8: np.ndarray, captions: Sequence[str], *, seed: int
) -> BitsPerToken:
    """Bits that the model needs for each image token and each caption token of true pairs.

    Args:
        parts: The model; computes where its weights are.
        images_u8: Pictures of the model's size, shape (b, y, x, 3), uint8.
        captions: One for each picture.
        seed: Of the intervals' resampling.

    Returns:
        Means over pairs, each the mean over its tokens; the end of a caption counts as a token.
    """
    sequence, device = parts.transformer.sequence, next(parts.transformer.parameters()).device
    image_bits: list[float] = []
    caption_bits: list[float] = []
    for numbers in in_groups(range(len(captions)), BATCH):
        pixels = to_pixels(torch.from_numpy(images_u8[numbers]).to(device))
        image_tokens = rearrange(parts.vae.encode(pixels), "b h w -> b (h w)")
        encoded = [parts.tokenizer.encode(captions[number]) for number in numbers]
        padded = [fit_caption(ids, parts.tokenizer, sequence)[0] for ids in encoded]
        text_ids = torch.stack(padded).to(device)
        logits = parts.transformer(text_ids, image_tokens)
        image_nats = cross_entropy(
            rearrange(logits.image, "b m k -> b k m"), image_tokens, reduction="none"
        )  # b m
        targets = text_targets(text_ids, sequence.text_vocab)  # b t, -100 behind the end
        text_nats = cross_entropy(
            rearrange(logits.text, "b t v -> b v t"), targets, reduction="none"
        )  # b t
        said = (targets >= 0).sum(dim=1)
        image_bits += (image_nats.mean(dim=1) / math.log(2)).tolist()
        caption_bits += (text_nats.sum(dim=1) / said / math.log(2)).tolist()
    return BitsPerToken(
        image=mean_interval(np.array(image_bits), seed=seed),
        caption=mean_interval(np.array(caption_bits), seed=seed),
    )
