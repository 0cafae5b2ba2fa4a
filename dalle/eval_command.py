"""`dalle eval`: how good a model's pictures are, measured on captions with known truth.

Axes: s captions, n candidates of each.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dalle.checkpoint import ModelParts, load_model
from dalle.clip import ClipScorer
from dalle.config import DataEmoji, EvalModel
from dalle.console import bar_disabled
from dalle.data.emoji.write import render_scene
from dalle.data.images import fit_square, open_rgb
from dalle.data.order import in_groups
from dalle.data.samples import SampleSet, open_samples
from dalle.device import choose_device
from dalle.errors import DalleError, DataError
from dalle.evaluate.caption_sets import read_captions
from dalle.evaluate.drawn import (
    Judged,
    as_floats,
    attribute_rates,
    curves,
    gaps_closed,
    kind_rates,
    ranked_kind_rates,
    rates_at_1,
    temperature_curves,
)
from dalle.evaluate.estimators import share
from dalle.evaluate.judging import JudgedPicture, Judges, Judging
from dalle.evaluate.memorisation import memorisation
from dalle.evaluate.pairs import bits_per_token
from dalle.evaluate.plots import require_matplotlib
from dalle.evaluate.report import write_report
from dalle.evaluate.results import Evaluation, Reconstruction, Retrieval
from dalle.evaluate.vae import BATCH, Scene, evaluate_vae
from dalle.evaluate.validation import SCENES as VALIDATED
from dalle.evaluate.validation import validate
from dalle.folders import at_home, model_folder
from dalle.picture import save_png
from dalle.pipeline import TextToImage
from dalle.rerank import find_clip_ranker, rank
from dalle.sheets import picture_grid
from vae.fidelity import rebuild

log = logging.getLogger(__name__)

JSON_FILE = "eval.json"
SHEET_FILE = "best.png"
SHEET_PICTURES = 48
SHEET_COLUMNS = 8
RETRIEVAL_CAPTIONS = 500
"""Captions among which a picture's own must be found; those evaluated are part of them."""
TRAINING_PICTURES = 20_000
"""Training pictures searched for copies, the first of their set."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A caption to draw, and what is known of it."""

    caption: str
    truth: Mapping[str, Any] | None = None
    """Ground truth of the scene that the caption was made for."""
    image: Image.Image | None = None
    """That scene."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is kept of a caption's candidates."""

    first: Image.Image
    """Candidate 0, chosen by nobody."""
    best: Image.Image
    """The candidate that the model's ranker puts first."""
    best_index: int
    """Which one that is."""
    likelihoods: list[float]
    """Of all candidates, as they were drawn: mean log-probability of the image tokens, nats."""
    clip_scores: list[float] | None
    """Of all candidates, as `--ranker clip` has them; None without a CLIP."""


def run(settings: EvalModel) -> int:
    """Draw, judge and report; 0 when done.

    Raises:
        ModelFormatError: The model or its CLIP cannot be loaded.
        DataError: The training pictures cannot be read.
        FontError: Scenes are to be judged, and no emoji font was found.
        DalleError: matplotlib is not installed.
        ValueError: The captions file cannot be used.
        OSError: The report cannot be written.
    """
    started = time.perf_counter()
    require_matplotlib()
    # Before the drawing, which may take an hour: a mistyped folder shall not cost it.
    training = None if settings.train_data is None else open_samples(settings.train_data)
    folder, device = model_folder(settings.model), choose_device(settings.device)
    parts = load_model(folder)
    ranker = find_clip_ranker(folder, clip=settings.clip, required=False, device=device)
    model = TextToImage(parts, ranker=ranker, device=settings.device)
    asked = _asked(settings, model.image_px)
    settings.out.mkdir(parents=True, exist_ok=True)
    judging = Judging(
        image_px=model.image_px[0], subjects=settings.subjects, workers=settings.workers
    )
    with Judges(judging) as judges:
        found, sheet = _evaluate(settings, model, parts, asked, judges=judges, training=training)
    evaluation = replace(found, seconds=round(time.perf_counter() - started, 1))
    # All files together, at the end: what fails leaves an earlier report as it was.
    save_png(sheet, settings.out / SHEET_FILE)
    page = write_report(evaluation, settings.out)
    text = json.dumps(asdict(evaluation)) + "\n"
    (settings.out / JSON_FILE).write_text(text, encoding="utf-8")
    sys.stdout.write(text if settings.json else page.read_text(encoding="utf-8"))
    return 0


def _asked(settings: EvalModel, image_px: tuple[int, int]) -> list[Asked]:
    """The captions to evaluate on, as many as settings ask for and there are."""
    if not settings.of_scenes:
        found = read_captions(at_home(settings.set)).captions
        if len(found) > settings.captions:
            log.info(
                "the first %d of the %d captions in %s; --captions %d takes all",
                settings.captions, len(found), settings.set, len(found),
            )  # fmt: skip
        return [Asked(caption=caption) for caption in found[: settings.captions]]
    return _scenes(settings, image_px, range(settings.captions))


