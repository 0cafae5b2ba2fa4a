"""Captions in, pictures out: load a model once, draw with it as often as wanted.

A `TextToImage` keeps nothing between calls, so one may serve many threads.
Axes: c captions, g candidates of a caption, t caption tokens, h w grid rows and columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

from dalle.caption_sampling import CaptionSampler
from dalle.checkpoint import ModelParts, load_model
from dalle.clip import ClipScorer
from dalle.config import Device, Dtype, SamplingOptions
from dalle.data.order import in_groups, until_they_fail
from dalle.device import choose_device
from dalle.drawing import Drawer, ImagePrompt, Picture, Prepared
from dalle.folders import model_folder
from dalle.image_prompt import Region
from dalle.picture import GeneratedImage, Recipe
from dalle.ranked import in_order, named_ranker, ranked, ranker_of
from dalle.request import DrawOptions, ImageOptions, Request, check_request, listed, split_options
from dalle.rerank import ClipRanker, LikelihoodRanker, Ranker, RankerName, find_clip_ranker
from dalle.results import CaptionFailure, CaptionResult, Frame, Generation, Painter


class TextToImage:
    """A text-to-image model: tokenizer, joint transformer and dVAE.

    Example:
        >>> model = TextToImage.from_pretrained("emoji")
        >>> best = model.generate("a fox on a blue background", candidates=16).images[0]
        >>> best.image.save("fox.png")
    """

    def __init__(
        self,
        parts: ModelParts,
        *,
        ranker: Ranker | None = None,
        device: Device = "auto",
        dtype: Dtype = "auto",
        compile: bool = False,
    ) -> None:
        """Wrap loaded parts; most callers want `from_pretrained`.

        Args:
            parts: What `dalle.checkpoint.load_model` returns.
            ranker: What candidates are ordered by unless a call says otherwise; None takes the
                likelihood of their tokens.
            device: Where to draw.
            dtype: Type of the transformer's weights while it draws; see `from_pretrained`.
            compile: Compile the decode step if nobody has; see `from_pretrained`.

        Raises:
            ValueError: `device` is cuda and there is no usable GPU.
            DalleError: The decode step cannot be compiled.
        """
        self.device = choose_device(device)
        self._drawer = Drawer(parts, self.device)
        self._engine = self._drawer.engines.preferred(dtype, compile=compile)
        self.ranker: Ranker = ranker or LikelihoodRanker()
        """What candidates are ordered by unless a call says otherwise."""
        self.sampling = parts.sampling
        """The sampling settings that the model's makers recommend."""
        self.fingerprint = parts.fingerprint
        """Identifies the model's files; stored in every picture."""
        self.image_tokenizer = self._drawer.image_tokenizer
        """Pictures to tokens and back, as the model sees them."""
        self.captions = CaptionSampler(parts.transformer, parts.tokenizer, self.device)
        """Captions that the model would write itself."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "emoji",
        *,
        clip: str | Path | None = None,
        require_clip: bool = False,
        device: Device = "auto",
        dtype: Dtype = "auto",
        compile: bool = False,
    ) -> TextToImage:
        """A bundled model by name, or the model in a folder; works offline.

        Candidates are ordered by a CLIP: the one given, or the one that comes with the model.
        Where one was asked for and cannot be had, a warning says so and they stay as drawn; where
        the model has none, they are ordered by likelihood.

        Args:
            model: Name or folder.
            clip: Folder of a CLIP that `dalle train clip` made, or one of open_clip's models as
                `dalle.clip.published_clip_scorer` reads them; None takes the model's own.
            require_clip: Raise rather than go on without a CLIP.
            device: Where to draw.
            dtype: Type of the transformer's weights while it draws: `fp32`, `bf16`, `int8`, or
                `auto`, the fastest that loses nothing worth the name.
            compile: On a CPU, compile the decode step for this machine if nobody has: some seconds,
                once. Where that has been done it is used, asked for or not. On a GPU, have torch
                compile it: some tens of seconds, in every process anew.

        Raises:
            ModelFormatError: There is no such model or CLIP, or its files are damaged.
            ClipUnavailableError: `require_clip`, and there is none.
            ValueError: There is no such CLIP, or `device` is cuda and there is no usable GPU.
            DalleError: The decode step cannot be compiled.
        """
        folder = model_folder(model)
        parts = load_model(folder)
        ranker = find_clip_ranker(
            folder, clip=clip, required=require_clip, device=choose_device(device)
        )
        return cls(parts, ranker=ranker, device=device, dtype=dtype, compile=compile)

    @property
    def image_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self._drawer.image_px

    @property
    def clip(self) -> ClipScorer | None:
        """The CLIP that ranks, or None if there is none.

        Raises:
            DalleError: It cannot be loaded.
        """
        return self.ranker.scorer() if isinstance(self.ranker, ClipRanker) else None

    def frames(self, candidates: int, prompt: ImagePrompt | None = None) -> int:
        """How many frames a `stream` of so many candidates, at least one, has."""
        return len(self._engine.microbatches(candidates)) * self._drawer.rows_left(prompt)

    def generate(
        self,
        captions: str | Sequence[str] | None,
        *,
        image: Picture | ImagePrompt | None = None,
        candidates: int = 16,
        keep: int | None = None,
        seed: int = 0,
        ranker: RankerName | None = None,
        **options: Unpack[DrawOptions],
    ) -> Generation:
        """Pictures for one caption or several: a result each, in their order, the best first.

        Args:
            captions: What to draw; None is the null caption, which says nothing.
            image: A picture to go on from: its upper rows, or all of it but a region, are kept, the
                rest is drawn.
            candidates: Pictures drawn for each caption, at least 1.
            keep: Best pictures returned for each caption; None returns all candidates, ranked.
            seed: A picture depends on its caption, this, its candidate index and the sampling
                settings, not on the other captions.
            ranker: What orders the candidates: `clip`, `likelihood` or `none`; None takes the
                model's own choice.
            **options: Each sampling setting left out, or None, is the model's own.
                `temperature`: 0 (greedy) to 100, divides the logits;
                `top_k`: keep only so many likeliest tokens, 0 keeps all;
                `top_p`: keep the fewest tokens that hold this mass, over 0 and at most 1;
                `guidance_scale`: null + scale * (conditional - null), 0 to 100, 1 is off;
                with `image` also, as `dalle.image_prompt.prepare` reads them,
                `keep_rows`: a fraction of the height or a number of token rows (default 0.5);
                `layout`: `top-half` (default) or `place-on-top`;
                `crop`: `center` (default), `top` or `pad`;
                `region`: left, top, right and bottom of what is drawn, each from 0 to 1, instead of
                all below `keep_rows`.

        Raises:
            TypeError: A caption is not a string, or a setting is of another type or unknown.
            ValueError: A caption is empty or too long, a setting is out of range, or there is no
                CLIP to rank by.
            DataError: The picture cannot be read.
        """
        sampling, image_options = split_options(options)
        request = self._request(candidates, keep, seed=seed, ranker=ranker, sampling=sampling)
        request.ranker.prepare()
        prompt = self._drawer.prompt(image, image_options)
        wanted = None if captions is None else listed(captions)
        prepared = self._drawer.prepare_all(wanted, prompt)
        # By torch a caption is drawn alone, or its pictures would depend on how many others come.
        together = self._engine.together(candidates) if self._engine.independent else 1
        results = [
            result
            for few in in_groups(prepared, together)
            for result in self._finish(tuple(few), request, together=together)
        ]
        return Generation(results=tuple(results))

    def generate_many(
        self,
        captions: Iterable[str],
        *,
        candidates: int = 1,
        keep: int | None = None,
        seed: int = 0,
        ranker: RankerName | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[CaptionResult | CaptionFailure]:
        """Pictures for any number of captions, in order, in bounded memory.

        Captions with few candidates are decoded together, up to 64. One that cannot be drawn yields
        a `CaptionFailure` and leaves the others as they are; where `captions` itself raises, that
        comes after the results of those before. Arguments are as in `generate`, and the settings
        are checked at the call rather than at the first result.

        Raises:
            TypeError: A setting is of another type or unknown.
            ValueError: A setting is out of range.
        """
        request = self._request(candidates, keep, seed=seed, ranker=ranker, sampling=sampling)
        request.ranker.prepare()
        return self._generate_many(listed(captions), request)

    def stream(
        self,
        caption: str | None,
        *,
        image: Picture | ImagePrompt | None = None,
        candidates: int = 16,
        keep: int | None = None,
        seed: int = 0,
        ranker: RankerName | None = None,
        **options: Unpack[DrawOptions],
    ) -> Iterator[Frame]:
        """Watch a caption being drawn: a frame for every row drawn, the last with the result.

        Pictures are those of `generate`; unfinished ones are decoded only where previews are looked
        at. Closing the iterator stops the work and frees its memory.

        Raises:
            TypeError: The caption is not a string, or a setting is of another type or unknown.
            ValueError: The caption is empty or too long, or a setting is out of range.
            DataError: The picture cannot be read.
        """
        sampling, image_options = split_options(options)
        request = self._request(candidates, keep, seed=seed, ranker=ranker, sampling=sampling)
        prepared = self._drawer.prepare_any(caption, self._drawer.prompt(image, image_options))
        return self._stream(prepared, request)

    def read_image(self, picture: Picture, **options: Unpack[ImageOptions]) -> ImagePrompt:
        """What is kept of a given picture, to go on from as `image`: read once, used often.

        Args:
            picture: PNG, JPEG or WebP, or a picture that Pillow holds.
            **options: `keep_rows`, `layout`, `crop` and `region`, as in `generate`.

        Raises:
            DataError: The picture cannot be read.
            TypeError, ValueError: A setting is of another type, out of range, or excludes another.
        """
        return self._drawer.read_image(picture, **options)

    def first_rows(self, picture: GeneratedImage, keep_rows: float | int = 0.5) -> ImagePrompt:
        """The upper rows of a picture that this model drew, to go on from as `image`.

        Its tokens are taken as they are, where a picture from elsewhere passes through the dVAE.

        Raises:
            TypeError, ValueError: `keep_rows` is no number, or out of range.
            DalleError: Another model drew the picture.
        """
        return self._drawer.first_rows(picture, keep_rows)

    def all_but(self, picture: GeneratedImage, region: Region) -> ImagePrompt:
        """A picture that this model drew, its tokens as they are, but for a region to draw anew.

        Raises:
            TypeError, ValueError: `region` is not four numbers, or out of range.
            DalleError: Another model drew the picture.
        """
        return self._drawer.all_but(picture, region)

    def given_rows(self, recipe: Recipe) -> ImagePrompt:
        """What the picture of `recipe` went on from, to go on from again as `image`.

        The recipe holds the tokens, so the picture that they came from is not needed.

        Raises:
            DalleError: The recipe belongs to another model.
            ValueError: They do not fit the model.
        """
        return self._drawer.given_rows(recipe)

    def redraw(self, recipe: Recipe, *, ranker: RankerName | None = None) -> GeneratedImage:
        """The picture that `recipe` describes, to the last pixel if as many threads draw it.

        Args:
            recipe: What an earlier picture was drawn by.
            ranker: What scores it; None takes the model's own choice. Where it fails, the picture
                stays without a score.

        Raises:
            DalleError: The recipe belongs to another model.
            ValueError: The recipe's caption cannot be drawn, its image prompt does not fit, or
                there is no CLIP to score by.
        """
        scoring = ranker_of(recipe.caption, named_ranker(ranker, self.ranker))
        scoring.prepare()
        (picture,) = in_order(recipe.caption, [self._drawer.redraw(recipe)], scoring).images
        return picture

    def _request(
        self,
        candidates: int,
        keep: int | None,
        *,
        seed: int,
        ranker: RankerName | None,
        sampling: SamplingOptions,
    ) -> Request:
        request = check_request(
            candidates, keep, seed=seed, default=self.sampling, options=sampling
        )
        return replace(request, ranker=named_ranker(ranker, self.ranker))

    def _finish(
        self, captions: tuple[Prepared, ...], request: Request, *, together: int
    ) -> list[CaptionResult]:
        """Draw and rank `captions`, beside copies of the last if they are fewer than `together`."""
        missing = 0 if self._engine.independent else together - len(captions)
        padded = captions + captions[-1:] * missing
        found: list[list[GeneratedImage]] = [[] for _ in captions]
        for batch in self._drawer.batches(padded, request, self._engine):
            *_, drawn = self._drawer.draw(batch)
            for row, images in enumerate(found):
                images += self._drawer.images(batch, drawn, row=row)
        return [
            ranked(caption, images, request)
            for caption, images in zip(captions, found, strict=True)
        ]

    def _generate_many(
        self, captions: Iterable[str], request: Request
    ) -> Iterator[CaptionResult | CaptionFailure]:
        together = self._engine.together(request.candidates)
        waiting: list[Prepared | CaptionFailure] = []
        ready = 0
        failed: list[Exception] = []
        for caption in until_they_fail(captions, failed):
            try:
                waiting.append(self._drawer.prepare(caption))
                ready += 1
            except (TypeError, ValueError) as err:
                waiting.append(CaptionFailure(caption=caption, error=str(err)))
            if ready == together or len(waiting) == 4 * together:
                yield from self._settle(waiting, request, together)
                waiting, ready = [], 0
        yield from self._settle(waiting, request, together)
        for error in failed:
            raise error

    def _settle(
        self, waiting: Sequence[Prepared | CaptionFailure], request: Request, together: int
    ) -> Iterator[CaptionResult | CaptionFailure]:
        """Results of `waiting`, failures in their places."""
        prepared = tuple(entry for entry in waiting if isinstance(entry, Prepared))
        results = iter(self._finish(prepared, request, together=together) if prepared else ())
        for entry in waiting:
            yield entry if isinstance(entry, CaptionFailure) else next(results)

    def _stream(self, caption: Prepared, request: Request) -> Iterator[Frame]:
        with contextlib.closing(self._frames(caption, request)) as frames:
            for number, frame in enumerate(frames):
                yield frame
                if number == 0:  # not sooner, so that somebody sees something first
                    request.ranker.prepare()

    def _frames(self, caption: Prepared, request: Request) -> Generator[Frame, None, None]:
        images: list[GeneratedImage] = []
        rows = self._drawer.rows
        for batch in self._drawer.batches((caption,), request, self._engine):
            start = batch.indices.start
            shown = min(len(batch.indices), request.candidates - start)
            unfinished = self._drawer.previews(caption)
            for drawn in self._drawer.draw(batch):
                paint: Painter = partial(unfinished.after, drawn.tokens[0, :shown])
                result = None
                if drawn.rows_done == rows:
                    finished = self._drawer.images(batch, drawn, row=0)
                    images += finished
                    paint = tuple(image.image for image in finished[:shown]).__getitem__
                    if batch.indices.stop >= request.candidates:
                        result = ranked(caption, images, request)
                yield Frame(
                    first_candidate=start,
                    rows_done=drawn.rows_done,
                    rows=rows,
                    paint=paint,
                    notice=caption.notice,
                    finished=tuple(images[: request.candidates]),
                    result=result,
                )
