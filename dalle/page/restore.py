"""The settings in a picture that somebody drops on the page."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dalle.image_prompt import Region
from dalle.page.facts import ModelFacts
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.service import Task
from dalle.page.settings import DrawSettings, check_caption
from dalle.page.uploads import read_upload_bytes
from dalle.picture import Recipe, read_recipe


def read_settings(path: object, limits: Limits) -> Recipe:
    """The recipe in a PNG that this page or `dalle generate` wrote; its pixels are not decoded.

    Args:
        path: Where the upload lies: an absolute path, str or Path.
        limits: The page's limits.

    Raises:
        PageFault: It is no such PNG, or its settings are too long, damaged or out of range.
    """
    content = read_upload_bytes(path, limits.upload_bytes, what="picture")
    try:
        recipe = read_recipe(content)
    except ValueError as err:
        raise PageFault(str(err)) from err
    if recipe.caption or not recipe.prompt:  # the null caption needs a picture to go on from
        check_caption(recipe.caption, limits)
    return recipe


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What an earlier picture went on from, to go on from again."""

    recipe: Recipe
    """Holds their tokens."""
    file: str
    """Name of that picture's file, which has kept it, so that code to copy takes it from there."""
    rows: int
    """Whole rows at the top."""
    region: Region | None = None
    """What was drawn, where that is not all below them."""

    def task(self, settings: DrawSettings) -> Task:
        """Draw `settings` below these rows, or in this region.

        Raises:
            PageFault: The caption is blank, where that picture has one: there is no command that
                goes on from it without.
        """
        if settings.caption is None and self.recipe.caption:
            raise PageFault("a caption must not be empty; write what to draw, such as 'a fox'")
        settings = replace(
            settings, vary=self.file, keep_rows=self.rows, region=self.region, own_caption=True
        )
        return Task(settings=settings, begun=self.recipe)


def begun_by(recipe: Recipe, facts: ModelFacts, *, file: str) -> Begun | None:
    """What the picture of `recipe` went on from; None if it was drawn as a whole.

    Raises:
        PageFault: It does not fit the model.
    """
    try:
        drawn = recipe.drawn_cells(facts.grid, codes=facts.codebook_size)
    except ValueError as err:
        raise PageFault(f"the picture's settings do not fit this model: {err}") from err
    height, width = facts.grid
    left, top, right, bottom = drawn
    region = (left / width, top / height, right / width, bottom / height)
    if drawn == (0, top, width, height):
        return Begun(recipe=recipe, file=file, rows=top) if top else None
    return Begun(recipe=recipe, file=file, rows=top, region=region)


def settings_of(recipe: Recipe, *, model: str = "emoji") -> DrawSettings:
    """Settings with which the page draws the picture of `recipe` again, among others.

    The number of candidates is the smallest that has this picture among them, rounded alike.
    What the picture went on from (`recipe.prompt`) is left out: `begun_by` has it.
    """
    _, together = recipe.batch
    candidates = max(recipe.index + 1, together)
    return DrawSettings(
        caption=recipe.caption or None,
        candidates=candidates,
        keep=candidates,
        seed=recipe.seed,
        sampling=recipe.sampling,
        model=model,
    )
