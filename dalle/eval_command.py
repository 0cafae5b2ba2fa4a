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
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from dalle.checkpoint import ModelParts, load_model
from dalle.clip import ClipScorer
from dalle.config import DataEmoji, EvalModel
from dalle.console import bar_disabled
from dalle.data.samples import SampleSet
from dalle.device import choose_device
from dalle.errors import DalleError
from dalle.evaluate.asked import Asked, ask_pictures, ask_scenes, pictures_at, square_px
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
from dalle.evaluate.judging import JudgedPicture, Judges, Judging
from dalle.evaluate.pairs import bits_per_token
from dalle.evaluate.plots import require_matplotlib
from dalle.evaluate.report import write_report
from dalle.evaluate.results import Evaluation
from dalle.evaluate.seen_by_clip import agreement, likeness, retrieval
from dalle.evaluate.similarity import require_room
from dalle.evaluate.true_pictures import (
    TruePictures,
    copies,
    reconstruction,
    training_set,
    true_pictures,
)
from dalle.evaluate.validation import SCENES as VALIDATED
from dalle.evaluate.validation import validate
from dalle.folders import at_home, model_folder
from dalle.picture import save_png
from dalle.pipeline import TextToImage
from dalle.rerank import find_clip_ranker, rank
from dalle.sheets import picture_grid

log = logging.getLogger(__name__)

JSON_FILE = "eval.json"
SHEET_FILE = "best.png"
SHEET_PICTURES = 48
SHEET_COLUMNS = 8
RETRIEVAL_CAPTIONS = 500
"""Captions among which a picture's own must be found; those evaluated are part of them."""


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
    training = None if settings.train_data is None else training_set(settings.train_data)
    folder, device = model_folder(settings.model), choose_device(settings.device)
    parts = load_model(folder)
    ranker = find_clip_ranker(folder, clip=settings.clip, required=False, device=device)
    model = TextToImage(parts, ranker=ranker, device=settings.device)
    asked = _asked(settings, model.image_px)
    if any(one.image is not None for one in asked):
        require_room(model.image_px)
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
    path = at_home(settings.set)
    if settings.of_scenes:
        if path.exists():
            log.warning("set %s means emoji scenes; for what lies here write ./%s", path, path)
        return _scenes(settings, image_px, range(settings.captions))
    if not path.exists():
        raise ValueError(
            f"set must be heldout or train, a file of captions (.txt, .csv, .tsv), or a folder or "
            f"a table of captioned pictures, and {path} is none of these; write its path out"
        )
    samples = pictures_at(path)
    if samples is None:
        if settings.train_data is not None:
            raise ValueError(
                f"train_data needs captions with known pictures, and {path} has none; leave it "
                "out, or take heldout, train or a folder of captioned pictures as set"
            )
        found = read_captions(path).captions
        _log_choice("the first %d of the %d captions in %s", settings, len(found))
        return [Asked(caption=caption) for caption in found[: settings.captions]]
    _log_choice("%d of the %d pictures in %s, drawn by lot", settings, len(samples))
    return ask_pictures(samples, settings.captions, image_px=image_px, seed=settings.seed)


def _log_choice(text: str, settings: EvalModel, there_are: int) -> None:
    """Say that not everything is evaluated on, where it is not."""
    if there_are > settings.captions:
        remedy = f"{text}; --captions %d takes all"
        log.info(remedy, settings.captions, there_are, settings.set, there_are)


def _scenes(settings: EvalModel, image_px: tuple[int, int], numbers: range) -> list[Asked]:
    """Scenes that no training set of the recipes holds: their seed is another."""
    rendering = DataEmoji(
        out=settings.out,
        scenes=numbers.stop,
        image_px=square_px(image_px),
        seed=settings.scene_seed,
        split="heldout" if settings.set == "heldout" else "train",
        subjects=settings.subjects,
    )
    return ask_scenes(rendering, numbers)


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
    images = [one.image for one in asked if one.image is not None]
    true = true_pictures(parts, images) if images else None
    if true is not None:
        found |= _with_true_pictures(settings, parts, asked, drawings, true=true, training=training)
        if truths:
            pictures = (true.images[:VALIDATED], true.rebuilt[:VALIDATED])
            found["judge"] = validate(judges, *pictures, truths[:VALIDATED], seed=settings.seed)
    if (clip := model.clip) is not None:
        pool = _caption_pool(settings, asked, model.image_px)
        found |= _seen_by_clip(clip, asked, drawings, true=true, pool=pool, seed=settings.seed)
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
    """The first captions' best pictures, chosen by the ranker and by nobody else.

    Where there is no judge, each stands beside the true picture, if that is known.
    """
    shown = list(zip(asked, drawings, strict=True))[:SHEET_PICTURES]
    pictures = [drawing.best for _, drawing in shown]
    labels = [one.caption for one, _ in shown]
    if judged is not None:
        first = zip(judged.verdicts[:SHEET_PICTURES], shown, strict=True)
        hits = [verdicts[drawing.best_index].hit for verdicts, (_, drawing) in first]
        marks = {True: "right", False: "wrong"}
        labels = [f"{marks[hit]}: {label}" for hit, label in zip(hits, labels, strict=True)]
    elif all(one.image is not None for one, _ in shown):
        pairs = shown[: SHEET_PICTURES // 2]
        pictures = [image for one, drawing in pairs for image in (drawing.best, one.image) if image]
        labels = [label for one, _ in pairs for label in (one.caption, "the true picture")]
    return picture_grid(pictures, columns=SHEET_COLUMNS, labels=labels)


# ---------------------------------------------------------------------------- pairs and retrieval


def _with_true_pictures(
    settings: EvalModel,
    parts: ModelParts,
    asked: Sequence[Asked],
    drawings: Sequence[Drawing],
    *,
    true: TruePictures,
    training: SampleSet | None,
) -> dict[str, Any]:
    """What the true pictures of the captions tell of the model."""
    captions = [one.caption for one in asked]
    found: dict[str, Any] = {
        "bits_per_token": bits_per_token(parts, true.images_u8, captions, seed=settings.seed),
        "reconstruction": reconstruction(parts, true.images_u8),
    }
    if training is not None:
        near = copies([drawing.first for drawing in drawings], true, training)
        if near.trained_on and not settings.of_scenes:
            log.warning(
                "%d of the %d pictures in %s are training pictures: what they measure is memory; "
                "evaluate on pictures that training never saw",
                near.trained_on, len(asked), settings.set,
            )  # fmt: skip
        found["memorisation"] = near
    return found


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


def _seen_by_clip(
    clip: ClipScorer,
    asked: Sequence[Asked],
    drawings: Sequence[Drawing],
    *,
    true: TruePictures | None,
    pool: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """What CLIP makes of the drawn pictures, beside the true ones where there are some."""
    captions = clip.text_features(pool)
    own = [pool.index(one.caption) for one in asked]
    drawn = clip.image_features([one.first for one in drawings])
    best = clip.image_features([one.best for one in drawings])
    found: dict[str, Any] = {}
    if len(pool) > 1:  # among one caption, anything would be found
        found["retrieval"] = retrieval(drawn, captions, own)
    true_seen = None
    if true is not None:
        true_seen = clip.image_features(true.images)
        rebuilt = clip.image_features(true.rebuilt)
        found["likeness"] = likeness(
            drawn=drawn, best=best, rebuilt=rebuilt, true=true_seen, seed=seed
        )
    found["agreement"] = agreement(
        drawn=drawn, best=best, true=true_seen, captions=captions[own], seed=seed
    )
    return found
