"""Captions in, pictures out: load a model once, draw with it as often as wanted.

A `TextToImage` keeps nothing between calls, so one may serve many threads.
Axes: c captions, g candidates of a caption, h w grid rows and columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from dalle.captions import check_prompt
from dalle.checkpoint import ModelParts, load_model
from dalle.config import Device, SamplingConfig, check_counts, override_sampling
from dalle.device import choose_device
from dalle.errors import DalleError
from dalle.folders import model_folder
from dalle.picture import GeneratedImage, Recipe
from dalle.rerank import rank
from dalle.sampling import Drawn, sample_tokens
from dalle.sequence import pad_caption
from vae.pixels import to_image_u8

log = logging.getLogger(__name__)

MICROBATCH = 16
"""Candidates decoded together. Fixed, because rounding depends on it: see `Recipe.batch`."""
UNDRAWN = (222, 222, 222)
"""Colour of the rows that a preview does not know yet."""


@dataclass(frozen=True, kw_only=True)
class CaptionResult:
    """What became of one caption."""

    caption: str
    images: tuple[GeneratedImage, ...]
    """The kept candidates, best first."""
    notice: str | None = None
    """Something the person should know, such as that the caption was cut."""


@dataclass(frozen=True, kw_only=True)
class CaptionFailure:
    """Why a caption could not be drawn."""

    caption: object
    """What was given, which need not be a string."""
    error: str


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What became of a call to `generate`, in the order of its captions."""

    results: tuple[CaptionResult, ...]

    @property
    def images(self) -> tuple[GeneratedImage, ...]:
        """Every kept picture, caption after caption, best first within each."""
        return tuple(image for result in self.results for image in result.images)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How far one micro-batch of candidates is."""

    first_candidate: int
    """Index of the first candidate shown."""
    rows_done: int
    rows: int
    previews: tuple[Image.Image, ...]
    """The candidates so far, rows not yet drawn in grey; empty if they were not asked for."""
    result: CaptionResult | None = None
    """The ranked pictures; only in the last frame."""


@dataclass(frozen=True, kw_only=True)
class _Request:
    """Validated settings of one call."""

    candidates: int
    keep: int
    seed: int
    sampling: SamplingConfig


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A caption ready for the transformer."""

    caption: str
    text_ids: Tensor
    """Shape (t), int64."""
    notice: str | None


