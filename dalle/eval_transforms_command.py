"""`dalle eval transforms`: how well pictures are redrawn below themselves in other looks.

Axes: s cases, n candidates of each.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from dalle.checkpoint import ModelParts, load_model
from dalle.config import EvalTransforms
from dalle.console import bar_disabled
from dalle.data.emoji.font import find_font
from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import Subject, list_subjects
from dalle.device import choose_device
from dalle.evaluate.drawn import as_floats
from dalle.evaluate.panel_judge import PanelVerdict
from dalle.evaluate.panel_judging import JudgedPanel, PanelJudges, PanelJudging
from dalle.evaluate.panel_truths import PanelTruth, PanelTruths
from dalle.evaluate.panels import PanelCase, bottom_square, heldout_cases
from dalle.evaluate.plots import require_matplotlib
from dalle.evaluate.transforms import (
    MEASURES,
    Redrawn,
    TransformEvaluation,
    judged_right,
    summarise,
)
from dalle.evaluate.transforms_report import Example, write_sheet, write_transforms_report
from dalle.folders import model_folder
from dalle.labels import size_text
from dalle.pipeline import TextToImage
from dalle.rerank import find_clip_ranker, rank

JSON_FILE = "transforms.json"
SHEET_CASES = 2
"""Cases of each look that the sheet shows, the first ones."""


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """One case's candidates, measured."""

    closeness: dict[str, np.ndarray]
    scores: dict[str, list[float]]
    images: list[Image.Image]
    best: int
    """The candidate that the ranker puts first."""


def run(settings: EvalTransforms) -> int:
    """Draw, judge and report; 0 when done.

    Raises:
        ModelFormatError: The model or its CLIP cannot be loaded.
        FontError: No usable emoji font was found.
        DalleError: matplotlib is not installed.
        DalleError: A process that judges was killed.
        ValueError: The model's pictures have no two halves of tokens.
        OSError: The report cannot be written.
    """
    require_matplotlib()
    folder, device = model_folder(settings.model), choose_device(settings.device)
    parts = load_model(folder)
    clip = find_clip_ranker(folder, clip=settings.clip, required=False, device=device)
    model = TextToImage(parts, ranker=clip, device=settings.device)
    painter = Painter(find_font(None), _panels_px(model, parts))
    subjects = list_subjects(painter.font, settings.subject_list)
    settings.out.mkdir(parents=True, exist_ok=True)
    evaluation, examples = evaluate_transforms(
        settings, model, parts, painter=painter, subjects=subjects
    )
    write_sheet(examples, settings.out, candidates=settings.candidates)
    page = write_transforms_report(evaluation, settings.out)
    text = json.dumps(asdict(evaluation)) + "\n"
    (settings.out / JSON_FILE).write_text(text, encoding="utf-8")
    sys.stdout.write(text if settings.json else page.read_text(encoding="utf-8"))
    return 0


def evaluate_transforms(
    settings: EvalTransforms,
    model: TextToImage,
    parts: ModelParts,
    *,
    painter: Painter,
    subjects: Sequence[Subject],
) -> tuple[TransformEvaluation, list[Example]]:
    """What is found of a model's transforms, and cases to look at.

    Args:
        settings: How many cases and candidates, and the seed.
        model: Draws, and ranks.
        parts: The same model; its dVAE makes the tokens of true pictures.
        painter: Paints those, at the size of the model's pictures.
        subjects: Everything that may be shown, and that a picture is judged among.
    """
    started = time.perf_counter()
    cases = heldout_cases(painter, subjects, per_look=settings.subjects, seed=settings.seed)
    judging = PanelJudging(
        font=painter.font.path, image_px=painter.image_px, subjects=tuple(subjects)
    )
    ranker = "likelihood" if model.clip is None else "clip"
    with PanelJudges(judging, workers=settings.workers) as judges:
        truths = PanelTruths(parts, cases, judges)
        redrawing = _Redrawing(settings=settings, model=model, judges=judges, ranker=ranker)
        drawn, verdicts = redrawing.redraw(cases, truths)
    redrawn = _gathered(cases, drawn, verdicts, truths)
    evaluation = TransformEvaluation(
        model=settings.model,
        fingerprint=model.fingerprint,
        subjects=settings.subjects,
        candidates=settings.candidates,
        seed=settings.seed,
        temperature=model.sampling.temperature,
        ranker=ranker,
        seconds=round(time.perf_counter() - started, 1),
        zero_shot_looks=tuple(dict.fromkeys(case.look for case in cases if case.is_zero_shot)),
        judged_right=judged_right(redrawn),
        **summarise(redrawn, ranker=ranker, seed=settings.seed),
    )
    return evaluation, _examples(cases, drawn, redrawn.hits["both"])


