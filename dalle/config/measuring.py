"""Roots of the verbs that measure models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dalle.config.ranges import require_not_negative, require_positive, require_size
from dalle.config.sampling import SamplingConfig, check_counts, check_seed
from dalle.config.training import Device
from dalle.model_config import height_and_width


@dataclass(frozen=True, kw_only=True)
class EvalModel:
    """`dalle eval`: how often a model draws what captions say, and what ranking adds."""

    out: Path
    """Folder for the report, its plots, a sheet of the best pictures and eval.json."""
    model: str = "emoji"
    """Name of a bundled model, or a model folder."""
    set: str = "heldout"
    """Captions: `heldout` or `train` (emoji scenes with ground truth), a .txt, .csv or .tsv, or a
    folder or table of captioned pictures that training never saw, drawn by lot."""
    captions: int = 200
    """Captions evaluated, each once where they come with pictures."""
    candidates: int = 32
    """Pictures drawn for each caption."""
    temperatures: tuple[float, ...] = ()
    """Sampling temperatures to compare, the first for all but the comparison; empty takes the
    model's own. Several need emoji scenes."""
    seed: int = 0
    """Seed of the pictures and of the intervals' resampling."""
    scene_seed: int = 1
    """Seed of the emoji scenes; with 1 they are the first of the held-out set of the recipe, which
    training measures its loss on, and no training set's."""
    subjects: Literal["core", "all"] = "core"
    """Subject list that the model was trained on; read for emoji scenes only."""
    train_data: Path | None = None
    """Pictures the model was trained on, to look for copies among; None leaves that out. Needs
    emoji scenes or a folder of pictures."""
    clip: str | None = None
    """CLIP that ranks, as for `dalle generate`; None takes the model's own."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where to draw."""
    workers: int = 0
    """Processes that judge emoji scenes; 0 takes one per processor, 1 judges between drawings."""

    def __post_init__(self) -> None:
        """Refuse what evaluates nothing."""
        require_positive(self, "captions")
        require_not_negative(self, "workers")
        check_counts(candidates=self.candidates, keep=self.candidates)
        check_seed(self.seed)
        for temperature in self.temperatures:
            SamplingConfig(temperature=temperature)
        if len(self.temperatures) > 1 and not self.of_scenes:
            raise ValueError(
                f"more than one of temperatures needs captions with ground truth, and set is "
                f"{self.set}; leave the others out, or take heldout or train"
            )

    @property
    def of_scenes(self) -> bool:
        """Whether the captions are those of emoji scenes, whose truth and pictures are known."""
        return self.set in ("heldout", "train")


@dataclass(frozen=True, kw_only=True)
class EvalVae:
    """`dalle eval vae`: how well a dVAE reconstructs pictures it was not trained on."""

    vae: Path
    """Folder of a trained dVAE."""
    data: Path
    """Folder of pictures; subject retrieval needs emoji scenes with ground truth."""
    image_px: int | None = None
    """Height to bring pictures to, and width too where `width_px` is null; None keeps emoji scenes'
    own, and makes others 64."""
    width_px: int | None = None
    """Width to bring pictures to, if they are not to be square."""
    samples: int = 500
    """Pictures evaluated, the first of the folder."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where the dVAE runs."""
    workers: int = 0
    """Processes that judge emoji scenes; 0 takes one per processor."""

    def __post_init__(self) -> None:
        """Refuse counts that evaluate nothing."""
        require_positive(self, "samples")
        require_not_negative(self, "workers")
        if self.image_px is not None:
            require_size(self)
        elif self.width_px is not None:
            raise ValueError(
                f"width_px ({self.width_px}) goes with image_px, the height; give both"
            )

    @property
    def size_px(self) -> tuple[int, int] | None:
        """Height and width to bring pictures to, if they are named."""
        return None if self.image_px is None else height_and_width(self.image_px, self.width_px)


@dataclass(frozen=True, kw_only=True)
class EvalTransforms:
    """`dalle eval transforms`: how well a model redraws held-out subjects in other looks."""

    out: Path
    """Folder for the report, its plot, a sheet of unselected examples and transforms.json."""
    model: str = "emoji"
    """Name of a bundled model, or a model folder."""
    subjects: int = 10
    """Subjects for each transform, drawn from those that training never showed in its look."""
    candidates: int = 16
    """Pictures drawn for each subject and transform."""
    seed: int = 0
    """Seed of the choice of subjects, of the pictures and of the intervals' resampling."""
    subject_list: Literal["core", "all"] = "core"
    """Subject list that the model was trained on."""
    clip: str | None = None
    """CLIP that ranks, as for `dalle generate`; None takes the model's own."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where to draw."""
    workers: int = 0
    """Processes that judge, 0.2 GB each (`all`: 1 GB); 0 takes one per processor, 1 judges between
    drawings."""

    def __post_init__(self) -> None:
        """Refuse what evaluates nothing."""
        require_positive(self, "subjects")
        require_not_negative(self, "workers")
        check_counts(candidates=self.candidates, keep=self.candidates)
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """`dalle probe`: what a model's layers know of pictures, by linear classifiers on them."""

    out: Path
    """Folder for the report, its plots and probe.json."""
    model: str = "emoji"
    """Name of a bundled model, or a model folder."""
    data: Path | None = None
    """Labelled pictures, a sub-folder for each class; None takes the groups of the emoji."""
    labels: tuple[int, ...] = (10, 50, 250)
    """Training pictures for each class: the depth plot is made with the most, the others show how
    few will do."""
    folds: int = 4
    """Quarters of each class's things that are tested on, one after another, 1 to 4; classifiers
    learn from the other three."""
    test_pictures: int = 50
    """Pictures of each class that accuracy is measured on in each fold, at most."""
    repeats: int = 3
    """Choices of training pictures that an accuracy with few labels is the mean of."""
    seed: int = 0
    """Seed of the pictures, of their split and of the intervals' resampling."""
    subject_list: Literal["core", "all"] = "core"
    """Emoji to take; read where no data are given."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where features are computed."""

    def __post_init__(self) -> None:
        """Refuse what trains or tests nothing."""
        require_positive(self, "test_pictures", "repeats")
        if not 1 <= self.folds <= 4:
            raise ValueError(f"folds must be from 1 to 4, got {self.folds}; they are quarters")
        if not self.labels or min(self.labels) < 2 or sorted(set(self.labels)) != list(self.labels):
            raise ValueError(
                "labels must be different numbers from 2 on, in rising order, such as "
                f"'[10, 50, 250]', got {list(self.labels)}"
            )
        check_seed(self.seed)
