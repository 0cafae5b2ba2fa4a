"""`dalle eval vae`: what a dVAE keeps of pictures it was not trained on.

Axes: b batch, y x pixel rows and columns.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dalle.checkpoint import load_vae
from dalle.config import EvalVae
from dalle.config.ranges import require_whole_tokens
from dalle.console import bar_disabled
from dalle.data.emoji.font import find_font
from dalle.data.order import in_groups
from dalle.data.pictures import readable_pictures
from dalle.data.sample import without_key
from dalle.data.samples import SampleSet, open_samples
from dalle.data.scene_index import read_scene_index
from dalle.device import choose_device
from dalle.errors import DataError
from dalle.evaluate.asked import square_px
from dalle.evaluate.estimators import share
from dalle.evaluate.judging import JudgedPicture, Judging, all_retrieved
from dalle.evaluate.similarity import ssim
from dalle.folders import model_folder
from vae.fidelity import Fidelity, rebuild
from vae.model import DiscreteVAE

log = logging.getLogger(__name__)

BATCH = 64
OTHER_IMAGE_PX = (64, 64)
"""Height and width to which pictures are brought if neither settings nor data name any."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture to reconstruct."""

    image_u8: np.ndarray
    """Shape (y, x, 3), uint8."""
    truth: Mapping[str, Any] | None = None
    """What the picture shows, as `.json` members of emoji scenes hold it, or None."""


def run(settings: EvalVae) -> int:
    """Evaluate, and print a table or one JSON object; 0 when done.

    Raises:
        ModelFormatError: The dVAE cannot be loaded.
        DataError: The pictures cannot be read.
        FontError: Subjects are to be judged, and no emoji font was found.
        ValueError: The dVAE's stride does not divide the pictures, or scenes are not to be square.
    """
    vae = load_vae(model_folder(settings.vae)).to(choose_device(settings.device))
    samples = open_samples(settings.data)
    judging = _judging_of(settings.data)
    own = OTHER_IMAGE_PX if judging is None else (judging.image_px, judging.image_px)
    image_px = settings.size_px or own
    stride = vae.config.stride
    whose = f"the stride of the dVAE in {settings.vae} ({stride})"
    require_whole_tokens(image_px, stride, section="", whose=whose)
    if judging is not None:
        find_font(None)  # before the pictures are rebuilt, which may take long
        judging = replace(judging, image_px=square_px(image_px), workers=settings.workers)
    wanted = min(settings.samples, len(samples))
    scenes = _scenes(samples, wanted, image_px, with_truth=judging is not None)
    bar = tqdm(scenes, total=wanted, desc="eval vae", unit="img", disable=bar_disabled())
    report = evaluate_vae(vae, bar, judging=judging)
    sys.stdout.write(json.dumps(report) + "\n" if settings.json else _table(report))
    return 0


def evaluate_vae(
    vae: DiscreteVAE, scenes: Iterable[Scene], *, judging: Judging | None
) -> dict[str, Any]:
    """Reconstruction quality of `vae` on `scenes`, from hard codes.

    Args:
        vae: On the device to use.
        scenes: Equally large pictures, with ground truth if subjects are to be judged.
        judging: How to tell whether a reconstruction shows its subjects; None leaves that out.

    Returns:
        `pictures` (their number), `psnr_db`, `ssim`, `codebook_usage`, `codebook_perplexity` and,
        if judged, `subject_retrieval`: overall and by kind of scene, each as rate, low, high
        (95 %) and n. A scene counts as retrieved when all its subjects are.

    Raises:
        DataError: There are no scenes, or one shows a subject that the judge does not know.
        FontError: Subjects are to be judged, and no emoji font was found.
        ValueError: The stride does not divide the pictures.
    """
    judged: list[JudgedPicture] = []
    fidelity = Fidelity(vae.config.codebook_size)
    similarities: list[float] = []
    for batch in in_groups(scenes, BATCH):
        images = np.stack([scene.image_u8 for scene in batch])  # b y x 3
        rebuilt, tokens = rebuild(vae, images)
        fidelity.add(images, rebuilt, tokens)
        similarities += ssim(rebuilt, images).tolist()
        for scene, image in zip(batch, rebuilt, strict=True):
            if judging is not None and scene.truth is not None:
                judged.append(JudgedPicture(image_u8=image, truth=scene.truth))
    if not fidelity.pictures:
        raise DataError("there are no pictures to evaluate on")
    report: dict[str, Any] = {
        "pictures": fidelity.pictures,
        "psnr_db": fidelity.psnr_db,
        "ssim": float(np.mean(similarities)),
        "codebook_usage": fidelity.codebook.usage,
        "codebook_perplexity": fidelity.codebook.perplexity,
    }
    if judging is not None and judged:
        report["subject_retrieval"] = _retrieval(judging, judged)
    return report


def _retrieval(judging: Judging, judged: Sequence[JudgedPicture]) -> dict[str, Any]:
    """How many scenes are retrieved, overall and by kind."""
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    answers = all_retrieved(judging, judged)
    bar = tqdm(answers, total=len(judged), desc="judge", unit="img", disable=bar_disabled())
    for number, found in bar:
        hits["all"].append(found)
        hits[judged[number].truth["scene"]].append(found)
    return {name: asdict(share(found)) for name, found in sorted(hits.items())}


def _scenes(
    samples: SampleSet, count: int, image_px: tuple[int, int], *, with_truth: bool
) -> Iterator[Scene]:
    """The first `count` samples that can be read, with or without captions."""
    for index, picture in readable_pictures(
        samples, range(count), image_px=image_px, captioned=False
    ):
        try:
            truth = samples.truth(index) if with_truth else None
        except DataError as err:
            log.warning("left out %s: %s", picture.key, without_key(err, picture.key))
            continue
        yield Scene(image_u8=picture.image_u8.numpy(), truth=truth)


def _judging_of(folder: Path) -> Judging | None:
    """How to judge the emoji scenes in `folder`, as they were drawn; None if it holds none."""
    found = read_scene_index(folder)
    subjects, image_px = found.get("subjects"), found.get("image_px")
    if subjects not in ("core", "all") or type(image_px) is not int or image_px < 1:
        return None
    return Judging(subjects=subjects, image_px=image_px)


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
