"""The typed tree behind every command: file schema, flags and Python API are this one thing.

Each verb of `dalle` has one root dataclass here. YAML files and `--section.key value` flags are
read into it by `dalle.flags`. Nothing in this file, nor in what it imports, may import torch, so
that help and usage errors answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dalle.model_config import SequenceConfig, TransformerConfig
from vae.config import VaeConfig

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]

MAX_CANDIDATES = 4096
"""More candidates of one caption than anybody has drawn; guards against a slip of the hand."""


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value <= 0:
            raise ValueError(f"{name} must be greater than 0, got {value}")


def _require_fraction(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")


# ----------------------------------------------------------------------------- training sections


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay; the betas are the paper's for each stage."""

    lr: float = 4.5e-4
    """Highest learning rate, reached after the warm-up."""
    final_lr_fraction: float = 0.05
    """Learning rate at the last step, as a fraction of `lr`."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises linearly from 0."""
    beta1: float = 0.9
    """AdamW's decay of the gradient mean."""
    beta2: float = 0.96
    """AdamW's decay of the squared-gradient mean."""
    weight_decay: float = 4.5e-2
    """AdamW's weight decay; applied to matrices only, never to gains, biases and embeddings."""
    clip_norm: float = 4.0
    """Gradients are scaled down to this global norm."""

    def __post_init__(self) -> None:
        """Refuse rates and decays outside their ranges."""
        _require_positive(self, "lr", "clip_norm")
        _require_fraction(self, "final_lr_fraction", "beta1", "beta2")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise ValueError(
                "warmup_steps and weight_decay must not be negative, got "
                f"{self.warmup_steps} and {self.weight_decay}"
            )


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The training loop, the same for every stage."""

    steps: int = 10_000
    """Optimizer updates in all."""
    batch: int = 32
    """Samples per step."""
    accumulate: int = 1
    """Micro-batches that a step's samples are split into, to save memory."""
    ema_decay: float = 0.999
    """Decay of the averaged weights, which are the ones published."""
    seed: int = 0
    """Seed of initialisation, data order, augmentation and noise."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    eval_every: int = 500
    """Steps between evaluations on the held-out set."""
    sample_every: int = 1000
    """Steps between sample sheets."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Complete checkpoints kept; older ones are deleted."""
    workers: int = 0
    """Processes that load data; 0 loads in the training process."""
    device: Device = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Precision = "auto"
    """Autocast type; auto is bf16 where the processor or GPU computes it natively."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the extra `log`)."""

    def __post_init__(self) -> None:
        """Refuse counts that make no run."""
        _require_positive(
            self, "steps", "batch", "accumulate", "log_every", "eval_every", "sample_every",
            "save_every", "keep_checkpoints",
        )  # fmt: skip
        _require_fraction(self, "ema_decay")
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch ({self.batch}) must be divisible by accumulate ({self.accumulate})"
            )
        if self.workers < 0:
            raise ValueError(f"workers must not be negative, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where captioned pictures come from and how they are cut."""

    train: Path
    """Folder of tar shards, or of pictures with `.txt` captions beside them."""
    heldout: Path | None = None
    """A folder like `train` that is never trained on; None sets aside part of `train`."""
    heldout_fraction: float = 0.02
    """Part of `train` set aside when `heldout` is not given."""
    image_px: int = 64
    """Height and width of the pictures the model sees."""
    augment: Literal["none", "paper"] = "none"
    """Random crops as in the paper's listings, or a plain resize and centre crop."""
    max_bad_fraction: float = 0.05
    """Training stops when more than this part of the samples read so far was unreadable."""

    def __post_init__(self) -> None:
        """Refuse impossible sizes and fractions."""
        _require_positive(self, "image_px")
        _require_fraction(self, "heldout_fraction", "max_bad_fraction")


@dataclass(frozen=True, kw_only=True)
class VaeObjectiveConfig:
    """Annealing of the dVAE's objective; every schedule is a half cosine (paper, appendix A.2)."""

    tau_start: float = 1.0
    """Gumbel-softmax temperature at step 0."""
    tau_end: float = 0.0625
    """Gumbel-softmax temperature once annealed (the paper's 1/16)."""
    tau_steps: int = 150_000
    """Steps over which tau falls."""
    kl_weight: float = 6.6
    """Final weight of the KL term, before the ELB is divided by the number of pixel values."""
    kl_steps: int = 5000
    """Steps over which the KL weight rises from 0."""
    commitment_weight: float = 0.25
    """Pull of encoder features to their code; read by `quantizer: nearest` only."""
    min_usage: float = 0.1
    """A warning is logged while a smaller part of the codebook than this is in use."""

    def __post_init__(self) -> None:
        """Refuse temperatures and weights outside their ranges."""
        _require_positive(self, "tau_start", "tau_end", "tau_steps", "kl_steps")
        _require_fraction(self, "min_usage")
        if self.kl_weight < 0 or self.commitment_weight < 0:
            raise ValueError(
                "kl_weight and commitment_weight must not be negative, got "
                f"{self.kl_weight} and {self.commitment_weight}"
            )


@dataclass(frozen=True, kw_only=True)
class TransformerObjectiveConfig:
    """The joint model's objective (paper, section 2.2)."""

    text_weight: float = 0.125
    """Weight of the text cross-entropy; the image's is 1 minus this."""
    caption_dropout: float = 0.1
    """Probability that a training caption becomes the null caption, which guidance needs."""
    bpe_dropout: float = 0.1
    """Probability that a BPE merge is skipped, in training only."""

    def __post_init__(self) -> None:
        """Refuse weights and probabilities outside 0 to 1."""
        _require_fraction(self, "text_weight", "caption_dropout", "bpe_dropout")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How image tokens are drawn; applied in the order temperature, top_k, top_p."""

    temperature: float = 1.0
    """Divides the logits; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Keep only this many likeliest tokens; None keeps all."""
    top_p: float = 1.0
    """Keep the fewest tokens that hold this probability mass; 1 keeps all."""
    guidance_scale: float = 1.0
    """null + scale * (conditional - null); 1 is off and costs nothing."""

    def __post_init__(self) -> None:
        """Refuse values outside their ranges, naming the remedy."""
        if not 0 <= self.temperature <= 100:
            raise ValueError(
                f"temperature must be between 0 (greedy) and 100, got {self.temperature}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}; leave it out for all")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}; 1 keeps every token")
        if not 0 <= self.guidance_scale <= 100:
            raise ValueError(
                f"guidance_scale must be between 0 and 100, got {self.guidance_scale}; 1 is off"
            )


def override_sampling(default: SamplingConfig, **values: float | None) -> SamplingConfig:
    """`default` with every value that is not None.

    Raises:
        ValueError: A value lies outside its range.
    """
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return replace(default, **given)


def check_counts(*, candidates: int, keep: int) -> None:
    """Refuse counts that make no pictures.

    Raises:
        ValueError: `candidates` or `keep` is out of range.
    """
    if not 1 <= candidates <= MAX_CANDIDATES:
        raise ValueError(f"candidates must be between 1 and {MAX_CANDIDATES:,}, got {candidates}")
    if not 1 <= keep <= candidates:
        raise ValueError(
            f"keep must be between 1 and candidates ({candidates}), got {keep}; "
            "draw more candidates or keep fewer"
        )


# --------------------------------------------------------------------------------- roots of verbs


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
    font: Path | None = None
    """Colour emoji font; None looks where systems install Noto Color Emoji."""
    shard_scenes: int = 10_000
    """Scenes per tar shard."""
    workers: int = 0
    """Processes that render; 0 takes one per processor."""

    def __post_init__(self) -> None:
        """Refuse counts that make no scenes."""
        _require_positive(self, "scenes", "image_px", "shard_scenes")
        if self.image_px % 2:
            raise ValueError(f"image_px must be even (two-panel scenes), got {self.image_px}")
        if self.workers < 0:
            raise ValueError(f"workers must not be negative, got {self.workers}")


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
        _require_positive(self, "image_px", "crops", "batch")
        _require_fraction(self, "max_bad_fraction")
        if self.vocab_size < 257:
            raise ValueError(
                f"vocab_size must be at least 257 (256 bytes and one merge), got {self.vocab_size}"
            )


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
        _require_positive(self, "text_len")
        _require_fraction(self, "heldout_fraction")

    def sequence(self, *, text_vocab: int, grid: tuple[int, int], image_vocab: int) -> SequenceConfig:
        """The joint sequence this run trains on, given what the token folder holds."""
        return SequenceConfig(
            text_len=self.text_len,
            text_vocab=text_vocab,
            grid_h=grid[0],
            grid_w=grid[1],
            image_vocab=image_vocab,
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
    keep: int = 4
    """Best pictures kept for each caption."""
    seed: int = 0
    """Seed; candidate i of a caption depends on (seed, i) alone."""
    out: Path = Path("pictures")
    """Folder the pictures are written to."""
    temperature: float | None = None
    """Divides the logits; 0 always takes the likeliest token; None takes the model's own setting."""
    top_k: int | None = None
    """Keep only this many likeliest tokens; None takes the model's own setting."""
    top_p: float | None = None
    """Keep the fewest tokens that hold this mass; None takes the model's own setting."""
    guidance_scale: float | None = None
    """How closely to follow the caption, 1 is off; None takes the model's own setting."""
    like: Path | None = None
    """Redraw a picture made earlier, exactly, from the settings stored in its PNG."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where to draw."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, before anything is loaded."""
        check_counts(candidates=self.candidates, keep=self.keep)
        self.sampling(SamplingConfig())
        if bool(self.captions) == (self.like is not None):
            raise ValueError(
                "give one caption or several to draw, such as \"a fox\", or --like PICTURE.png; "
                f"got {len(self.captions)} captions and --like {self.like}"
            )

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
        _require_positive(self, "image_px", "samples")