def _scenes(settings: EvalModel, image_px: tuple[int, int], numbers: range) -> list[Asked]:
    """Scenes that no training set of the recipes holds: their seed is another."""
    if image_px[0] != image_px[1]:
        raise ValueError(f"emoji scenes are square, and the model draws {image_px} px")
    rendering = DataEmoji(
        out=settings.out,
        scenes=numbers.stop,
        image_px=image_px[0],
        seed=settings.scene_seed,
        split="heldout" if settings.set == "heldout" else "train",
        subjects=settings.subjects,
    )
    scenes = []
    for number in numbers:
        scene = render_scene(rendering, number)
        image = Image.open(BytesIO(scene.png)).convert("RGB")
        scenes.append(Asked(caption=scene.caption, truth=scene.truth, image=image))
    return scenes


def _evaluate(
    settings: EvalModel,
    model: TextToImage,
    parts: ModelParts,
    asked: Sequence[Asked],
    *,
    judges: Judges,
    training: SampleSet | None,
) -> tuple[Evaluation, Image.Image]:
    """What is found, but for the time it took, and the sheet of the best pictures."""
    truths = [one.truth for one in asked if one.truth is not None]
    wanted = judges if truths else None
    temperatures = settings.temperatures or (model.sampling.temperature,)
    by_temperature = {
        temperature: _draw_all(settings, model, asked, wanted, temperature=temperature)
        for temperature in temperatures
    }
    judged, drawings = by_temperature[temperatures[0]]
    found: dict[str, Any] = {}
    if judged is not None:
        found |= _rates(judged, truths, seed=settings.seed)
        compared = {t: one for t, (one, _) in by_temperature.items() if one is not None}
        if len(compared) > 1:
            found |= temperature_curves(compared, seed=settings.seed)
    found |= _with_true_pictures(settings, parts, asked, drawings, judges=judges, training=training)
    if (clip := model.clip) is not None:
        pool = _caption_pool(settings, asked, model.image_px)
        if len(pool) > 1:  # among one caption, anything would be found
            found["retrieval"] = _retrieval(clip, asked, drawings, pool)
    evaluation = Evaluation(
        model=settings.model,
        fingerprint=model.fingerprint,
        set=settings.set,
        captions=len(asked),
        candidates=settings.candidates,
        seed=settings.seed,
        temperature=temperatures[0],
        seconds=0.0,
        **found,
    )
    return evaluation, _sheet(asked, drawings, judged)


# ------------------------------------------------------------------------------------- candidates


def _draw_all(
    settings: EvalModel,
    model: TextToImage,
    asked: Sequence[Asked],
    judges: Judges | None,
    *,
    temperature: float,
) -> tuple[Judged | None, list[Drawing]]:
    """Every caption's candidates at one temperature, judged while others are drawn."""
    drawings: list[Drawing] = []
    pictures = _drawn(settings, model, asked, drawings, temperature=temperature)
    bar = partial(
        tqdm, total=len(asked), unit="caption", desc=f"eval, temperature {temperature:g}",
        disable=bar_disabled(),
    )  # fmt: skip
    if judges is None:
        for _ in bar(pictures):
            pass  # nothing is to be judged: `drawings` has them now
        return None, drawings
    verdicts = list(bar(judges.verdicts(pictures)))
    clip_scores = [one.clip_scores for one in drawings if one.clip_scores is not None]
    judged = Judged(
        verdicts=verdicts,
        likelihood=np.array([one.likelihoods for one in drawings]),
        clip=np.array(clip_scores) if clip_scores else None,
    )
    return judged, drawings


def _drawn(
    settings: EvalModel,
    model: TextToImage,
    asked: Sequence[Asked],
    drawings: list[Drawing],
    *,
    temperature: float,
) -> Iterator[list[JudgedPicture]]:
    """What there is to judge of each caption's candidates; they join `drawings` as they come."""
    results = model.generate_many(
        (one.caption for one in asked), candidates=settings.candidates,
        seed=settings.seed, ranker="none", temperature=temperature,
    )  # fmt: skip
    for one, result in zip(asked, results, strict=True):
        if not hasattr(result, "images"):
            raise DalleError(f"caption {one.caption!r} could not be drawn: {result.error}")
        images = [image.image for image in result.images]
        likelihoods = [image.log_likelihood for image in result.images]
        clip_scores = None
        if model.clip is not None:
            clip_scores = as_floats(model.ranker.scores(one.caption, images, likelihoods))
        best = rank(likelihoods if clip_scores is None else clip_scores)[0]
        drawings.append(
            Drawing(
                first=images[0],
                best=images[best],
                best_index=best,
                likelihoods=likelihoods,
                clip_scores=clip_scores,
            )
        )
        truth = one.truth
        yield [
            JudgedPicture(image_u8=np.asarray(image), truth=truth)
            for image in images
            if truth is not None
        ]


