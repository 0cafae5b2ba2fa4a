"""Candidates of a caption, drawn: caption to tokens, tokens to pictures, in batches of fixed size.

Axes: c captions, g candidates of a caption, t caption tokens, h w grid rows and columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import ModelParts
from dalle.config import SamplingConfig
from dalle.engine import Engine, Engines
from dalle.errors import DalleError
from dalle.given_picture import enough_px, read_picture, reduced
from dalle.ground import Box
from dalle.image_prompt import CropMode, Layout, Region, prepare, region_cells
from dalle.image_prompt import keep_rows as rows_to_keep
from dalle.image_tokenizer import ImageTokenizer
from dalle.model_config import TO_DRAW
from dalle.picture import GeneratedImage, Recipe
from dalle.previews import UNDRAWN, Previews, undrawn
from dalle.prompts import check_prompt
from dalle.request import ImageOptions, Request
from dalle.results import PromptShown
from dalle.sampling import Drawn, sample_tokens
from dalle.sequence import fit_caption, kept_first, null_caption

log = logging.getLogger(__name__)
"""Quotes captions, so the web page silences it."""

Picture = Image.Image | bytes | Path | str
"""A picture that a person gives: in memory, as a file's content, or as its path."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePrompt:
    """What is kept of a picture, as tokens that stay exactly as they are."""

    tokens: Tensor
    """Shape (r), int64, raster order: whole rows from the top, or the whole grid with `TO_DRAW` in
    the place of each token that is to be drawn."""
    shown: PromptShown | None = None
    """What became of the given picture; None where it was one of the model's own."""


