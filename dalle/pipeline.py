"""Captions in, pictures out: load a model once, draw with it as often as wanted.

A `TextToImage` keeps nothing between calls, so one may serve many threads.
Axes: c captions, g candidates of a caption, t caption tokens, h w grid rows and columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from dalle.checkpoint import ModelParts, load_model
from dalle.config import Device, SamplingConfig, SamplingOptions
from dalle.device import choose_device
from dalle.errors import DalleError
from dalle.folders import model_folder
from dalle.picture import GeneratedImage, Recipe
from dalle.prompts import check_prompt
from dalle.request import Request, check_request
from dalle.rerank import rank
from dalle.results import CaptionFailure, CaptionResult, Frame, Generation
from dalle.sampling import Drawn, sample_tokens
from dalle.sequence import pad_caption
from vae.pixels import to_image_u8

log = logging.getLogger(__name__)

MICROBATCH = 16
"""Candidates decoded together. Fixed, because rounding depends on it: see `Recipe.batch`."""
UNDRAWN = (222, 222, 222)
"""Colour of the rows that a preview does not know yet."""


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A caption ready for the transformer."""

    caption: str
    text_ids: Tensor
    """Shape (t), int64."""
    notice: str | None


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """What is decoded together: the same candidates of every caption."""

    captions: tuple[_Prepared, ...]
    indices: range
    """Candidate indices."""
    seed: int
    sampling: SamplingConfig


