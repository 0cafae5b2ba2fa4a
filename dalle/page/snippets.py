"""Settings as code that draws the same pictures: a Python program, a command line."""

from __future__ import annotations

import shlex
import unicodedata
from dataclasses import asdict

from dalle.config import WeightType
from dalle.page.settings import DrawSettings
from dalle.prompts import normalise


def as_python(settings: DrawSettings, dtype: WeightType) -> str:
    """A program that draws the pictures of `settings` and saves them in its working directory.

    Every setting is spelt out, so that another default changes nothing, and every text is a Python
    literal, whatever it holds. Given pictures are named by their file alone.

    Args:
        settings: What to draw.
        dtype: Type of the weights that drew the pictures; what a machine would choose by itself
            depends on what it has.
    """
    lines = ["from pathlib import Path", "", "from dalle import TextToImage", ""]
    lines.append(f"model = TextToImage.from_pretrained({settings.model!r}, dtype={dtype!r})")
    options = {name: repr(value) for name, value in settings.options().items()}
    if settings.image is not None:
        options = {"image": repr(settings.image), **options}
    elif settings.vary is not None:
        lines[2] = "from dalle import TextToImage, read_recipe"
        lines += [
            f"earlier = model.redraw(read_recipe(Path({settings.vary!r})))",
            f"kept = model.first_rows(earlier, {settings.keep_rows!r})"
            if settings.region is None
            else f"kept = model.all_but(earlier, {settings.region!r})",
        ]
        options = {"image": "kept", **options}
    lines += ["drawn = model.generate(", f"    {settings.caption!r},"]
    lines += [f"    {name}={value}," for name, value in options.items()]
    lines += [
        ")",
        "for place, picture in enumerate(drawn.images, start=1):",
        '    picture.save(Path(f"picture-{place}.png"))',
    ]
    return "\n".join(lines) + "\n"


def as_command_line(settings: DrawSettings, dtype: WeightType) -> str:
    """One `dalle generate` command for a POSIX shell that draws the pictures of `settings`.

    A caption with control characters, which a terminal might obey and the model does not read, is
    written as the model reads it.

    Args:
        settings: What to draw.
        dtype: Type of the weights that drew the pictures, as for `as_python`.
    """
    words = ["dalle", "generate"]
    if settings.model != "emoji":
        words.append(f"--model={settings.model}")
    words.append(f"--dtype={dtype}")
    options = {
        "candidates": settings.candidates,
        "keep": settings.keep,
        "seed": settings.seed,
        **asdict(settings.sampling),
        "top_k": settings.sampling.top_k or 0,
    }
    # With =, since the word after a flag must not begin with a dash.
    words += [f"--{name.replace('_', '-')}={value!r}" for name, value in options.items()]
    if settings.ranker is not None:
        words.append(f"--ranker={settings.ranker}")
    words += _picture_flags(settings)
    if settings.caption is not None and (settings.vary is None or settings.own_caption):
        words += ["--", _typable(settings.caption)]
    return shlex.join(words)


def _picture_flags(settings: DrawSettings) -> list[str]:
    """Flags of the picture that is gone on from, if there is one."""
    kept = [f"--keep-rows={settings.keep_rows!r}"]
    if settings.region is not None:
        kept = [f"--region={list(settings.region)}"]
    if settings.image is not None:
        return [
            f"--image={settings.image}",
            *kept,
            *([f"--prompt-layout={settings.layout}"] if settings.region is None else []),
            *([f"--crop={settings.crop}"] if settings.layout == "top-half" else []),
        ]
    if settings.vary is not None:
        return [f"--vary={settings.vary}", *kept]
    return []


def _typable(caption: str) -> str:
    """`caption` without control characters; the same to the model."""
    has_control = any(unicodedata.category(character) == "Cc" for character in caption)
    return normalise(caption) if has_control else caption