def _rates(judged: Judged, truths: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """Everything that follows from hits and scores."""
    return {
        "hit_at_1": rates_at_1(judged, seed=seed),
        "gap_closed": gaps_closed(judged, seed=seed),
        "hit_at_k": curves(judged, seed=seed),
        "attributes": attribute_rates(judged, seed=seed),
        "kinds": kind_rates(judged, truths, seed=seed),
        "ranked_by": judged.ranked_by,
        "ranked_kinds": ranked_kind_rates(judged, truths),
    }


def _sheet(
    asked: Sequence[Asked], drawings: Sequence[Drawing], judged: Judged | None
) -> Image.Image:
    """The first captions' best pictures, chosen by the ranker and by nobody else."""
    shown = drawings[:SHEET_PICTURES]
    labels = [one.caption for one in asked[:SHEET_PICTURES]]
    if judged is not None:
        first = zip(judged.verdicts[:SHEET_PICTURES], shown, strict=True)
        hits = [verdicts[drawing.best_index].hit for verdicts, drawing in first]
        marks = {True: "right", False: "wrong"}
        labels = [f"{marks[hit]}: {label}" for hit, label in zip(hits, labels, strict=True)]
    pictures = [drawing.best for drawing in shown]
    return picture_grid(pictures, columns=SHEET_COLUMNS, labels=labels)


# ---------------------------------------------------------------------------- pairs and retrieval


def _with_true_pictures(
    settings: EvalModel,
    parts: ModelParts,
    asked: Sequence[Asked],
    drawings: Sequence[Drawing],
    *,
    judges: Judges,
    training: SampleSet | None,
) -> dict[str, Any]:
    """What the true pictures of the captions tell of the model; nothing if there are none."""
    true_images = [one.image for one in asked if one.image is not None]
    if not true_images:
        return {}
    images_u8 = np.stack([np.asarray(image) for image in true_images])  # b y x 3
    captions = [one.caption for one in asked]
    measured = evaluate_vae(parts.vae, (Scene(image_u8=image) for image in images_u8), judging=None)
    rebuilt = [
        Image.fromarray(image)
        for group in in_groups(images_u8, BATCH)
        for image in rebuild(parts.vae, np.stack(group))[0]
    ]
    found: dict[str, Any] = {
        "bits_per_token": bits_per_token(parts, images_u8, captions, seed=settings.seed),
        "reconstruction": Reconstruction(
            **{name: measured[name] for name in Reconstruction.__dataclass_fields__}
        ),
    }
    truths = [one.truth for one in asked if one.truth is not None]
    if truths:
        found["judge"] = validate(
            judges,
            true_images[:VALIDATED],
            rebuilt[:VALIDATED],
            truths[:VALIDATED],
            seed=settings.seed,
        )
    if training is not None:
        found["memorisation"] = memorisation(
            [drawing.first for drawing in drawings],
            rebuilt,
            _training_pictures(training, images_u8.shape[1]),
        )
    return found


def _training_pictures(samples: SampleSet, image_px: int) -> Iterator[Image.Image]:
    """The first pictures of a training set; damaged ones are left out."""
    for index in range(min(len(samples), TRAINING_PICTURES)):
        try:
            yield fit_square(open_rgb(samples[index].image), image_px)
        except DataError as err:
            log.warning("left out: %s", err)


def _caption_pool(
    settings: EvalModel, asked: Sequence[Asked], image_px: tuple[int, int]
) -> list[str]:
    """Different captions to choose from, those evaluated first."""
    pool = dict.fromkeys(one.caption for one in asked)
    number = settings.captions
    while settings.of_scenes and len(pool) < RETRIEVAL_CAPTIONS:
        more = _scenes(settings, image_px, range(number, number + 100))
        pool |= dict.fromkeys(one.caption for one in more)
        number += 100
    return list(pool)


def _retrieval(
    clip: ClipScorer, asked: Sequence[Asked], drawings: Sequence[Drawing], pool: Sequence[str]
) -> Retrieval:
    """Where the caption of each first, unchosen picture stands among `pool` for CLIP."""
    cosines = clip.image_features([one.first for one in drawings]) @ clip.text_features(pool).T
    own = torch.tensor([pool.index(one.caption) for one in asked], device=cosines.device)
    better = (cosines > cosines.gather(1, own[:, None])).sum(dim=1).cpu().numpy()
    return Retrieval(captions=len(pool), r_at_1=share(better < 1), r_at_5=share(better < 5))
