"""`dalle eval vae`: what a dVAE keeps of pictures it was not trained on.

Axes: b batch, y x pixel rows and columns.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from dalle.checkpoint import load_vae
from dalle.config import EvalVae
from dalle.console import bar_disabled
from dalle.data.images import fit_square, open_rgb
from dalle.data.order import in_groups
from dalle.data.samples import SampleSet, open_samples
from dalle.device import choose_device
from dalle.errors import DataError
from dalle.evaluate.estimators import share
from dalle.evaluate.similarity import ssim
from dalle.evaluate.subjects import SubjectJudge
from dalle.folders import model_folder
from dalle.schema import read_object
from vae.fidelity import Fidelity, rebuild
from vae.model import DiscreteVAE

log = logging.getLogger(__name__)

BATCH = 64
OTHER_IMAGE_PX = 64
"""Height and width that pictures are brought to if neither settings nor data name any."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture to reconstruct."""

    image_u8: np.ndarray
    """Shape (y, x, 3), uint8."""
    truth: Mapping[str, Any] | None = None
    """What the picture shows, as `.json` members of emoji scenes hold it, or None."""


@dataclass(frozen=True, kw_only=True)
class EmojiDrawing:
    """How a set of emoji scenes was drawn."""

    subjects: Literal["core", "all"]
    image_px: int


def run(settings: EvalVae) -> int:
    """Evaluate, and print a table or one JSON object; 0 when done.

    Raises:
        ModelFormatError: The dVAE cannot be loaded.
        DataError: The pictures cannot be read.
        FontError: Subjects are to be judged, and no emoji font was found.
        ValueError: The dVAE's stride does not divide the pictures.
    """
    vae = load_vae(model_folder(settings.vae)).to(choose_device(settings.device))
    samples = open_samples(settings.data)
    drawn = _drawing_of(settings.data)
    image_px = settings.image_px or (OTHER_IMAGE_PX if drawn is None else drawn.image_px)
    judge = None if drawn is None else SubjectJudge(image_px=image_px, which=drawn.subjects)
    wanted = min(settings.samples, len(samples))
    scenes = _readable(samples, wanted, image_px)
    bar = tqdm(scenes, total=wanted, desc="eval vae", unit="img", disable=bar_disabled())
    report = evaluate_vae(vae, bar, judge=judge)
    sys.stdout.write(json.dumps(report) + "\n" if settings.json else _table(report))
    return 0


def evaluate_vae(
    vae: DiscreteVAE, scenes: Iterable[Scene], *, judge: SubjectJudge | None
) -> dict[str, Any]:
    """Reconstruction quality of `vae` on `scenes`, from hard codes.

    Args:
        vae: On the device to use.
        scenes: Equally large pictures, with ground truth if subjects are to be judged.
        judge: Says whether a reconstruction shows its subjects; None leaves that out.

    Returns:
        `pictures` (their number), `psnr_db`, `ssim`, `codebook_usage`, `codebook_perplexity` and,
        if judged, `subject_retrieval`: overall and by kind of scene, each as rate, low, high
        (95 %) and n. A scene counts as retrieved when all its subjects are.

    Raises:
        DataError: There are no scenes, or one shows a subject that the judge does not know.
        ValueError: The stride does not divide the pictures.
    """
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    fidelity = Fidelity(vae.config.codebook_size)
    similarities: list[float] = []
    for batch in in_groups(scenes, BATCH):
        images = np.stack([scene.image_u8 for scene in batch])  # b y x 3
        rebuilt, tokens = rebuild(vae, images)
        fidelity.add(images, rebuilt, tokens)
        similarities += ssim(rebuilt, images).tolist()
        for scene, image in zip(batch, rebuilt, strict=True):
            if judge is not None and scene.truth is not None:
                found = all(judge.retrieved(Image.fromarray(image), scene.truth))
                hits["all"].append(found)
                hits[scene.truth["scene"]].append(found)
    if not fidelity.pictures:
        raise DataError("there are no pictures to evaluate on")
    report: dict[str, Any] = {
        "pictures": fidelity.pictures,
        "psnr_db": fidelity.psnr_db,
        "ssim": float(np.mean(similarities)),
        "codebook_usage": fidelity.codebook.usage,
        "codebook_perplexity": fidelity.codebook.perplexity,
    }
    if hits:
        report["subject_retrieval"] = {name: asdict(share(found)) for name, found in hits.items()}
    return report


def _readable(samples: SampleSet, count: int, image_px: int) -> Iterator[Scene]:
    """The first `count` samples, cut to a square; damaged ones are named and left out."""
    for index in range(count):
        try:
            sample = samples[index]
            image = fit_square(open_rgb(sample.image), image_px)
        except DataError as err:
            log.warning("left out: %s", err)
            continue
        yield Scene(image_u8=np.array(image), truth=sample.truth)


def _drawing_of(folder: Path) -> EmojiDrawing | None:
    """How the emoji scenes in `folder` were drawn; None if it holds none."""
    path = folder / "dataset.json"
    if not path.is_file():
        return None
    try:
        found = read_object(path)
    except (OSError, ValueError) as err:
        raise DataError(f"{path} cannot be read: {err}") from err
    subjects, image_px = found.get("subjects"), found.get("image_px")
    if subjects not in ("core", "all") or type(image_px) is not int or image_px < 1:
        return None
    return EmojiDrawing(subjects=subjects, image_px=image_px)


def _table(report: dict[str, Any]) -> str:
    """What a person reads."""
    lines = [
        f"pictures              {report['pictures']}",
        f"PSNR                  {report['psnr_db']:.2f} dB",
        f"SSIM                  {report['ssim']:.4f}",
        f"codebook usage        {report['codebook_usage']:.1%}",
        f"codebook perplexity   {report['codebook_perplexity']:.0f}",
    ]
    for name, rate in report.get("subject_retrieval", {}).items():
        lines.append(
            f"subjects, {name:<11} {rate['rate']:.1%} "
            f"(95 %: {rate['low']:.1%} to {rate['high']:.1%}, n = {rate['n']})"
        )
    return "\n".join(lines) + "\n"
