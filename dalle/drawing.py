"""Candidates of a caption, drawn: caption to tokens, tokens to pictures, in batches of fixed size.

Axes: c captions, g candidates of a caption, t caption tokens, h w grid rows and columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import ModelParts
from dalle.config import SamplingConfig
from dalle.picture import GeneratedImage, Recipe
from dalle.prompts import check_prompt
from dalle.sampling import Drawn, sample_tokens
from dalle.sequence import fit_caption
from vae.pixels import to_image_u8

log = logging.getLogger(__name__)

MICROBATCH = 16
"""Candidates decoded together. Fixed, because rounding depends on it: see `Recipe.batch`."""
UNDRAWN = (222, 222, 222)
"""Colour of the rows that a preview does not know yet."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A caption ready for the transformer."""

    caption: str
    text_ids: Tensor
    """Shape (t), int64."""
    notice: str | None


@dataclass(frozen=True, kw_only=True)
class DrawBatch:
    """What is decoded together: the same candidates of every caption."""

    captions: tuple[Prepared, ...]
    indices: range
    """Candidate indices."""
    seed: int
    sampling: SamplingConfig


class Drawer:
    """A model's parts at work; keeps nothing between calls."""

    def __init__(self, parts: ModelParts, device: torch.device) -> None:
        """Move `parts` to `device`."""
        self.device = device
        self.transformer = parts.transformer.to(device).eval()
        self.vae = parts.vae.to(device).eval()
        self.tokenizer: CaptionTokenizer = parts.tokenizer
        self.fingerprint = parts.fingerprint

    @property
    def image_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        sequence, stride = self.transformer.sequence, self.vae.config.stride
        return sequence.grid_h * stride, sequence.grid_w * stride

    @property
    def rows(self) -> int:
        """Rows of the token grid."""
        return self.transformer.sequence.grid_h

    def prepare(self, caption: str) -> Prepared:
        """`caption` as the transformer reads it, cut if it is too long.

        Raises:
            TypeError: It is not a string.
            ValueError: It cannot be drawn.
        """
        text = check_prompt(caption)
        sequence = self.transformer.sequence
        text_ids, was_cut = fit_caption(self.tokenizer.encode(text), self.tokenizer, sequence)
        notice = None
        if was_cut:
            used = self.tokenizer.decode(text_ids[text_ids < sequence.text_vocab].tolist())
            notice = f"only the first {sequence.text_len} tokens of the caption are used: {used!r}"
            log.warning("%s", notice)
        return Prepared(caption=caption, text_ids=text_ids.to(self.device), notice=notice)

    def draw(self, batch: DrawBatch) -> Iterator[Drawn]:
        """The tokens of `batch`, row after row."""
        text_ids = torch.stack([caption.text_ids for caption in batch.captions])  # c t
        return sample_tokens(
            self.transformer, text_ids,
            candidates=batch.indices, seed=batch.seed, sampling=batch.sampling,
        )  # fmt: skip

    def images(self, batch: DrawBatch, drawn: Drawn, *, row: int) -> list[GeneratedImage]:
        """Finished pictures of caption number `row` of `batch`, not yet scored."""
        grids = self._grids(drawn.tokens[row])  # g h w
        likelihoods = drawn.log_probability[row].tolist()
        return [
            GeneratedImage(
                image=image,
                tokens=grid,
                log_likelihood=likelihood,
                score=None,
                ranker="none",
                recipe=Recipe(
                    caption=batch.captions[row].caption,
                    seed=batch.seed,
                    index=index,
                    sampling=batch.sampling,
                    batch=(len(batch.captions), len(batch.indices)),
                    model=self.fingerprint,
                ),
            )
            for image, grid, likelihood, index in zip(
                self._pictures(grids), grids.cpu().numpy(), likelihoods, batch.indices, strict=True
            )
        ]

    def previews(self, tokens: Tensor) -> Iterator[Image.Image]:
        """Full-size pictures of unfinished tokens (g, r), whose undrawn rows are grey."""
        height, width = self.image_px
        for picture in self._pictures(self._grids(tokens)):
            canvas = Image.new("RGB", (width, height), UNDRAWN)
            canvas.paste(picture, (0, 0))
            yield canvas

    @torch.inference_mode()
    def _pictures(self, grids: Tensor) -> list[Image.Image]:
        """Pictures of token grids (g, h, w)."""
        return [Image.fromarray(image) for image in to_image_u8(self.vae.decode(grids))]

    def _grids(self, tokens: Tensor) -> Tensor:
        """Token grids (g, h, w) of raster tokens (g, h * w); h may be fewer than all rows."""
        return rearrange(tokens, "g (h w) -> g h w", w=self.transformer.sequence.grid_w)


def microbatches(candidates: int) -> list[range]:
    """Candidate indices in micro-batches of one size; the last may reach past the count.

    Drawing a few too many keeps every product the same size, hence every picture the same
    whatever the number of candidates beyond a micro-batch.
    """
    size = min(candidates, MICROBATCH)
    return [range(start, start + size) for start in range(0, candidates, size)]
