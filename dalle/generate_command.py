"""`dalle generate`: pictures as files, a contact sheet, and one JSON object on stdout."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from dalle.config import Generate
from dalle.console import bar_disabled
from dalle.errors import DalleError
from dalle.picture import GeneratedImage, Recipe, read_recipe, save_png
from dalle.pipeline import TextToImage
from dalle.results import CaptionResult
from dalle.sheets import picture_grid

SLUG_CHARS = 40
SHEET_COLUMNS = 4
SHEET_PICTURES = 256
"""A contact sheet shows the first so many pictures; more make a picture few programs open."""


def run(settings: Generate) -> int:
    """Draw, save and report; 0 when every picture is written.

    Raises:
        ModelFormatError: The model cannot be loaded.
        DalleError: A picture cannot be written, or belongs to another model.
        ValueError: A setting is out of range, or `like` is no picture of ours.
    """
    started = time.perf_counter()
    recipe = None if settings.like is None else read_recipe(settings.like)
    _check_folder(settings.out)
    model = TextToImage.from_pretrained(
        settings.model,
        clip=settings.clip,
        require_clip=settings.require_clip,
        device=settings.device,
    )
    sheet = None
    if recipe is not None:
        redrawn = CaptionResult(caption=recipe.caption, images=(model.redraw(recipe),))
        saved = [(redrawn, _save(redrawn, settings.out))]
    else:
        saved = []
        for caption in settings.captions:
            result = _draw(model, caption, settings)
            # Saved at once: whoever stops a long run keeps what is finished.
            saved.append((result, _save(result, settings.out)))
        sheet = _save_sheet(saved, settings.out)
    report = {
        "captions": [_entry(result, files) for result, files in saved],
        "model": settings.model,
        "seconds": round(time.perf_counter() - started, 3),
    }
    # ASCII reaches every pipe and terminal, whatever its encoding.
    text = json.dumps(report) + "\n" if settings.json else _summary(report, sheet)
    sys.stdout.write(text)
    return 0


def _draw(model: TextToImage, caption: str, settings: Generate) -> CaptionResult:
    """One caption's pictures, with a bar that counts rows of the token grid."""
    frames = model.stream(
        caption,
        candidates=settings.candidates,
        keep=settings.kept,
        seed=settings.seed,
        ranker=None if settings.ranker == "auto" else settings.ranker,
        previews=False,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        guidance_scale=settings.guidance_scale,
    )
    *_, last = tqdm(
        frames,
        total=model.frames(settings.candidates),
        desc=shown(caption, SLUG_CHARS),
        unit="row",
        disable=bar_disabled(),
        leave=False,
    )
    assert last.result is not None, "a stream ends with its result"
    return last.result


# -------------------------------------------------------------------------------------------- files


def _check_folder(folder: Path) -> None:
    """Find out before the work, and without a trace, whether pictures can be written."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise DalleError(
            f"output folder {folder} cannot be written ({nearest} is a file); "
            "give another with --out"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DalleError(
            f"output folder {folder} cannot be written (no permission to write into {nearest}); "
            "give another with --out"
        )


def _save(result: CaptionResult, folder: Path) -> list[Path]:
    """Write the pictures of one caption; their paths, best first."""
    files = [folder / file_name(image.recipe) for image in result.images]
    for image, path in zip(result.images, files, strict=True):
        _write(image, path)
    return files


def _write(picture: GeneratedImage | Image.Image, path: Path) -> None:
    """Write a picture with its recipe, or a plain one, into a folder that may not exist yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, GeneratedImage):
            picture.save(path)
        else:
            save_png(picture, path)
    except OSError as err:
        raise DalleError(
            f"{path} cannot be written ({err.strerror}); free some space, or give another "
            "folder with --out"
        ) from err


def file_name(recipe: Recipe) -> str:
    """A file name that only this picture has: ASCII words of its caption, a hash, seed, number.

    The hash covers caption, settings and model, so that no picture replaces a different one.
    """
    words = re.sub(r"[^a-z0-9]+", "-", recipe.caption.lower())[:SLUG_CHARS].strip("-")
    digest = _digest(repr(replace(recipe, seed=0, index=0)))
    return f"{words or 'picture'}-{digest}-s{recipe.seed}-i{recipe.index:03d}.png"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _save_sheet(saved: Sequence[tuple[CaptionResult, list[Path]]], folder: Path) -> Path:
    """The contact sheet: the pictures of the call with caption, score and seed."""
    images = [image for result, _ in saved for image in result.images][:SHEET_PICTURES]
    labels = [
        f"{shown(image.recipe.caption, 80)}\n{score_text(image.score, image.ranker)}, "
        f"seed {image.recipe.seed}, no. {image.recipe.index}"
        for image in images
    ]
    columns = min(SHEET_COLUMNS, max(len(result.images) for result, _ in saved))
    names = "\n".join(file.name for _, files in saved for file in files)
    path = folder / f"sheet-{_digest(names)}.png"
    _write(picture_grid([image.image for image in images], columns=columns, labels=labels), path)
    return path


# ------------------------------------------------------------------------------------------- report


def shown(caption: str, longest: int) -> str:
    """`caption` on one line, without characters that could steer a terminal, cut to `longest`."""
    visible = "".join(char if char.isprintable() else " " for char in caption)
    line = " ".join(visible.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def score_text(score: float | None, ranker: str) -> str:
    """A score and what it is, for people."""
    return f"{ranker} {'–' if score is None else f'{score:.3f}'}".strip()


def _entry(result: CaptionResult, files: Sequence[Path]) -> dict[str, Any]:
    """One caption of the JSON report, its images best first."""
    entry: dict[str, Any] = {
        "caption": result.caption,
        "images": [
            {
                "file": str(file),
                "seed": image.recipe.seed,
                "index": image.recipe.index,
                "score": image.score,
                "ranker": image.ranker,
                "log_likelihood": image.log_likelihood,
            }
            for image, file in zip(result.images, files, strict=True)
        ],
    }
    if result.notice is not None:
        entry["notice"] = result.notice
    return entry


def _summary(report: dict[str, Any], sheet: Path | None) -> str:
    """What a person reads: where the pictures are, best first, and what they were ranked by."""
    lines = []
    for entry in report["captions"]:
        ranker = entry["images"][0]["ranker"]
        order = "as drawn" if ranker == "none" else f"best first by {ranker}"
        lines.append(f"{shown(entry['caption'], 80)} ({order}):")
        lines += [
            f"  {image['file']}  {score_text(image['score'], '')}".rstrip()
            for image in entry["images"]
        ]
    if sheet is not None:
        lines.append(f"all together: {sheet}")
    lines.append(f"{report['seconds']:.1f} s with model {report['model']}")
    return "\n".join(lines) + "\n"
