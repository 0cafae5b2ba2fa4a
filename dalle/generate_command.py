"""`dalle generate`: pictures as files, a contact sheet, and one JSON object on stdout."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from dalle.caption_file import DELIMITERS, CaptionLines, read_caption_lines, warn_skipped
from dalle.config import Generate, SamplingConfig, SamplingOptions
from dalle.console import bar_disabled
from dalle.drawing import ImagePrompt
from dalle.errors import DalleError
from dalle.given_picture import read_picture
from dalle.image_prompt import Region, seam_preview
from dalle.labels import NO_CAPTION, file_name, score_text, short_hash, shown
from dalle.picture import GeneratedImage, Recipe, read_recipe, save_png
from dalle.pipeline import TextToImage
from dalle.rerank import RankerName
from dalle.results import CaptionFailure, CaptionResult, PromptShown
from dalle.sheets import (
    COMPLETION_COLUMNS,
    SHEET_COLUMNS,
    SHEET_PICTURES,
    completion_sheet,
    contact_sheet,
    picture_grid,
)

log = logging.getLogger(__name__)

BAR_CHARS = 40
"""Of a caption beside a progress bar."""
NOTICE_CHARS = 400
"""A longer notice is cut where people read it; the JSON report has all of it."""


@dataclass
class _Written:
    """What a run has written so far; of the pictures only those that the sheet will show."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    """The captions of the report."""
    failures: list[str] = field(default_factory=list)
    """Why captions could not be drawn."""
    names: list[str] = field(default_factory=list)
    """Every file."""
    images: list[GeneratedImage] = field(default_factory=list)
    """The first `SHEET_PICTURES`."""
    widest: int = 0
    """Most pictures of one caption."""
    prompt: PromptShown | None = None
    prompt_entry: dict[str, Any] | None = None
    sheet: Path | None = None

    def add(self, result: CaptionResult | CaptionFailure, folder: Path) -> None:
        """Write the pictures of one caption, or note that there are none."""
        if isinstance(result, CaptionFailure):
            self.failures.append(result.error)
            self.entries.append({"caption": result.caption, "error": result.error})
            return
        files = _save(result, folder)
        self.entries.append(_entry(result, files))
        self.names += [file.name for file in files]
        self.images += result.images[: SHEET_PICTURES - len(self.images)]
        self.widest = max(self.widest, len(files))
        self.prompt = result.prompt


def run(settings: Generate, model: TextToImage | None = None) -> int:
    """Draw, save and report; 0 when every picture is written.

    Args:
        settings: What to draw, and how.
        model: The one that they name, where it is loaded already.

    Raises:
        ModelFormatError: The model cannot be loaded.
        DalleError: A picture cannot be written, or belongs to another model; or captions of a file
            could not be drawn, and all others are.
        ValueError: A setting is out of range, `like` is no picture of ours, or `caption_file` no
            file of captions.
    """
    started = time.perf_counter()
    earlier = settings.like or settings.vary
    recipe = None if earlier is None else read_recipe(earlier)
    given = None if settings.image is None else read_picture(settings.image)
    listed = None if settings.caption_file is None else _listed(settings.caption_file)
    _check_folder(settings.out)
    model = model or TextToImage.from_pretrained(
        settings.model,
        clip=settings.clip,
        require_clip=settings.require_clip,
        device=settings.device,
        dtype=settings.dtype,
        compile=settings.compile,
    )
    if earlier is None and settings.sampling(model.sampling).temperature == 0:
        _say_if_alike(settings.candidates)
    results: Iterator[CaptionResult | CaptionFailure] = (
        _results(model, settings, recipe, given)
        if listed is None
        else _listed_results(model, settings, listed)
    )
    written = _Written()
    try:
        for result in results:
            # Saved at once: whoever stops a long run keeps what is finished.
            written.add(result, settings.out)
        if settings.like is None and written.images:
            written.sheet = _save_sheet(written, settings.out)
        if written.prompt is not None:
            written.prompt_entry = _prompt_entry(written.prompt, settings.out)
    except BaseException:
        if written.entries:  # and is told what that is, if anybody listens
            with contextlib.suppress(OSError):
                _report(written, settings, started)
        raise
    _report(written, settings, started)
    if written.failures:
        raise DalleError(
            f"{len(written.failures)} of {len(written.entries)} captions could not be drawn; "
            f"{written.failures[0]}"
        )
    return 0


def _report(written: _Written, settings: Generate, started: float) -> None:
    """Say on stdout what was drawn, and where it is."""
    report: dict[str, Any] = {"captions": written.entries}
    if written.prompt_entry is not None:
        report["prompt"] = written.prompt_entry
    report |= {"model": settings.model, "seconds": round(time.perf_counter() - started, 3)}
    text = json.dumps(report) + "\n" if settings.json else _summary(report, written.sheet)
    sys.stdout.write(text)


def _say_if_alike(candidates: int) -> None:
    """A warning, where nobody draws lots, that several candidates are one picture."""
    if candidates > 1:
        log.warning(
            "at temperature 0 the %d candidates of a caption are one and the same picture; "
            "--candidates 1 draws it once, a higher temperature draws others",
            candidates,
        )


def _listed(path: Path) -> CaptionLines:
    """The captions of a file; a warning names rows of a table that lack theirs."""
    listed = read_caption_lines(path)
    if path.suffix.lower() in DELIMITERS:  # elsewhere an empty line only separates
        warn_skipped(listed)
    return listed


def _results(
    model: TextToImage, settings: Generate, recipe: Recipe | None, given: Image.Image | None
) -> Iterator[CaptionResult]:
    """What the command asks for, caption after caption."""
    if recipe is None:
        sampling = settings.sampling(model.sampling)
        prompt = None
        if given is not None:
            prompt = model.read_image(
                given, keep_rows=settings.rows, layout=settings.prompt_layout, crop=settings.crop,
                region=_region(settings),
            )  # fmt: skip
        for caption in settings.captions or (None,):
            yield _draw(model, caption, prompt, settings=settings, sampling=sampling)
        return
    if settings.vary is None:
        yield CaptionResult(caption=recipe.caption, images=(model.redraw(recipe),))
    else:
        earlier = model.redraw(recipe, ranker="none")
        prompt = (
            model.first_rows(earlier, settings.rows or 0)
            if (region := _region(settings)) is None
            else model.all_but(earlier, region)
        )
        sampling = settings.sampling(recipe.sampling)
        for caption in settings.captions or (recipe.caption or None,):
            yield _draw(model, caption, prompt, settings=settings, sampling=sampling)


def _region(settings: Generate) -> Region | None:
    """What is drawn of a given picture, where that is not all below its kept rows."""
    if settings.region is None:
        return None
    left, top, right, bottom = settings.region
    return left, top, right, bottom


def _listed_results(
    model: TextToImage, settings: Generate, listed: CaptionLines
) -> Iterator[CaptionResult | CaptionFailure]:
    """The captions of a file in its order, with a bar that counts them; failures name the line."""
    results = model.generate_many(
        (one.caption for one in listed.lines),
        candidates=settings.candidates,
        keep=settings.kept,
        seed=settings.seed,
        ranker=_ranker(settings),
        **_options(settings.sampling(model.sampling)),
    )
    bar = tqdm(
        results, total=len(listed.lines), unit="caption", disable=bar_disabled(), leave=False
    )
    for one, result in zip(listed.lines, bar, strict=True):
        if isinstance(result, CaptionFailure):
            yield replace(result, error=f"{listed.name}, line {one.line}: {result.error}")
        else:
            yield result


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
        ranker=_ranker(settings),
        **_options(sampling),
    )
    *_, last = tqdm(
        frames,
        total=model.frames(settings.candidates, prompt),
        desc=shown(caption or NO_CAPTION, BAR_CHARS),
        unit="row",
        disable=bar_disabled(),
        leave=False,
    )
    assert last.result is not None, "a stream ends with its result"
    return last.result


def _ranker(settings: Generate) -> RankerName | None:
    return None if settings.ranker == "auto" else settings.ranker


def _options(sampling: SamplingConfig) -> SamplingOptions:
    """`sampling` as keywords that leave nothing to the model."""
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k or 0,
        "top_p": sampling.top_p,
        "guidance_scale": sampling.guidance_scale,
    }


# -------------------------------------------------------------------------------------------- files


def _check_folder(folder: Path) -> None:
    """Find out before the work, and without a trace, whether pictures can be written."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise DalleError(
            f"output folder {folder} cannot be written ({nearest} is no folder); "
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


