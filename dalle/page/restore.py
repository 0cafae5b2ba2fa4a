"""The settings in a picture that somebody drops on the page."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """The rows that an earlier picture went on from, to go on from again."""

    recipe: Recipe
    """Holds their tokens."""
    file: str
    """Name of that picture's file; the rows are its first, so code to copy takes them from it."""
    rows: int
    """How many, at least 1."""

    def task(self, settings: DrawSettings) -> Task:
        """Draw `settings` below these rows.

        Raises:
            PageFault: The caption is blank, where that picture has one: there is no command that
                draws its rows without it.
        """
        if settings.caption is None and self.recipe.caption:
            raise PageFault("a caption must not be empty; write what to draw, such as 'a fox'")
        settings = replace(settings, vary=self.file, keep_rows=self.rows, own_caption=True)
        return Task(settings=settings, begun=self.recipe)


def begun_by(recipe: Recipe, facts: ModelFacts, *, file: str) -> Begun | None:
    """What the picture of `recipe` went on from; None if it was drawn as a whole.

    Raises:
        PageFault: Its rows do not fit the model.
    """
    try:
        rows = recipe.kept_rows(facts.grid, codes=facts.codebook_size)
    except ValueError as err:
        raise PageFault(f"the picture's settings do not fit this model: {err}") from err
    return Begun(recipe=recipe, file=file, rows=rows) if rows else None


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
