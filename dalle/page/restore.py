"""The settings in a picture that somebody drops on the page."""

from __future__ import annotations

from dalle.page.faults import PageFault
from dalle.page.limits import Limits
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
    content = read_upload_bytes(path, limits, what="picture")
    try:
        recipe = read_recipe(content)
    except ValueError as err:
        raise PageFault(str(err)) from err
    if recipe.caption or not recipe.prompt:  # the null caption needs a picture to go on from
        check_caption(recipe.caption, limits)
    return recipe


def settings_of(recipe: Recipe, *, model: str = "emoji") -> DrawSettings:
    """Settings with which the page draws the picture of `recipe` again, among others.

    The number of candidates is the smallest that has this picture among them, rounded alike.
    Pictures that went on from another one (`recipe.prompt`) need that one as well.
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
