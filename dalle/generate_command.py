"""`dalle generate`: pictures as files, a contact sheet, and one JSON object on stdout."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from dalle.config import Generate, SamplingConfig
from dalle.console import bar_disabled
from dalle.drawing import ImagePrompt
from dalle.errors import DalleError
from dalle.given_picture import read_picture
from dalle.image_prompt import seam_preview
from dalle.picture import GeneratedImage, Recipe, read_recipe, save_png
from dalle.pipeline import TextToImage
from dalle.results import CaptionResult, PromptShown
from dalle.sheets import picture_grid

NO_CAPTION = "(no caption)"
"""Stands for the null caption where people read."""
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
    earlier = settings.like or settings.vary
    recipe = None if earlier is None else read_recipe(earlier)
    given = None if settings.image is None else read_picture(settings.image)
    _check_folder(settings.out)
    model = TextToImage.from_pretrained(
        settings.model,
        clip=settings.clip,
        require_clip=settings.require_clip,
        device=settings.device,
    )
    saved = []
    for result in _results(model, settings, recipe, given):
        # Saved at once: whoever stops a long run keeps what is finished.
        saved.append((result, _save(result, settings.out)))
    sheet = None if settings.like is not None else _save_sheet(saved, settings.out)
    report: dict[str, Any] = {
        "captions": [_entry(result, files) for result, files in saved],
    }
    if (prompt := saved[0][0].prompt) is not None:
        report["prompt"] = {
            "file": str(_save_prompt(prompt, settings.out)),
            "rows": prompt.rows,
            "rows_in_all": prompt.rows_in_all,
            "notes": list(prompt.notes),
        }
    report |= {
        "model": settings.model,
        "seconds": round(time.perf_counter() - started, 3),
    }
    # ASCII reaches every pipe and terminal, whatever its encoding.
    text = json.dumps(report) + "\n" if settings.json else _summary(report, sheet)
    sys.stdout.write(text)
    return 0


def _results(
    model: TextToImage, settings: Generate, recipe: Recipe | None, given: Image.Image | None
) -> Iterator[CaptionResult]:
    """What the command asks for, caption after caption."""
    if recipe is None:
        sampling = settings.sampling(model.sampling)
        prompt = None
        if given is not None:
            prompt = model.read_image(
                given, keep_rows=settings.rows, layout=settings.prompt_layout, crop=settings.crop
            )
        for caption in settings.captions or (None,):
            yield _draw(model, caption, prompt, settings=settings, sampling=sampling)
        return
    picture = model.redraw(recipe)
    if settings.vary is None:
        yield CaptionResult(caption=recipe.caption, images=(picture,))
    else:
        prompt = model.first_rows(picture, settings.rows)
        sampling = settings.sampling(recipe.sampling)
        caption = recipe.caption or None
        yield _draw(model, caption, prompt, settings=settings, sampling=sampling)


def _draw(
    model: TextToImage,
    caption: str | None,
    prompt: ImagePrompt | None,
    *,
    settings: Generate,
    sampling: SamplingConfig,
) -> CaptionResult:
    """One caption's pictures, with a bar that counts rows of the token grid."""
    frames = model.stream(
        caption,
        image=prompt,
        candidates=settings.candidates,
        keep=settings.kept,
        seed=settings.seed,
        ranker=None if settings.ranker == "auto" else settings.ranker,
        previews=False,
        **{**asdict(sampling), "top_k": sampling.top_k or 0},
    )
    *_, last = tqdm(
        frames,
        total=model.frames(settings.candidates, prompt),
        desc=shown(caption or NO_CAPTION, SLUG_CHARS),
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
        f"{shown(image.recipe.caption or NO_CAPTION, 80)}\n"
        f"{score_text(image.score, image.ranker)}, "
        f"seed {image.recipe.seed}, no. {image.recipe.index}"
        for image in images
    ]
    columns = min(SHEET_COLUMNS, max(len(result.images) for result, _ in saved))
    names = "\n".join(file.name for _, files in saved for file in files)
    path = folder / f"sheet-{_digest(names)}.png"
    _write(picture_grid([image.image for image in images], columns=columns, labels=labels), path)
    return path


def _save_prompt(prompt: PromptShown, folder: Path) -> Path:
    """The given picture, its kept part outlined, beside what the model saw of it."""
    kept_px = prompt.image.height * prompt.rows // prompt.rows_in_all
    box = (0, 0, prompt.image.width, kept_px)
    pictures = [seam_preview(prompt.image, box), seam_preview(prompt.seen, box)]
    path = folder / f"prompt-{_digest(prompt.image.tobytes().hex())}.png"
    _write(picture_grid(pictures, columns=2, labels=["as given", "as the model sees it"]), path)
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
        lines.append(f"{shown(entry['caption'] or NO_CAPTION, 80)} ({order}):")
        lines += [
            f"  {image['file']}  {score_text(image['score'], '')}".rstrip()
            for image in entry["images"]
        ]
    if (prompt := report.get("prompt")) is not None:
        lines.append(
            f"kept {prompt['rows']} of {prompt['rows_in_all']} rows of tokens: {prompt['file']}"
        )
        lines += [f"  {note}" for note in prompt["notes"]]
    if sheet is not None:
        lines.append(f"all together: {sheet}")
    lines.append(f"{report['seconds']:.1f} s with model {report['model']}")
    return "\n".join(lines) + "\n"
