"""Roots of the verbs: one dataclass holds all that a verb of `dalle` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dalle.config.ranges import (
    require_fraction,
    require_not_negative,
    require_positive,
    require_vocabulary,
)
from dalle.config.sampling import SamplingConfig, check_counts, check_seed, override_sampling
from dalle.config.training import (
    ClipObjectiveConfig,
    DataConfig,
    Device,
    LoopConfig,
    OptimConfig,
    TransformerObjectiveConfig,
    VaeObjectiveConfig,
)
from dalle.model_config import ClipConfig, SequenceConfig, TransformerConfig
from dalle.prompts import check_prompt
from vae.config import VaeConfig


@dataclass(frozen=True, kw_only=True)
class DataEmoji:
    """`dalle data emoji`: render captioned emoji scenes as tar shards."""

    out: Path
    """Folder to write; must be empty or not exist."""
    scenes: int
    """Scenes to render."""
    image_px: int = 128
    """Height and width of a scene."""
    seed: int = 0
    """Seed; scene i depends on (seed, split, i) alone."""
    split: Literal["train", "heldout"] = "train"
    """Combinations that training may see, or only those it must not."""
    subjects: Literal["core", "all"] = "all"
    """Every emoji of the font, or the core that a small model can learn (see the data card)."""
    contrasts: bool = False
    """Follow each scene with one that differs from it in one thing: hard negatives for CLIP."""
    font: Path | None = None
    """Colour emoji font; None looks where systems install Noto Color Emoji."""
    shard_scenes: int = 10_000
    """Scenes per tar shard."""
    workers: int = 0
    """Processes that render; 0 takes one per processor."""

    def __post_init__(self) -> None:
        """Refuse counts that make no scenes."""
        require_positive(self, "scenes", "image_px", "shard_scenes")
        if self.image_px % 2:
            raise ValueError(f"image_px must be even (two-panel scenes), got {self.image_px}")
        if self.contrasts and (self.scenes % 2 or self.shard_scenes % 2):
            raise ValueError(
                "with contrasts, scenes come in twos, so scenes and shard_scenes must be even, got "
                f"{self.scenes} and {self.shard_scenes}"
            )
        require_not_negative(self, "workers")


@dataclass(frozen=True, kw_only=True)
class TrainVae:
    """`dalle train vae`: train the discrete VAE on pictures."""

    out: Path
    """Run folder: metrics, samples, checkpoints and the finished model go here."""
    data: DataConfig
    model: VaeConfig = field(default_factory=VaeConfig)
    objective: VaeObjectiveConfig = field(default_factory=VaeObjectiveConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-4, beta2=0.999, weight_decay=1e-4)
    )
    loop: LoopConfig = field(default_factory=LoopConfig)
    resume: bool = False
    """Go on from the newest complete checkpoint in `out`."""

    def __post_init__(self) -> None:
        """Check relations between sections."""
        if self.data.image_px % self.model.stride:
            raise ValueError(
                f"data.image_px ({self.data.image_px}) must be divisible by the dVAE's stride "
                f"({self.model.stride} = 2^(model.groups - 1))"
            )


@dataclass(frozen=True, kw_only=True)
class Tokenize:
    """`dalle tokenize`: turn captioned pictures into tokens, once, for the transformer."""

    data: Path
    """Folder of tar shards, or of pictures with `.txt` captions beside them."""
    vae: Path
    """Folder of a trained dVAE: a run folder of `dalle train vae`, or a model folder."""
    out: Path
    """Token folder to write."""
    image_px: int = 64
    """Height and width of the pictures."""
    crops: int = 1
    """Versions of each picture: the first is the plain one, the others are random crops."""
    tokenizer: Path | None = None
    """An existing tokenizer.json; None trains one on the captions."""
    vocab_size: int = 2048
    """Entries of the caption vocabulary when one is trained."""
    batch: int = 64
    """Pictures encoded at a time."""
    seed: int = 0
    """Seed of the crops."""
    device: Device = "auto"
    """Where the dVAE runs."""
    max_bad_fraction: float = 0.05
    """Stop when more than this part of the samples was unreadable."""

    def __post_init__(self) -> None:
        """Refuse counts that make no token set."""
        require_positive(self, "image_px", "crops", "batch")
        require_fraction(self, "max_bad_fraction")
        require_vocabulary(self)


@dataclass(frozen=True, kw_only=True)
class TrainTransformer:
    """`dalle train transformer`: train the joint model on a token folder."""

    out: Path
    """Run folder; the finished model folder is written to `out`/model."""
    tokens: Path
    """Token folder written by `dalle tokenize`."""
    heldout_tokens: Path | None = None
    """A token folder that is never trained on; None sets aside part of `tokens`."""
    heldout_fraction: float = 0.02
    """Part of `tokens` set aside when `heldout_tokens` is not given."""
    init: Path | None = None
    """Model folder to go on from (fine-tuning), of the same shape, dVAE and tokenizer; None starts
    with random weights."""
    text_len: int = 64
    """Caption tokens per sequence; the other lengths come from the token folder."""
    model: TransformerConfig = field(default_factory=TransformerConfig)
    objective: TransformerObjectiveConfig = field(default_factory=TransformerObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    sample_captions: tuple[str, ...] = ("a fox", "a pizza", "a red car", "two apples")
    """Captions drawn on the sample sheets during training."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling settings that the published model recommends; used on the sample sheets too."""
    publish_dtype: Literal["fp32", "fp16"] = "fp32"
    """Type in which the finished model's weights are stored."""
    resume: bool = False
    """Go on from the newest complete checkpoint in `out`."""

    def __post_init__(self) -> None:
        """Refuse an empty text half."""
        require_positive(self, "text_len")
        require_fraction(self, "heldout_fraction")

    def sequence(
        self, *, text_vocab: int, grid: tuple[int, int], image_vocab: int
    ) -> SequenceConfig:
        """The joint sequence this run trains on, given what the token folder holds."""
        return SequenceConfig(
            text_len=self.text_len,
            text_vocab=text_vocab,
            grid_h=grid[0],
            grid_w=grid[1],
            image_vocab=image_vocab,
        )


