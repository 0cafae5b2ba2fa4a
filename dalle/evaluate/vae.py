"""`dalle eval vae`: what a dVAE keeps of pictures it was not trained on."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dalle.checkpoint import load_vae
from dalle.config import EvalVae
from dalle.data.images import fit_square, open_rgb
from dalle.data.samples import Sample, open_samples
from dalle.device import choose_device
from dalle.errors import DataError
from dalle.evaluate.subjects import SubjectJudge, share
from dalle.folders import model_folder
from vae.model import DiscreteVAE
from vae.pixels import to_image_u8, to_pixels
from vae.quantize import codebook_health

log = logging.getLogger(__name__)

BATCH = 64


def run(settings: EvalVae) -> int:
    """Evaluate, and print a table or one JSON object; 0 when done.

    Raises:
        ModelFormatError: The dVAE cannot be loaded.
        DataError: The pictures cannot be read.
        FontError: Subjects are to be judged, and no emoji font was found.
    """
    vae = load_vae(model_folder(settings.vae)).to(choose_device(settings.device))
    samples = open_samples(settings.data)
    scenes = [samples[index] for index in range(min(settings.samples, len(samples)))]
    if not scenes:
        raise DataError(f"{settings.data} holds no samples")
    report = evaluate_vae(vae, scenes, settings.image_px, which=_subject_list(settings.data))
    if settings.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        sys.stdout.write(_table(report))
    return 0


@torch.inference_mode()
def evaluate_vae(
    vae: DiscreteVAE, scenes: list[Sample], image_px: int, *, which: Literal["core", "all"] | None
) -> dict[str, Any]:
    """Reconstruction quality of `vae` on `scenes`.

    Args:
        vae: On the device to use.
        scenes: Pictures, with ground truth if subjects are to be judged.
        image_px: Height and width to evaluate at.
        which: Subject list the scenes were drawn from; None leaves subjects unjudged.

    Returns:
        `psnr_db`, `codebook_usage`, `codebook_perplexity` and, if judged, `subject_retrieval`:
        overall and by kind of scene, each as rate, low, high (95 %) and n.
    """
    judge = None if which is None else SubjectJudge(image_px=image_px, which=which)
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    counts = torch.zeros(vae.config.codebook_size, dtype=torch.int64)
    squared = []
    for group in tqdm(_groups(scenes), total=math.ceil(len(scenes) / BATCH), disable=None):
        images = np.stack([np.array(fit_square(open_rgb(s.image), image_px)) for s in group])
        pixels = to_pixels(torch.from_numpy(images).to(next(vae.parameters()).device))
        tokens = vae.encode(pixels)
        counts += torch.bincount(tokens.flatten().cpu(), minlength=len(counts))
        rebuilt = to_image_u8(vae.decode(tokens))
        error = (rebuilt.astype(np.float64) - images) / 255
        squared += list(np.square(error).mean(axis=(1, 2, 3)))
        for scene, image in zip(group, rebuilt, strict=True):
            if judge is not None and scene.truth is not None:
                found = all(judge.retrieved(Image.fromarray(image), scene.truth))
                hits["all"].append(found)
                hits[scene.truth["scene"]].append(found)
    health = codebook_health(counts)
    report: dict[str, Any] = {
        "pictures": len(scenes),
        "psnr_db": float(np.mean(-10 * np.log10(np.maximum(squared, 1e-10)))),
        "codebook_usage": health.usage,
        "codebook_perplexity": health.perplexity,
    }
    if hits:
        report["subject_retrieval"] = {name: _rate(found) for name, found in hits.items()}
    return report


def _rate(found: list[bool]) -> dict[str, float]:
    rate, low, high = share(found)
    return {"rate": rate, "low": low, "high": high, "n": len(found)}


def _groups(scenes: list[Sample]) -> Iterator[list[Sample]]:
    for start in range(0, len(scenes), BATCH):
        yield scenes[start : start + BATCH]


def _subject_list(folder: Path) -> Literal["core", "all"] | None:
    """Which subject list an emoji set was drawn from; None for other folders."""
    path = folder / "dataset.json"
    if not path.is_file():
        return None
    settings = json.loads(path.read_text(encoding="utf-8")).get("settings", {})
    subjects: Literal["core", "all"] | None = settings.get("subjects")
    return subjects


def _table(report: dict[str, Any]) -> str:
    """What a person reads."""
    lines = [
        f"pictures              {report['pictures']}",
        f"PSNR                  {report['psnr_db']:.2f} dB",
        f"codebook usage        {report['codebook_usage']:.1%}",
        f"codebook perplexity   {report['codebook_perplexity']:.0f}",
    ]
    for name, rate in report.get("subject_retrieval", {}).items():
        lines.append(
            f"subjects, {name:<11} {rate['rate']:.1%} "
            f"(95 %: {rate['low']:.1%} to {rate['high']:.1%}, n = {rate['n']})"
        )
    return "\n".join(lines) + "\n"
