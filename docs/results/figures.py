"""Figures of this folder, drawn again from a run's metrics and its model.

    python docs/results/figures.py curves docs/results/emoji-cpu docs/results/emoji-cpu-curves.png
    python docs/results/figures.py sheet emoji docs/results/emoji-cpu-sheet.png

    python docs/results/figures.py best emoji docs/results/emoji-cpu-best.png
    python docs/results/figures.py completions emoji docs/results/emoji-transforms/completions.png
    python docs/results/figures.py regions emoji docs/results/emoji-cpu-regions.png

The sheet is unselected: one candidate for each of 32 fixed captions, seed 0, candidate 0. `best`
shows for the same captions what `dalle generate` would: the first of 16 as the model ranks them.
`completions` is the figure of Image GPT: upper halves, completed without a caption, unselected.
`regions` takes the model's own first pictures, and draws a part of each anew: the first of 32.

emoji-cpu-dvae-curve.png, the first decoder's `curves`, cannot be drawn again: its vae.jsonl was not
kept.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from dalle import TextToImage
from dalle.data.emoji.font import find_font
from dalle.data.emoji.render import Painter
from dalle.data.emoji.scene import Cell, Placed, Scene
from dalle.data.emoji.subjects import list_subjects
from dalle.sheets import labelled_grid, picture_grid
from dalle.train.metrics import read_metrics

SEEN_CAPTIONS = (
    "a fox",
    "a pizza",
    "a robot",
    "an owl",
    "a balloon",
    "a strawberry",
    "a smiling face with sunglasses",
    "a bicycle",
    "a cat on a blue background",
    "a rocket on a black background",
    "a small frog",
    "three apples",
    "a dog above a car",
    "a sketch of a lion",
    "a postage stamp with a penguin",
    "the exact same tiger on the top as a sketch on the bottom",
)
"""Combinations that training may have seen; a test makes sure of it."""

HELDOUT_CAPTIONS = (
    "a dog on a red background",
    "a tiger on a blue background",
    "a penguin on a pink background",
    "a teapot on a red background",
    "a bear on a purple background",
    "a lion on an orange background",
    "a crown on a black background",
    "a sunflower on a blue background",
    "a sketch of a dog",
    "a sketch of a banana",
    "a hamburger colored red",
    "an upside-down octopus",
    "two bicycles",
    "a robot with sunglasses",
    "a fox to the left of an owl",
    "the exact same cat on the top colored green on the bottom",
)
"""Combinations held out of training; a test makes sure of it."""

COMPLETED = (
    ("strawberry", "white"),
    ("robot", "white"),
    ("penguin", "pink"),
    ("dog", "red"),
    ("tiger", "blue"),
    ("sunflower", "blue"),
)
"""Subjects and backgrounds of the pictures to complete; the colours are held out of training."""

COMPLETIONS = 6
"""Candidates 0 on, in the order in which they were drawn."""

REGIONS = (
    ("a dog next to a pizza", (0.0, 0.0, 0.5, 1.0), "an apple next to a pizza"),
    ("a fox above a car", (0.0, 0.0, 1.0, 0.5), "a cat above a car"),
    ("an owl", (0.125, 0.1875, 0.875, 0.5625), "an owl with sunglasses"),
    ("a pizza", (0.375, 0.375, 0.75, 0.75), "a pizza"),
    ("a fox on a blue background", (0.125, 0.0625, 0.9375, 0.9375), "a dog on a blue background"),
    ("two apples", (0.5, 0.0, 1.0, 1.0), "an apple next to a banana"),
    ("a pig", (0.5, 0.0, 1.0, 1.0), "a pig"),
    ("a robot", (0.0, 0.0, 1.0, 0.375), "a robot with a hat"),
)
"""What is drawn first, the part of it that is drawn anew, and the caption for that."""

COLUMNS = 8

_VAE_CURVES = {"reconstruction": "training", "heldout_reconstruction": "held out"}

_TRANSFORMER_CURVES = {
    "image_loss": "image, training",
    "heldout_image_loss": "image, held out",
    "text_loss": "text, training",
    "heldout_text_loss": "text, held out",
}

_CLIP_CURVES = {
    "heldout_text_to_image_r1": "caption finds picture (of 1,024)",
    "heldout_image_to_text_r1": "picture finds caption (of 1,024)",
    "heldout_contrast": "told from its hard negative",
}

_PASSES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def _passes(
    stage: str, count: int, *, title: str, unit: str, curves: dict[str, str]
) -> dict[str, tuple[str, str, dict[str, str]]]:
    """A stage that was trained in several passes; only those after the first have a suffix."""
    return {
        stage if number == 0 else f"{stage}-{name}": (title.format(name), unit, curves)
        for number, name in enumerate(_PASSES[:count])
    }


STAGES = {
    "vae": (
        "dVAE: reconstruction loss",
        "mean absolute error",
        _VAE_CURVES,
    ),
    "decoder": (
        "dVAE's wider decoder: reconstruction loss",
        "mean absolute error",
        _VAE_CURVES,
    ),
    **_passes(
        "transformer",
        8,
        title="joint transformer, {} pass",
        unit="nats per token",
        curves=_TRANSFORMER_CURVES,
    ),
    **_passes(
        "clip", 3, title="CLIP, {} pass: held-out retrieval", unit="share", curves=_CLIP_CURVES
    ),
}
"""Titles, units and curves by stage."""


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("figure", choices=("curves", "sheet", "best", "completions", "regions"))
    parser.add_argument(
        "source", help="folder of the runs' metrics (transformer.jsonl, ...), or a model"
    )
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args(argv)
    if chosen.figure == "curves":
        draw_curves(Path(chosen.source), chosen.out)
    elif chosen.figure == "completions":
        draw_completions(chosen.source, chosen.out)
    elif chosen.figure == "regions":
        draw_regions(chosen.source, chosen.out)
    else:
        draw_sheet(chosen.source, chosen.out, candidates=16 if chosen.figure == "best" else 1)
    return 0


def draw_sheet(model: str, out: Path, *, candidates: int) -> None:
    """The best candidate for each fixed caption, the held-out combinations below the others."""
    captions = (*SEEN_CAPTIONS, *HELDOUT_CAPTIONS)
    drawn = TextToImage.from_pretrained(model).generate(captions, candidates=candidates, keep=1)
    labels = [*SEEN_CAPTIONS, *(f"[held out] {caption}" for caption in HELDOUT_CAPTIONS)]
    picture_grid([image.image for image in drawn.images], columns=COLUMNS, labels=labels).save(out)


def draw_completions(model: str, out: Path) -> None:
    """Upper halves of pictures, what the model makes of them, and the pictures: a row for each."""
    drawer = TextToImage.from_pretrained(model)
    painter = Painter(find_font(None), drawer.image_px[0])
    subjects = {one.name: one for one in list_subjects(painter.font, "core")}
    pictures, rows = [], []
    for name, background in COMPLETED:
        placed = (Placed(subject=subjects[name], cell=Cell(4, 4, 24)),)
        whole = painter.paint(Scene(kind="plain", placed=placed, background=background)).image
        drawn = drawer.generate(None, image=whole, candidates=COMPLETIONS, ranker="none").results[0]
        assert drawn.prompt is not None, "a result that goes on from a picture holds it"
        pictures += [drawn.prompt.image, *(image.image for image in drawn.images), whole]
        rows.append(f"{name} on {background}")
    columns = ["given", *(f"no. {number}" for number in range(COMPLETIONS)), "original"]
    labelled_grid(pictures, columns=columns, rows=rows).save(out)


def draw_regions(model: str, out: Path) -> None:
    """Pictures, the part of each that is drawn anew, and what comes of it: two cases to a row."""
    drawer = TextToImage.from_pretrained(model)
    pictures, labels = [], []
    for before, region, after in REGIONS:
        given = drawer.generate(before, candidates=16, keep=1).images[0].image
        drawn = drawer.generate(after, image=given, region=region, candidates=32, keep=1).results[0]
        assert drawn.prompt is not None, "a result that goes on from a picture holds it"
        pictures += [given, drawn.prompt.image, drawn.images[0].image]
        labels += [before, "grey is drawn anew", after]
    picture_grid(pictures, columns=6, labels=labels).save(out)


def draw_curves(folder: Path, out: Path) -> None:
    """Training and held-out curves of the stages whose metrics are in `folder`, three to a row."""
    stages = [stage for stage in STAGES if (folder / f"{stage}.jsonl").is_file()]
    columns, rows = min(3, len(stages)), math.ceil(len(stages) / 3)
    size = (4.4 * columns, 3.3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for panel in axes.flat[len(stages) :]:
        panel.remove()
    named: list[dict[str, str]] = []
    for stage, panel in zip(stages, axes.flat, strict=False):
        title, unit, names = STAGES[stage]
        _plot(panel, folder / f"{stage}.jsonl", names, log=unit != "share")
        panel.set(title=title, xlabel="step", ylabel=unit)
        if names not in named:  # once for all panels of a kind, whose curves have the same colours
            panel.legend()
            named.append(names)
    figure.savefig(out, dpi=110)


def _plot(axes: Axes, metrics: Path, names: dict[str, str], *, log: bool) -> None:
    lines = list(read_metrics(metrics))
    for name, label in names.items():
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, alpha=0.25)


if __name__ == "__main__":
    raise SystemExit(main())