@dataclass(frozen=True, kw_only=True)
class TrainClip:
    """`dalle train clip`: train a small CLIP that ranks candidates."""

    out: Path
    """Run folder; the finished CLIP folder is written to `out`/model."""
    data: DataConfig
    tokenizer: Path | None = None
    """The tokenizer.json of the model it will rank for; None trains one on the captions."""
    vocab_size: int = 2048
    """Entries of the caption vocabulary when one is trained."""
    vae: Path | None = None
    """Folder of the dVAE it will rank for; None shows it undisturbed pictures only."""
    model: ClipConfig = field(default_factory=ClipConfig)
    objective: ClipObjectiveConfig = field(default_factory=ClipObjectiveConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-3, beta2=0.98, weight_decay=0.1)
    )
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=128))
    publish_dtype: Literal["fp32", "fp16"] = "fp32"
    """Type in which the finished weights are stored."""
    resume: bool = False
    """Go on from the newest complete checkpoint in `out`."""

    def __post_init__(self) -> None:
        """Refuse vocabularies without room for the bytes."""
        require_vocabulary(self)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """`dalle pack`: make one folder to publish of a model, its CLIP, its card and its settings."""

    model: Path
    """A finished run of `dalle train transformer`, or a model folder."""
    out: Path
    """Model folder to write; replaced if it exists."""
    clip: Path | None = None
    """A finished run of `dalle train clip` with the model's tokenizer; None keeps what is there."""
    card: Path | None = None
    """Markdown file that becomes the model card; None keeps the one that is there."""
    temperature: float | None = None
    """Recommended sampling temperature; None keeps the model's."""
    top_k: int | None = None
    """Recommended top-k; None keeps the model's."""
    top_p: float | None = None
    """Recommended top-p; None keeps the model's."""
    guidance_scale: float | None = None
    """Recommended guidance scale; None keeps the model's."""

    def __post_init__(self) -> None:
        """Refuse sampling settings out of range."""
        self.sampling(SamplingConfig())

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """`default` with whatever was set on the command line."""
        return override_sampling(
            default,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            guidance_scale=self.guidance_scale,
        )