def _save_sheet(written: _Written, folder: Path) -> Path:
    """The contact sheet: the pictures of the call with caption, score and seed.

    Pictures that go on from a given one stand between its kept part and the original.
    """
    prompt = written.prompt
    # Where there is one of each caption, there is no row of its own for each.
    columns = written.widest if written.widest > 1 else len(written.images)
    if prompt is None:
        sheet = contact_sheet(written.images, columns=min(SHEET_COLUMNS, columns))
    else:
        sheet = completion_sheet(
            written.images, columns=min(COMPLETION_COLUMNS, columns), given=prompt.image,
            original=prompt.whole,
        )  # fmt: skip
    names = "\n".join(written.names)
    path = folder / f"sheet-{short_hash(names)}.png"
    _write(sheet, path)
    return path


def _save_prompt(prompt: PromptShown, folder: Path) -> Path:
    """The given picture, what is kept or drawn outlined, beside what the model saw of it."""
    pictures = [seam_preview(image, prompt.outline) for image in (prompt.image, prompt.seen)]
    path = folder / f"prompt-{short_hash(prompt.image.tobytes().hex())}.png"
    _write(picture_grid(pictures, columns=2, labels=["as given", "as the model sees it"]), path)
    return path


# ------------------------------------------------------------------------------------------- report


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