def _panels_px(model: TextToImage, parts: ModelParts) -> int:
    """Side of the model's pictures, which must be made of an upper and a lower half of tokens."""
    height, width = model.image_px
    if height != width or parts.transformer.sequence.grid_h % 2:
        raise ValueError(
            f"two-panel pictures are square with an even number of token rows, and the model "
            f"draws {size_text(model.image_px)} in {parts.transformer.sequence.grid_h} rows"
        )
    return height


@dataclass(frozen=True, kw_only=True)
class _Redrawing:
    """What every case is drawn and judged with."""

    settings: EvalTransforms
    model: TextToImage
    judges: PanelJudges
    ranker: str
    """The score that candidates are ordered by."""

    def redraw(
        self, cases: Sequence[PanelCase], truths: PanelTruths
    ) -> tuple[list[_Drawn], list[list[PanelVerdict]]]:
        """All candidates of all cases, judged while others are drawn."""
        drawn: list[_Drawn] = []
        found = self.judges.verdicts(self._panels(cases, truths, drawn))
        bar = tqdm(
            found, total=len(cases), unit="case", desc="eval transforms", disable=bar_disabled()
        )
        return drawn, list(bar)

    def _panels(
        self, cases: Sequence[PanelCase], truths: PanelTruths, drawn: list[_Drawn]
    ) -> Iterator[list[JudgedPanel]]:
        """What there is to judge of each case's candidates; they join `drawn` as they come."""
        for number, case in enumerate(cases):
            one = self._draw(case, truths.of(number))
            drawn.append(one)
            yield [
                JudgedPanel(image_u8=np.asarray(image), number=case.number, look=case.look)
                for image in one.images
            ]

    def _draw(self, case: PanelCase, truth: PanelTruth) -> _Drawn:
        result = self.model.generate(
            case.caption, image=case.given, keep_rows=0.5, ranker="none",
            candidates=self.settings.candidates, seed=self.settings.seed,
        ).results[0]  # fmt: skip
        images = [one.image for one in result.images]
        likelihoods = [one.log_likelihood for one in result.images]
        scores = {"likelihood": likelihoods}
        if self.model.clip is not None:
            by_clip = self.model.ranker.scores
            bottoms = [bottom_square(image) for image in images]
            scores["clip whole"] = as_floats(by_clip(case.caption, images, likelihoods))
            scores["clip"] = as_floats(by_clip(case.bottom_caption, bottoms, likelihoods))
        return _Drawn(
            closeness=truth.closeness(
                np.stack([np.asarray(image) for image in images]),
                np.stack([one.tokens for one in result.images]),
            ),
            scores=scores,
            images=images,
            best=rank(scores[self.ranker])[0],
        )


def _gathered(
    cases: Sequence[PanelCase],
    drawn: Sequence[_Drawn],
    verdicts: Sequence[Sequence[PanelVerdict]],
    truths: PanelTruths,
) -> Redrawn:
    """All candidates as arrays."""
    return Redrawn(
        looks=[case.look for case in cases],
        zero_shot=np.array([case.is_zero_shot for case in cases]),
        hits={
            "subject": np.array([[verdict.subject for verdict in one] for one in verdicts]),
            "look": np.array([[verdict.look for verdict in one] for one in verdicts]),
            "both": np.array([[verdict.hit for verdict in one] for one in verdicts]),
        },
        closeness={name: np.stack([one.closeness[name] for one in drawn]) for name in MEASURES},
        yardsticks=truths.yardsticks(),
        scores={name: np.array([one.scores[name] for one in drawn]) for name in drawn[0].scores},
        truths=truths.judged,
    )


def _examples(
    cases: Sequence[PanelCase], drawn: Sequence[_Drawn], hits: np.ndarray
) -> list[Example]:
    """The first cases of each look; `hits`, shape (s, n), bool, says which candidates are right."""
    shown: Counter[str] = Counter()
    examples = []
    for case, one, right in zip(cases, drawn, hits.tolist(), strict=True):
        shown[case.look] += 1
        if shown[case.look] <= SHEET_CASES:
            examples.append(
                Example(
                    subject=case.subject,
                    look=case.look,
                    truth=case.truth,
                    first=one.images[0],
                    best=one.images[one.best],
                    first_hits=right[0],
                    best_hits=right[one.best],
                )
            )
    return examples
