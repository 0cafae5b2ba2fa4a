"""Sections of the training verbs: data, optimizer, loop and the two objectives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dalle.config.ranges import (
    require_decay,
    require_fraction,
    require_not_negative,
    require_positive,
    require_size,
)
from dalle.model_config import height_and_width

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
Optimizer = Literal["adamw", "muon"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer with linear warm-up and cosine decay; the betas are the paper's for each stage."""

    optimizer: Optimizer = "adamw"
    """AdamW for all weights, or Muon for the matrices of linear layers and AdamW for the rest."""

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
    """Weight decay; applied to matrices only, never to gains, biases and embeddings."""
    clip_norm: float = 4.0
    """Gradients are scaled down to this global norm."""

    def __post_init__(self) -> None:
        """Refuse rates and decays outside their ranges."""
        require_positive(self, "lr", "clip_norm")
        require_fraction(self, "final_lr_fraction")
        require_decay(self, "beta1", "beta2")
        require_not_negative(self, "warmup_steps", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The training loop, the same for every stage."""

    steps: int = 10_000
    """Optimizer updates in all."""
    batch: int = 32
    """Samples per step; for CLIP on data that belong together in groups (`dalle data emoji
    --contrasts`), groups per step."""
    accumulate: int = 1
    """Micro-batches that a step's samples are split into, to save memory, or for several processes
    to share. CLIP compares within a micro-batch, so for it smaller ones make an easier task, and a
    worse model."""
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
    compile: bool = False
    """Have torch compile the model's parts first: a minute or more, for every run anew. Made for
    GPUs; on a CPU steps were no shorter."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the extra `log`)."""

    def __post_init__(self) -> None:
        """Refuse counts that make no run."""
        require_positive(
            self, "steps", "batch", "accumulate", "log_every", "eval_every", "sample_every",
            "save_every", "keep_checkpoints",
        )  # fmt: skip
        require_fraction(self, "ema_decay")
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch ({self.batch}) must be divisible by accumulate ({self.accumulate})"
            )
        require_not_negative(self, "workers")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where captioned pictures come from and how they are cut."""

    train: Path
    """Captioned pictures: a folder of them, each with its `.txt` or all in a metadata.csv, .tsv or
    .jsonl; such a table under any name; or a folder of tar shards."""
    heldout: Path | None = None
    """Pictures like `train` that are never trained on; None sets aside part of `train`."""
    heldout_fraction: float = 0.02
    """Part of `train` set aside when `heldout` is not given."""
    image_px: int = 64
    """Height of the pictures the model sees, and their width too where `width_px` is null."""
    width_px: int | None = None
    """Width, if they are not to be square."""
    augment: Literal["none", "paper"] = "none"
    """Random crops as in the paper's listings, or a plain resize and centre crop. Half of the
    dVAE's crops are mirrored; CLIP's never are, since captions may name sides and writing."""
    max_bad_fraction: float = 0.05
    """Training stops when more of the samples are unreadable, beyond what chance explains."""

    def __post_init__(self) -> None:
        """Refuse impossible sizes and fractions."""
        require_size(self)
        require_fraction(self, "heldout_fraction", "max_bad_fraction")

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return height_and_width(self.image_px, self.width_px)


@dataclass(frozen=True, kw_only=True)
class VaeObjectiveConfig:
    """Annealing of the dVAE's objective; every schedule is a half cosine (paper, appendix A.2)."""

    tau_start: float = 1.0
    """Gumbel-softmax temperature at step 0."""
    tau_end: float = 0.0625
    """Gumbel-softmax temperature once annealed (the paper's 1/16)."""
    tau_steps: int | None = None
    """Steps over which tau falls (the paper's 150,000); None takes the whole run. A decoder that
    saw a high tau alone never met the hard codes that all later stages give it."""
    kl_weight: float = 6.6
    """Final weight of the KL term, before the ELB is divided by the number of pixel values."""
    kl_steps: int | None = None
    """Steps over which the KL weight rises from 0 (the paper's 5,000); None takes half the run."""
    commitment_weight: float = 0.25
    """Pull of encoder features to their code; read by `quantizer: nearest` only."""
    min_usage: float = 0.1
    """A warning is logged while a smaller part of the codebook than this is in use."""

    def __post_init__(self) -> None:
        """Refuse temperatures and weights outside their ranges."""
        given = [name for name in ("tau_steps", "kl_steps") if getattr(self, name) is not None]
        require_positive(self, "tau_start", "tau_end", *given)
        require_fraction(self, "min_usage")
        require_not_negative(self, "kl_weight", "commitment_weight")


@dataclass(frozen=True, kw_only=True)
class ClipObjectiveConfig:
    """What CLIP sees while it learns."""

    bpe_dropout: float = 0.1
    """Probability that a BPE merge is skipped, in training only."""
    through_vae: float = 0.5
    """Part of the pictures that are seen as the dVAE redraws them, which candidates are too; read
    where a dVAE is given only."""
    shift_px: int = 0
    """Most pixels by which a picture is moved at random, down or up and to either side: drawings
    do not lie as exactly as scenes do."""

    def __post_init__(self) -> None:
        """Refuse probabilities outside 0 to 1, and negative shifts."""
        require_fraction(self, "bpe_dropout", "through_vae")
        if self.shift_px < 0:
            raise ValueError(f"shift_px must be 0 or more, got {self.shift_px}")


@dataclass(frozen=True, kw_only=True)
class TransformerObjectiveConfig:
    """The joint model's objective (paper, section 2.2)."""

    text_weight: float = 0.125
    """Weight of the text cross-entropy; the image's is 1 minus this."""
    caption_dropout: float = 0.1
    """Probability that a training caption becomes the null caption, which guidance needs."""
    bpe_dropout: float = 0.1
    """Probability that a BPE merge is skipped, in training only."""
    image_noise: float = 0.0
    """Probability that an image token is read as another one, drawn at random, in training only;
    what is predicted stays. A model that learns pictures by heart trusts its captions more so."""

    def __post_init__(self) -> None:
        """Refuse weights and probabilities outside 0 to 1."""
        require_fraction(self, "text_weight", "caption_dropout", "bpe_dropout", "image_noise")
