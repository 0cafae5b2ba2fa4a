"""`dalle generate`: pictures as files, a contact sheet, and one JSON object on stdout."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dalle.captions import check_prompt
from dalle.config import Generate
from dalle.errors import DalleError
from dalle.picture import GeneratedImage, read_recipe
from dalle.pipeline import CaptionResult, TextToImage
from dalle.sheets import picture_grid

log = logging.getLogger(__name__)

SLUG_CHARS = 40
SHEET_COLUMNS = 4


def run(settings: Generate) -> int:
    """Draw, save and report; 0 when every picture is written.

    Raises:
        ModelFormatError: The model cannot be loaded.
        DalleError: A picture cannot be written, or belongs to another model.
        ValueError: A caption or setting is out of range.
    """
    started = time.perf_counter()
    # Mistakes in the captions should not have to wait for the model.
    for caption in settings.captions:
        check_prompt(caption)
    recipe = None if settings.like is None else read_recipe(settings.like)
    _make_folder(settings.out)
    model = TextToImage.from_pretrained(settings.model, device=settings.device)
    if recipe is not None:
        image = model.redraw(recipe)
        results = [CaptionResult(caption=recipe.caption, images=(image,))]
    else:
        results = [_draw(model, caption, settings) for caption in settings.captions]
    files = [[_save(image, settings.out) for image in result.images] for result in results]
    sheet = _save_sheet(results, settings.out) if settings.like is None else None
    report = {
        "captions": [
            _entry(result, names) for result, names in zip(results, files, strict=True)
        ],
        "model": settings.model,
        "seconds": round(time.perf_counter() - started, 3),
    }
    if settings.json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(_summary(report, sheet))
    return 0


def _draw(model: TextToImage, caption: str, settings: Generate) -> CaptionResult:
    """One caption's pictures, with a bar that counts rows of the token grid."""
    sampling = settings.sampling(model.sampling)
    frames = model.stream(
        caption,
        candidates=settings.candidates,
        keep=settings.keep,
        seed=settings.seed,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        guidance_scale=sampling.guidance_scale,
        previews=False,
    )
    shown = caption if len(caption) <= SLUG_CHARS else caption[: SLUG_CHARS - 1] + "…"
    total = model.frames(settings.candidates)
    *_, last = tqdm(frames, total=total, desc=shown, unit="row", disable=None, leave=False)
    assert last.result is not None, "a stream ends with its result"
    return last.result


def _make_folder(folder: Path) -> None:
    """Create the output folder, and find out now whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as err:
        raise DalleError(
            f"output folder {folder} cannot be written ({err.strerror}); give another with --out"
        ) from err


def _save(image: GeneratedImage, folder: Path) -> Path:
    recipe = image.recipe
    path = folder / f"{slug(recipe.caption)}-s{recipe.seed}-i{recipe.index:03d}.png"
    try:
        image.save(path)
    except OSError as err:
        raise DalleError(f"{path} cannot be written: {err.strerror}; free some space") from err
    return path


def slug(caption: str) -> str:
    """A file name for a caption: ASCII words joined by dashes, and a hash that keeps it unique."""
    words = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")[:SLUG_CHARS].strip("-")
    digest = hashlib.sha256(caption.encode()).hexdigest()[:6]
    return f"{words or 'picture'}-{digest}"


def _save_sheet(results: list[CaptionResult], folder: Path) -> Path:
    """The contact sheet: all pictures of the call with caption, score and seed."""
    images = [image for result in results for image in result.images]
    columns = min(SHEET_COLUMNS, max(len(result.images) for result in results))
    labels = [
        f"{image.recipe.caption[:80]}\n{image.ranker} {image.score:.3f}, seed {image.recipe.seed}, "
        f"no. {image.recipe.index}"
        for image in images
    ]
    names = "\n".join(f"{result.caption}\x1f{images[0].recipe.seed}" for result in results)
    digest = hashlib.sha256(names.encode()).hexdigest()[:8]
    path = folder / f"sheet-{digest}.png"
    picture_grid([image.image for image in images], columns=columns, labels=labels).save(path)
    return path


def _entry(result: CaptionResult, files: list[Path]) -> dict[str, Any]:
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
        lines.append(f"{entry['caption']} (best first by {ranker}):")
        lines += [f"  {image['file']}  {image['score']:.3f}" for image in entry["images"]]
    if sheet is not None:
        lines.append(f"all together: {sheet}")
    lines.append(f"{report['seconds']:.1f} s with model {report['model']}")
    return "\n".join(lines) + "\n"