class TextToImage:
    """A text-to-image model: tokenizer, joint transformer and dVAE.

    Example:
        >>> model = TextToImage.from_pretrained("emoji")
        >>> best = model.generate("a fox on a blue background", candidates=16).images[0]
        >>> best.image.save("fox.png")
    """

    def __init__(self, parts: ModelParts, *, device: Device = "auto") -> None:
        """Wrap loaded parts; most callers want `from_pretrained`.

        Raises:
            ValueError: `device` is cuda and there is no usable GPU.
        """
        self.device = choose_device(device)
        self._transformer = parts.transformer.to(self.device).eval()
        self._vae = parts.vae.to(self.device).eval()
        self._tokenizer = parts.tokenizer
        self.sampling = parts.sampling
        """The sampling settings that the model's makers recommend."""
        self.fingerprint = parts.fingerprint
        """Identifies the model's files; stored in every picture."""

    @classmethod
    def from_pretrained(
        cls, model: str | Path = "emoji", *, device: Device = "auto"
    ) -> TextToImage:
        """A bundled model by name, or the model in a folder; works offline.

        Raises:
            ModelFormatError: There is no such model, or its files are damaged.
            ValueError: `device` is cuda and there is no usable GPU.
        """
        return cls(load_model(model_folder(model)), device=device)

    @property
    def image_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        sequence, stride = self._transformer.sequence, self._vae.config.stride
        return sequence.grid_h * stride, sequence.grid_w * stride

    def frames(self, candidates: int) -> int:
        """How many frames a `stream` of so many candidates has."""
        return len(_chunks(candidates)) * self._transformer.sequence.grid_h

    # ------------------------------------------------------------------------------ the verbs

    def generate(
        self,
        captions: str | Sequence[str],
        *,
        candidates: int = 16,
        keep: int | None = None,
        seed: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> Generation:
        """Pictures for one caption or several, the best first.

        Args:
            captions: What to draw.
            candidates: Pictures drawn for each caption, at least 1.
            keep: Best pictures returned for each caption; None returns all candidates, ranked.
            seed: A picture depends on its caption, this, its candidate index and the sampling
                settings, not on the other captions.
            **sampling: Each setting left out, or None, is the model's own.
                `temperature`: 0 (greedy) to 100, divides the logits;
                `top_k`: keep only so many likeliest tokens, at least 1;
                `top_p`: keep the fewest tokens that hold this mass, over 0 and at most 1;
                `guidance_scale`: null + scale * (conditional - null), 0 to 100, 1 is off.

        Returns:
            One result per caption, in their order.

        Raises:
            TypeError: A caption is not a string, or a setting is of another type or unknown.
            ValueError: A caption is empty or too long, or a setting is out of range.
        """
        request = self._request(candidates, keep, seed, sampling)
        prepared = [self._prepare(caption) for caption in _listed(captions)]
        results = [self._finish((one,), request, together=1)[0] for one in prepared]
        return Generation(results=tuple(results))

    def generate_many(
        self,
        captions: Iterable[str],
        *,
        candidates: int = 1,
        keep: int | None = None,
        seed: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[CaptionResult | CaptionFailure]:
        """Pictures for any number of captions, in order, in bounded memory.

        Captions with few candidates are decoded together. One that cannot be drawn yields a
        `CaptionFailure` and leaves the others as they are. Arguments are as in `generate`, and
        the settings are checked at the call rather than at the first result.

        Raises:
            TypeError: A setting is of another type or unknown.
            ValueError: A setting is out of range.
        """
        request = self._request(candidates, keep, seed, sampling)
        return self._generate_many(_listed(captions), request)

    def stream(
        self,
        caption: str,
        *,
        candidates: int = 16,
        keep: int | None = None,
        seed: int = 0,
        previews: bool = True,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[Frame]:
        """Watch a caption being drawn: a frame for every row of the grid, the last with the result.

        The pictures are those of `generate` with the same arguments. Without `previews` no time
        is spent on decoding unfinished pictures. Closing the iterator stops the work and frees
        its memory.

        Raises:
            TypeError: The caption is not a string, or a setting is of another type or unknown.
            ValueError: The caption is empty or too long, or a setting is out of range.
        """
        request = self._request(candidates, keep, seed, sampling)
        return self._stream(self._prepare(caption), request, previews=previews)

    def redraw(self, recipe: Recipe) -> GeneratedImage:
        """The picture that `recipe` describes, the same to the last pixel on the same machine.

        Raises:
            DalleError: The recipe belongs to another model.
            ValueError: The recipe's caption cannot be drawn.
        """
        if recipe.model != self.fingerprint:
            raise DalleError(
                f"the picture was drawn by model {recipe.model}, but this one is "
                f"{self.fingerprint}; load the model it was drawn with"
            )
        together, size = recipe.batch
        start = recipe.index - recipe.index % size
        batch = _Batch(
            captions=(self._prepare(recipe.caption),) * together,
            indices=range(start, start + size),
            seed=recipe.seed,
            sampling=recipe.sampling,
        )
        *_, drawn = self._draw(batch)
        return self._images(batch, drawn, row=0)[recipe.index - start]

    # -------------------------------------------------------------------------- inner workings

    def _request(
        self, candidates: int, keep: int | None, seed: int, options: SamplingOptions
    ) -> Request:
        return check_request(candidates, keep, seed=seed, default=self.sampling, options=options)

    def _prepare(self, caption: str) -> _Prepared:
        text = check_prompt(caption)
        sequence = self._transformer.sequence
        fitted, was_cut = self._tokenizer.fit(self._tokenizer.encode(text), sequence.text_len)
        notice = None
        if was_cut:
            notice = (
                f"only the first {sequence.text_len} tokens of the caption are used: "
                f"{self._tokenizer.decode(fitted)!r}"
            )
            log.warning("%s", notice)
        text_ids = pad_caption(fitted, sequence).to(self.device)
        return _Prepared(caption=caption, text_ids=text_ids, notice=notice)

    def _draw(self, batch: _Batch) -> Iterator[Drawn]:
        text_ids = torch.stack([caption.text_ids for caption in batch.captions])  # c t
        return sample_tokens(
            self._transformer, text_ids,
            candidates=batch.indices, seed=batch.seed, sampling=batch.sampling,
        )  # fmt: skip

    def _finish(
        self, captions: tuple[_Prepared, ...], request: Request, *, together: int
    ) -> list[CaptionResult]:
        """Draw and rank `captions`, beside copies of the last if they are fewer than `together`."""
        padded = captions + captions[-1:] * (together - len(captions))
        found: list[list[GeneratedImage]] = [[] for _ in captions]
        for indices in _chunks(request.candidates):
            batch = _Batch(
                captions=padded, indices=indices, seed=request.seed, sampling=request.sampling
            )
            *_, drawn = self._draw(batch)
            for row, images in enumerate(found):
                images += self._images(batch, drawn, row=row)
        return [
            _ranked(caption, images, request)
            for caption, images in zip(captions, found, strict=True)
        ]

    def _images(self, batch: _Batch, drawn: Drawn, *, row: int) -> list[GeneratedImage]:
        """Finished pictures of caption number `row` of `batch`."""
        grids = self._grids(drawn.tokens[row])  # g h w
        likelihoods = drawn.log_probability[row].tolist()
        return [
            GeneratedImage(
                image=image,
                tokens=grid,
                log_likelihood=likelihood,
                score=likelihood,
                ranker="likelihood",
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

    def _generate_many(
        self, captions: Iterable[str], request: Request
    ) -> Iterator[CaptionResult | CaptionFailure]:
        together = MICROBATCH // min(request.candidates, MICROBATCH)
        waiting: list[_Prepared | CaptionFailure] = []
        ready = 0
        for caption in captions:
            try:
                waiting.append(self._prepare(caption))
                ready += 1
            except (TypeError, ValueError) as err:
                waiting.append(CaptionFailure(caption=caption, error=str(err)))
            if ready == together or len(waiting) == 4 * together:
                yield from self._settle(waiting, request, together)
                waiting, ready = [], 0
        yield from self._settle(waiting, request, together)

    def _settle(
        self, waiting: Sequence[_Prepared | CaptionFailure], request: Request, together: int
    ) -> Iterator[CaptionResult | CaptionFailure]:
        """Results of `waiting`, failures in their places."""
        prepared = tuple(entry for entry in waiting if isinstance(entry, _Prepared))
        results = iter(self._finish(prepared, request, together=together) if prepared else ())
        for entry in waiting:
            yield entry if isinstance(entry, CaptionFailure) else next(results)

    def _stream(self, caption: _Prepared, request: Request, *, previews: bool) -> Iterator[Frame]:
        images: list[GeneratedImage] = []
        rows = self._transformer.sequence.grid_h
        for indices in _chunks(request.candidates):
            shown = min(len(indices), request.candidates - indices.start)
            batch = _Batch(
                captions=(caption,), indices=indices, seed=request.seed, sampling=request.sampling
            )
            for drawn in self._draw(batch):
                result = None
                if drawn.rows_done == rows:
                    images += self._images(batch, drawn, row=0)
                    if indices.stop >= request.candidates:
                        result = _ranked(caption, images, request)
                yield Frame(
                    first_candidate=indices.start,
                    rows_done=drawn.rows_done,
                    rows=rows,
                    previews=tuple(self._previews(drawn.tokens[0, :shown])) if previews else (),
                    result=result,
                )

    @torch.inference_mode()
    def _pictures(self, grids: Tensor) -> list[Image.Image]:
        """Pictures of token grids (g, h, w)."""
        return [Image.fromarray(image) for image in to_image_u8(self._vae.decode(grids))]

    def _grids(self, tokens: Tensor) -> Tensor:
        """Token grids (g, h, w) of raster tokens (g, h * w); h may be fewer than all rows."""
        return rearrange(tokens, "g (h w) -> g h w", w=self._transformer.sequence.grid_w)

    def _previews(self, tokens: Tensor) -> Iterator[Image.Image]:
        """Full-size pictures whose undrawn rows are grey."""
        height, width = self.image_px
        for picture in self._pictures(self._grids(tokens)):
            canvas = Image.new("RGB", (width, height), UNDRAWN)
            canvas.paste(picture, (0, 0))
            yield canvas


def _listed(captions: str | Iterable[str]) -> Iterable[str]:
    """Captions one by one; a string is one caption, not a list of letters."""
    return [captions] if isinstance(captions, str) else captions


def _chunks(candidates: int) -> list[range]:
    """Candidate indices in micro-batches of one size; the last may reach past the count.

    Drawing a few too many keeps every product the same size, hence every picture the same
    whatever the number of candidates beyond a micro-batch.
    """
    size = min(candidates, MICROBATCH)
    return [range(start, start + size) for start in range(0, candidates, size)]


def _ranked(
    caption: _Prepared, images: Sequence[GeneratedImage], request: Request
) -> CaptionResult:
    """The best of the candidates that were asked for; `images` may hold some beyond them."""
    wanted = images[: request.candidates]
    order = rank([image.score for image in wanted])[: request.keep]
    return CaptionResult(
        caption=caption.caption,
        images=tuple(wanted[index] for index in order),
        notice=caption.notice,
    )