def without(grid: Tensor, cells: Box) -> Tensor:
    """A token grid, shape (h, w), of which the tokens in `cells` are to be drawn."""
    left, top, right, bottom = cells
    grid = grid.clone()
    grid[top:bottom, left:right] = TO_DRAW
    return grid


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A caption and an image prompt, ready for the transformer."""

    caption: str
    """Empty for the null caption."""
    text_ids: Tensor
    """Shape (t), int64."""
    image_tokens: Tensor
    """Shape (r), int64: the image prompt."""
    notice: str | None
    shown: PromptShown | None


@dataclass(frozen=True, kw_only=True)
class DrawBatch:
    """What is decoded together: the same candidates of every caption."""

    captions: tuple[Prepared, ...]
    indices: range
    """Candidate indices."""
    seed: int
    sampling: SamplingConfig
    engine: Engine


class Drawer:
    """A model's parts at work; keeps nothing between calls."""

    def __init__(self, parts: ModelParts, device: torch.device) -> None:
        """Move `parts` to `device`."""
        self.device = device
        self.transformer = parts.transformer.to(device).eval()
        self.vae = parts.vae.to(device).eval()
        self.tokenizer: CaptionTokenizer = parts.tokenizer
        self.fingerprint = parts.fingerprint
        self.engines = Engines(self.transformer, device)
        sequence = self.transformer.sequence
        self.image_tokenizer = ImageTokenizer(self.vae, (sequence.grid_h, sequence.grid_w), device)

    @property
    def image_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.image_tokenizer.image_px

    @property
    def rows(self) -> int:
        """Rows of the token grid."""
        return self.transformer.sequence.grid_h

    def rows_left(self, prompt: ImagePrompt | None) -> int:
        """Rows of the grid from the first that `prompt` does not keep as a whole."""
        kept = 0 if prompt is None else kept_first(prompt.tokens)
        return self.rows - kept // self.transformer.sequence.grid_w

    def read_image(
        self,
        picture: Picture,
        *,
        keep_rows: float | int | None = None,
        layout: Layout = "top-half",
        crop: CropMode = "center",
        region: Region | None = None,
    ) -> ImagePrompt:
        """The tokens of what is kept of a given picture; see `dalle.image_prompt.prepare`.

        Raises:
            DataError: The picture cannot be read.
            TypeError: It is none, or `keep_rows` or `region` no numbers.
            ValueError: A setting is out of range, or two of them exclude each other.
        """
        if region is not None and keep_rows is not None:
            raise ValueError(
                f"keep_rows {keep_rows} and region {region} both say what is drawn; give one"
            )
        prepared = prepare(
            reduced(read_picture(picture), enough_px(self.image_px)),
            image_px=self.image_px,
            layout=layout,
            crop=crop,
            rows=keep_rows,
            stride=self.vae.config.stride,
            region=region,
        )
        grid = self.image_tokenizer.encode(prepared.whole)  # h w
        if prepared.region is None:
            grid = grid[: prepared.rows]
        seen = prepared.image  # with no rows kept there is nothing to see
        if len(grid):
            (upper,) = self.image_tokenizer.decode(rearrange(grid, "h w -> 1 h w"))
            seen = undrawn(self.image_px)
            seen.paste(upper, (0, 0))
            if prepared.region is not None:
                seen.paste(UNDRAWN, prepared.drawn_box)
                grid = without(grid, prepared.region)
        shown = PromptShown(
            image=prepared.image,
            seen=seen,
            rows=prepared.rows,
            rows_in_all=self.rows,
            outline=prepared.outline,
            region=None if prepared.region is None else prepared.drawn_box,
            notes=prepared.notes,
            whole=prepared.whole if layout == "top-half" else None,
        )
        return ImagePrompt(tokens=rearrange(grid, "h w -> (h w)"), shown=shown)

    def prompt(
        self, image: Picture | ImagePrompt | None, options: ImageOptions
    ) -> ImagePrompt | None:
        """The image prompt that a call asks for; how to read it is refused where nothing is read.

        Raises:
            DataError: The picture cannot be read.
            TypeError: It is none, or `keep_rows` no number.
            ValueError: A setting is out of range, or there is no picture to read by it.
        """
        if image is not None and not isinstance(image, ImagePrompt):
            return self.read_image(image, **options)
        if options:
            why, remedy = "none was given", "pass image=..."
            if image is not None:
                why, remedy = "this one has been read already", "pass them to read_image"
            names = ", ".join(options)
            raise ValueError(
                f"{names}: that is how a given picture is read, and {why}; {remedy}, or leave "
                f"{'it' if len(options) == 1 else 'them'} out"
            )
        return image

    def prepare_all(
        self, captions: Iterable[str] | None, prompt: ImagePrompt | None
    ) -> list[Prepared]:
        """Each of `captions` as `prepare` makes it; None is one null caption.

        Raises:
            TypeError: One is not a string.
            ValueError: One cannot be drawn.
        """
        if captions is None:
            return [self.prepare_any(None, prompt)]
        return [self.prepare(caption, prompt) for caption in captions]

    def prepare_any(self, caption: str | None, prompt: ImagePrompt | None) -> Prepared:
        """As `prepare`, but None is the null caption, which says nothing."""
        if caption is None:
            null = null_caption(self.transformer.sequence)
            return self._prepared("", null, prompt, notice=None)
        return self.prepare(caption, prompt)

    def prepare(self, caption: str, prompt: ImagePrompt | None = None) -> Prepared:
        """`caption` as the transformer reads it, cut if it is too long.

        Raises:
            TypeError: It is not a string.
            ValueError: It cannot be drawn.
        """
        sequence = self.transformer.sequence
        text = check_prompt(caption)
        text_ids, was_cut = fit_caption(self.tokenizer.encode(text), self.tokenizer, sequence)
        notice = None
        if was_cut:
            used = self.tokenizer.decode(text_ids[text_ids < sequence.text_vocab].tolist())
            notice = f"only the first {sequence.text_len} tokens of the caption are used: {used!r}"
            log.warning("%s", notice)
        return self._prepared(caption, text_ids, prompt, notice=notice)

    def _prepared(
        self, caption: str, text_ids: Tensor, prompt: ImagePrompt | None, *, notice: str | None
    ) -> Prepared:
        image_tokens = torch.empty(0, dtype=torch.int64) if prompt is None else prompt.tokens
        return Prepared(
            caption=caption,
            text_ids=text_ids.to(self.device),
            image_tokens=image_tokens.to(self.device),
            notice=notice,
            shown=None if prompt is None else prompt.shown,
        )

    def batches(
        self, captions: tuple[Prepared, ...], request: Request, engine: Engine
    ) -> Iterator[DrawBatch]:
        """What is decoded at once, one after another, until `captions` have their candidates."""
        for indices in engine.microbatches(request.candidates):
            yield DrawBatch(
                captions=captions,
                indices=indices,
                seed=request.seed,
                sampling=request.sampling,
                engine=engine,
            )

    def draw(self, batch: DrawBatch) -> Iterator[Drawn]:
        """The tokens of `batch`, row after row; its image prompts leave the same places to draw."""
        return sample_tokens(
            batch.engine.decoder,
            torch.stack([caption.text_ids for caption in batch.captions]),  # c t
            candidates=batch.indices,
            seed=batch.seed,
            sampling=batch.sampling,
            image_prompt=torch.stack([caption.image_tokens for caption in batch.captions]),  # c r
            chooser=batch.engine.chooser,
        )

    def redraw(self, recipe: Recipe) -> GeneratedImage:
        """The picture that `recipe` describes, not yet scored.

        Raises:
            DalleError: The recipe belongs to another model or another kind of device.
            ValueError: The recipe's caption cannot be drawn, or its image prompt does not fit.
        """
        prompt = self.given_rows(recipe)
        if recipe.device != self.device.type:
            raise DalleError(
                f"the picture was drawn on {recipe.device}, whose random numbers are not those of "
                f"{self.device.type}; draw it again on {recipe.device} (--device {recipe.device})"
            )
        engine = self.engines.exactly(recipe.dtype, compiled=recipe.compiled)
        # Where nothing beside a picture sways it, it is drawn alone.
        together, size = (1, 1) if engine.independent else recipe.batch
        start = recipe.index - recipe.index % size
        batch = DrawBatch(
            captions=(self.prepare_any(recipe.caption or None, prompt),) * together,
            indices=range(start, start + size),
            seed=recipe.seed,
            sampling=recipe.sampling,
            engine=engine,
        )
        *_, drawn = self.draw(batch)
        picture = self.images(batch, drawn, row=0)[recipe.index - start]
        return replace(picture, recipe=replace(picture.recipe, batch=recipe.batch))

    def first_rows(self, picture: GeneratedImage, keep_rows: float | int) -> ImagePrompt:
        """The upper rows of a picture that this model drew, their tokens as they are.

        Raises:
            TypeError: `keep_rows` is no number.
            ValueError: It is out of range.
            DalleError: Another model drew the picture.
        """
        self.check_ours(picture.recipe)
        rows = rows_to_keep(keep_rows, grid_h=self.rows)
        return ImagePrompt(tokens=torch.from_numpy(picture.tokens[:rows].reshape(-1)))  # (h w)

    def all_but(self, picture: GeneratedImage, region: Region) -> ImagePrompt:
        """A picture that this model drew but for a region, its tokens as they are.

        Raises:
            TypeError: `region` is not four numbers.
            ValueError: It is out of range.
            DalleError: Another model drew the picture.
        """
        self.check_ours(picture.recipe)
        cells = region_cells(region, grid=self.image_tokenizer.grid)
        grid = without(torch.from_numpy(picture.tokens), cells)
        return ImagePrompt(tokens=rearrange(grid, "h w -> (h w)"))

    def given_rows(self, recipe: Recipe) -> ImagePrompt:
        """What the picture of `recipe` went on from; nothing if it was drawn as a whole.

        Raises:
            DalleError: The recipe belongs to another model, whose tokens mean something else.
            ValueError: They do not fit the model.
        """
        self.check_ours(recipe)
        sequence = self.transformer.sequence
        recipe.drawn_cells((sequence.grid_h, sequence.grid_w), codes=sequence.image_vocab)
        return ImagePrompt(tokens=torch.tensor(recipe.prompt, dtype=torch.int64))

    def check_ours(self, recipe: Recipe) -> None:
        """Refuse the recipe of another model's picture.

        Raises:
            DalleError: It is.
        """
        if recipe.model != self.fingerprint:
            raise DalleError(
                f"the picture was drawn by model {recipe.model}, but this one is "
                f"{self.fingerprint}; load that model (--model FOLDER, or from_pretrained)"
            )

    def images(self, batch: DrawBatch, drawn: Drawn, *, row: int) -> list[GeneratedImage]:
        """Finished pictures of caption number `row` of `batch`, not yet scored."""
        grids = rearrange(drawn.tokens[row], "g (h w) -> g h w", w=self.transformer.sequence.grid_w)
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
                    # Other captions sway nothing where each is drawn as if alone.
                    batch=(
                        1 if batch.engine.independent else len(batch.captions),
                        len(batch.indices),
                    ),
                    model=self.fingerprint,
                    prompt=tuple(batch.captions[row].image_tokens.tolist()),
                    dtype=batch.engine.dtype,
                    compiled=batch.engine.compiled,
                    device=self.device.type,
                ),
            )
            for image, grid, likelihood, index in zip(
                self.image_tokenizer.decode(grids),
                grids.cpu().numpy(),
                likelihoods,
                batch.indices,
                strict=True,
            )
        ]

    def previews(self, caption: Prepared) -> Previews:
        """What shows the candidates of a batch as far as they are drawn."""
        shown = caption.shown
        around = None if shown is None or shown.region is None else shown.seen
        return Previews(self.image_tokenizer, self.device, around=around)