class TextToImage:
    """A text-to-image model: tokenizer, joint transformer and dVAE.

    Example:
        >>> model = TextToImage.from_pretrained("emoji")
        >>> best = model.generate("a fox on a blue background", candidates=16).images[0]
        >>> best.image.save("fox.png")
    """

    def __init__(self, parts: ModelParts, *, device: Device = "auto") -> None:
        """Wrap loaded parts; most callers want `from_pretrained`."""
        self.device = choose_device(device)
        self._transformer = parts.transformer.to(self.device).eval()
        self._vae = parts.vae.to(self.device).eval()
        self._tokenizer = parts.tokenizer
        self.sampling = parts.sampling
        """The sampling settings that the model's makers recommend."""
        self.fingerprint = parts.fingerprint
        """Identifies the model's files; stored in every picture."""

    @classmethod
    def from_pretrained(cls, model: str | Path = "emoji", *, device: Device = "auto") -> TextToImage:
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
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
    ) -> Generation:
        """Pictures for one caption or several, the best first.

        Args:
            captions: What to draw.
            candidates: Pictures drawn for each caption, at least 1.
            keep: Best pictures returned for each caption; None returns all candidates, ranked.
            seed: Candidate i of a caption depends on (caption, seed, i) and the sampling
                settings, not on the other captions.
            temperature: 0 (greedy) to 100; None takes the model's own.
            top_k: Keep only this many likeliest tokens; None takes the model's own.
            top_p: Keep the likeliest tokens that hold this mass; None takes the model's own.
            guidance_scale: null + scale * (conditional - null); None takes the model's own.

        Raises:
            TypeError: A caption is not a string.
            ValueError: A caption is empty or too long, or a setting is out of range.
        """
        request = self._request(
            candidates=candidates, keep=keep, seed=seed,
            temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance_scale,
        )  # fmt: skip
        listed = [captions] if isinstance(captions, str) else captions
        prepared = [self._prepare(caption) for caption in listed]
        results = [self._finish([one], request, captions_together=1)[0] for one in prepared]
        return Generation(results=tuple(results))

    def generate_many(
        self,
        captions: Iterable[str],
        *,
        candidates: int = 1,
        keep: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
    ) -> Iterator[CaptionResult | CaptionFailure]:
        """Pictures for any number of captions, in order, in bounded memory.

        Captions with few candidates are decoded together. One that cannot be drawn yields a
        `CaptionFailure` and leaves the others as they are. Arguments are as in `generate`, and
        are checked at the call rather than at the first result.

        Raises:
            ValueError: A setting is out of range.
        """
        request = self._request(
            candidates=candidates, keep=keep, seed=seed,
            temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance_scale,
        )  # fmt: skip
        return self._generate_many(captions, request)

    def stream(
        self,
        caption: str,
        *,
        candidates: int = 16,
        keep: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
        previews: bool = True,
    ) -> Iterator[Frame]:
        """Watch a caption being drawn: a frame for every row of the grid, the last with the result.

        The pictures are those of `generate` with the same arguments. Without `previews` no time
        is spent on decoding unfinished pictures. Closing the iterator stops the work and frees
        its memory.

        Raises:
            TypeError: The caption is not a string.
            ValueError: The caption is empty or too long, or a setting is out of range.
        """
        request = self._request(
            candidates=candidates, keep=keep, seed=seed,
            temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance_scale,
        )  # fmt: skip
        return self._stream(self._prepare(caption), request, previews=previews)

    def redraw(self, recipe: Recipe) -> GeneratedImage:
        """The picture that `recipe` describes, the same to the last pixel on the same machine.

        Raises:
            DalleError: The recipe belongs to another model.
            ValueError: The recipe's caption or settings are out of range.
        """
        if recipe.model != self.fingerprint:
            raise DalleError(
                f"the picture was drawn by model {recipe.model}, but this one is "
                f"{self.fingerprint}; load the model it was drawn with"
            )
        together, chunk = recipe.batch
        check_counts(candidates=max(chunk, together), keep=1)
        prepared = self._prepare(recipe.caption)
        first = recipe.index - recipe.index % chunk
        *_, drawn = self._draw(
            [prepared] * together, range(first, first + chunk), recipe.seed, recipe.sampling
        )
        request = _Request(
            candidates=chunk, keep=chunk, seed=recipe.seed, sampling=recipe.sampling
        )
        images = self._images(prepared, drawn, 0, range(first, first + chunk), request, together)
        return images[recipe.index - first]

    # -------------------------------------------------------------------------- inner workings

    def _request(
        self, *, candidates: int, keep: int | None, seed: int, **sampling: float | None
    ) -> _Request:
        kept = candidates if keep is None else keep
        check_counts(candidates=candidates, keep=kept)
        if not isinstance(seed, int) or not abs(seed) < 1 << 63:
            raise ValueError(f"seed must be a whole number below 2^63 in size, got {seed!r}")
        return _Request(
            candidates=candidates,
            keep=kept,
            seed=seed,
            sampling=override_sampling(self.sampling, **sampling),
        )

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

    def _draw(
        self, captions: Sequence[_Prepared], indices: range, seed: int, sampling: SamplingConfig
    ) -> Iterator[Drawn]:
        text_ids = torch.stack([caption.text_ids for caption in captions])  # c t
        return sample_tokens(
            self._transformer, text_ids, candidates=indices, seed=seed, sampling=sampling
        )

    def _finish(
        self, captions: Sequence[_Prepared], request: _Request, *, captions_together: int
    ) -> list[CaptionResult]:
        """Draw and rank `captions`, decoded together with copies of the last if too few."""
        padding = [captions[-1]] * (captions_together - len(captions))
        found: list[list[GeneratedImage]] = [[] for _ in captions]
        for indices in _chunks(request.candidates):
            *_, drawn = self._draw([*captions, *padding], indices, request.seed, request.sampling)
            for number, caption in enumerate(captions):
                found[number] += self._images(
                    caption, drawn, number, indices, request, captions_together
                )
        return [
            _ranked(caption, images[: request.candidates], request.keep)
            for caption, images in zip(captions, found, strict=True)
        ]

    def _images(
        self, caption: _Prepared, drawn: Drawn, row: int, indices: range, request: _Request,
        captions_together: int,
    ) -> list[GeneratedImage]:  # fmt: skip
        """Finished pictures of caption number `row` of what was drawn."""
        grids = self._grids(drawn.tokens[row])
        likelihoods = drawn.log_probability[row].tolist()
        return [
            GeneratedImage(
                image=image,
                tokens=grid,
                log_likelihood=likelihood,
                score=likelihood,
                ranker="likelihood",
                recipe=Recipe(
                    caption=caption.caption,
                    seed=request.seed,
                    index=index,
                    sampling=request.sampling,
                    batch=(captions_together, len(indices)),
                    model=self.fingerprint,
                ),
            )
            for image, grid, likelihood, index in zip(
                self._pictures(grids), grids.cpu().numpy(), likelihoods, indices, strict=True
            )
        ]

    def _generate_many(
        self, captions: Iterable[str], request: _Request
    ) -> Iterator[CaptionResult | CaptionFailure]:
        together = max(1, MICROBATCH // min(request.candidates, MICROBATCH))
        waiting: list[_Prepared | CaptionFailure] = []
        ready = 0
        for caption in captions:
            try:
                waiting.append(self._prepare(caption))
                ready += 1
            except (TypeError, ValueError) as err:
                waiting.append(CaptionFailure(caption=caption, error=str(err)))
            if ready == together or len(waiting) >= 4 * together:
                yield from self._settle(waiting, request, together)
                waiting, ready = [], 0
        yield from self._settle(waiting, request, together)

    def _settle(
        self, waiting: Sequence[_Prepared | CaptionFailure], request: _Request, together: int
    ) -> Iterator[CaptionResult | CaptionFailure]:
        """Results of `waiting`, failures in their places."""
        prepared = [entry for entry in waiting if isinstance(entry, _Prepared)]
        drawn = self._finish(prepared, request, captions_together=together) if prepared else []
        results = iter(drawn)
        for entry in waiting:
            yield entry if isinstance(entry, CaptionFailure) else next(results)

    def _stream(
        self, caption: _Prepared, request: _Request, *, previews: bool
    ) -> Iterator[Frame]:
        images: list[GeneratedImage] = []
        rows = self._transformer.sequence.grid_h
        for indices in _chunks(request.candidates):
            shown = min(len(indices), request.candidates - indices.start)
            for drawn in self._draw([caption], indices, request.seed, request.sampling):
                result = None
                if drawn.rows_done == rows:
                    images += self._images(caption, drawn, 0, indices, request, 1)
                    if indices.stop >= request.candidates:
                        result = _ranked(caption, images[: request.candidates], request.keep)
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


def _chunks(candidates: int) -> list[range]:
    """Candidate indices in micro-batches of one size; the last may reach past the count.

    Drawing a few too many keeps every product the same size, hence every picture the same
    whatever the number of candidates beyond a micro-batch.
    """
    size = min(candidates, MICROBATCH)
    return [range(start, start + size) for start in range(0, candidates, size)]


def _ranked(caption: _Prepared, images: Sequence[GeneratedImage], keep: int) -> CaptionResult:
    order = rank([image.score for image in images])[:keep]
    return CaptionResult(
        caption=caption.caption,
        images=tuple(images[index] for index in order),
        notice=caption.notice,
    )