@dataclass(frozen=True, kw_only=True)
class Generate:
    """`dalle generate`: draw pictures for captions."""

    captions: tuple[str, ...] = ()
    """What to draw, one caption or several."""
    model: str = "emoji"
    """Name of a bundled model, or a model folder."""
    candidates: int = 16
    """Pictures drawn for each caption."""
    keep: int | None = None
    """Best pictures kept for each caption; None keeps 4, or all of them if fewer are drawn."""
    seed: int = 0
    """Seed; a picture depends on its caption, this, its number and the settings alone."""
    out: Path = Path("pictures")
    """Folder the pictures are written to."""
    temperature: float | None = None
    """Divides the logits, 0 takes the likeliest token; None takes the model's own setting."""
    top_k: int | None = None
    """Keep only this many likeliest tokens; None takes the model's own setting."""
    top_p: float | None = None
    """Keep the fewest tokens that hold this mass; None takes the model's own setting."""
    guidance_scale: float | None = None
    """How closely to follow the caption, 1 is off; None takes the model's own setting."""
    ranker: Literal["auto", "clip", "likelihood", "none"] = "auto"
    """What orders the candidates; auto is CLIP where there is one, else likelihood."""
    clip: str | None = None
    """A folder of `dalle train clip`, or an open_clip model such as ViT-B-32/laion2b_s34b_b79k or
    local-dir:FOLDER; None takes the model's own."""
    require_clip: bool = False
    """End with an error where the CLIP cannot be had, rather than go on without order."""
    like: Path | None = None
    """Redraw a picture made earlier, exactly, from the settings stored in its PNG."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where to draw."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, before anything is loaded."""
        check_counts(candidates=self.candidates, keep=self.kept)
        check_seed(self.seed)
        self.sampling(SamplingConfig())
        if bool(self.captions) == (self.like is not None):
            raise ValueError(
                "give one caption or several to draw, such as 'a fox', or --like PICTURE.png; "
                f"got {len(self.captions)} captions and --like {self.like}"
            )
        for caption in self.captions:
            check_prompt(caption)

    @property
    def kept(self) -> int:
        """How many pictures of a caption are kept."""
        return min(4, self.candidates) if self.keep is None else self.keep

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """`default` with whatever was set on the command line."""
        return override_sampling(
            default,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            guidance_scale=self.guidance_scale,
        )


@dataclass(frozen=True, kw_only=True)
class EvalModel:
    """`dalle eval`: how often a model draws what captions say, and what ranking adds."""

    out: Path
    """Folder for the report, its plots, a sheet of the best pictures and eval.json."""
    model: str = "emoji"
    """Name of a bundled model, or a model folder."""
    set: str = "heldout"
    """Captions: `heldout` or `train` (emoji scenes with ground truth), or a .txt, .csv or .tsv."""
    captions: int = 200
    """Captions evaluated."""
    candidates: int = 32
    """Pictures drawn for each caption."""
    temperatures: tuple[float, ...] = ()
    """Sampling temperatures to compare, the first for all but the comparison; empty takes the
    model's own."""
    seed: int = 0
    """Seed of the pictures and of the intervals' resampling."""
    scene_seed: int = 1
    """Seed of the emoji scenes; training sets of the recipes have 0."""
    subjects: Literal["core", "all"] = "core"
    """Subject list that the model was trained on; read for emoji scenes only."""
    train_data: Path | None = None
    """Pictures the model was trained on, to look for copies among; None leaves that out."""
    clip: str | None = None
    """CLIP that ranks, as for `dalle generate`; None takes the model's own."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where to draw."""

    def __post_init__(self) -> None:
        """Refuse what evaluates nothing."""
        require_positive(self, "captions")
        check_counts(candidates=self.candidates, keep=self.candidates)
        check_seed(self.seed)
        for temperature in self.temperatures:
            SamplingConfig(temperature=temperature)


@dataclass(frozen=True, kw_only=True)
class EvalVae:
    """`dalle eval vae`: how well a dVAE reconstructs pictures it was not trained on."""

    vae: Path
    """Folder of a trained dVAE."""
    data: Path
    """Folder of pictures; subject retrieval needs emoji scenes with ground truth."""
    image_px: int = 64
    """Height and width of the pictures."""
    samples: int = 500
    """Pictures evaluated, the first of the folder."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where the dVAE runs."""

    def __post_init__(self) -> None:
        """Refuse counts that evaluate nothing."""
        require_positive(self, "image_px", "samples")
