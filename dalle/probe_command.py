"""`dalle probe`: how much of what pictures show can be read off a model's layers."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from dalle.checkpoint import ModelParts, load_model
from dalle.config import Probe
from dalle.data.emoji.font import find_font
from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import list_subjects
from dalle.device import choose_device
from dalle.evaluate.asked import square_px
from dalle.evaluate.features import features_of
from dalle.evaluate.labelled import LabelledSplit, emoji_groups, labelled_folder
from dalle.evaluate.linear_probe import require_sklearn
from dalle.evaluate.plots import require_matplotlib
from dalle.evaluate.probe_report import ProbeReport, write_probe_report
from dalle.evaluate.probing import pooled, probe_fold
from dalle.folders import model_folder

JSON_FILE = "probe.json"


def run(settings: Probe) -> int:
    """Compute features, fit classifiers and report; 0 when done.

    Raises:
        ModelFormatError: The model cannot be loaded.
        DataError: The labelled pictures cannot be used.
        FontError: Emoji are to be classified, and no emoji font was found.
        DalleError: scikit-learn or matplotlib is not installed.
        ValueError: Emoji are to be classified, and the model's pictures are not square.
        OSError: The report cannot be written.
    """
    started = time.perf_counter()
    require_sklearn()
    require_matplotlib()
    device = choose_device(settings.device)
    parts = load_model(model_folder(settings.model))
    parts.vae.to(device).eval()
    parts.transformer.to(device).eval()
    splits = _splits(settings, parts)
    settings.out.mkdir(parents=True, exist_ok=True)
    folds = [
        probe_fold(
            split,
            train=features_of(parts, split.train.images_u8),
            test=features_of(parts, split.test.images_u8),
            labels=settings.labels,
            repeats=settings.repeats,
            seed=settings.seed,
        )
        for split in splits
    ]
    report = ProbeReport(
        model=settings.model,
        fingerprint=parts.fingerprint,
        data="the groups of the emoji" if settings.data is None else settings.data.name,
        seed=settings.seed,
        repeats=settings.repeats,
        seconds=round(time.perf_counter() - started, 1),
        findings=pooled(folds, splits[0].classes, seed=settings.seed),
    )
    page = write_probe_report(report, settings.out)
    text = json.dumps(asdict(report)) + "\n"
    (settings.out / JSON_FILE).write_text(text, encoding="utf-8")
    sys.stdout.write(text if settings.json else page.read_text(encoding="utf-8"))
    return 0


def _splits(settings: Probe, parts: ModelParts) -> list[LabelledSplit]:
    """The pictures to classify, of the model's size; each fold tests on others of them."""
    sequence, stride = parts.transformer.sequence, parts.vae.config.stride
    image_px = (sequence.grid_h * stride, sequence.grid_w * stride)
    counts = {
        "folds": settings.folds,
        "train": settings.labels[-1],
        "test": settings.test_pictures,
        "seed": settings.seed,
    }
    if settings.data is not None:
        return labelled_folder(settings.data, image_px=image_px, **counts)
    painter = Painter(find_font(None), square_px(image_px))
    subjects = list_subjects(painter.font, settings.subject_list)
    return emoji_groups(painter, subjects, **counts)