def _prompt_entry(prompt: PromptShown, folder: Path) -> dict[str, Any]:
    """What the JSON report says of the given picture, whose kept part is written as well."""
    return {
        "file": str(_save_prompt(prompt, folder)),
        "rows": prompt.rows,
        "rows_in_all": prompt.rows_in_all,
        "region": prompt.region,
        "notes": list(prompt.notes),
    }


def _summary(report: dict[str, Any], sheet: Path | None) -> str:
    """What a person reads: where the pictures are, best first, and what they were ranked by."""
    lines = []
    for entry in report["captions"]:
        if "error" in entry:
            lines.append(f"{shown(str(entry['caption']), 80)}: not drawn, {entry['error']}")
            continue
        ranker = entry["images"][0]["ranker"]
        order = "as drawn" if ranker == "none" else f"best first by {ranker}"
        lines.append(f"{shown(entry['caption'] or NO_CAPTION, 80)} ({order}):")
        if "notice" in entry:
            lines.append(f"  note: {shown(entry['notice'], NOTICE_CHARS)}")
        lines += [
            f"  {image['file']}  {score_text(image['score'], '')}".rstrip()
            for image in entry["images"]
        ]
    if (prompt := report.get("prompt")) is not None:
        kept = f"kept {prompt['rows']} of {prompt['rows_in_all']} rows of tokens"
        if prompt["region"] is not None:
            left, top, right, bottom = prompt["region"]
            kept = f"drew {right - left} x {bottom - top} px at {left}, {top} and kept the rest"
        lines.append(f"{kept}: {prompt['file']}")
        lines += [f"  {note}" for note in prompt["notes"]]
    if sheet is not None:
        lines.append(f"all together: {sheet}")
    lines.append(f"{report['seconds']:.1f} s with model {report['model']}")
    return "\n".join(lines) + "\n"
