"""Roots of the verbs that make data and models: one dataclass holds all that one can be told."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from dalle.config.ranges import (
    require_fraction,
    require_not_negative,
    require_positive,
    require_size,
    require_vocabulary,
    require_whole_tokens,
)
from dalle.config.sampling import SamplingConfig
from dalle.config.training import (
    ClipObjectiveConfig,
    DataConfig,
    Device,
    LoopConfig,
    OptimConfig,
    TransformerObjectiveConfig,
    VaeObjectiveConfig,
)
from dalle.model_config import ClipConfig, SequenceConfig, TransformerConfig, height_and_width
from dalle.prompts import check_prompt
from vae.config import VaeConfig


@dataclass(frozen=True, kw_only=True)
class SceneMixture:
    """How often each kind of scene is proposed; the weights need not add up to anything."""

    plain: float = 28
    """A subject as it is, on white."""
    background: float = 22
    """A subject on a named colour."""
    size: float = 7
    """A subject said to be small or large."""
    count: float = 8
    """Two to four of a subject."""
    pair: float = 10
    """Two subjects in a relation."""
    look: float = 13
    """A subject in another look."""
    panels: float = 12
    """A subject on top, and in another look below."""

    def __post_init__(self) -> None:
        """Refuse weights that propose nothing."""
        names = [entry.name for entry in fields(self)]
        require_not_negative(self, *names)
        if not any(getattr(self, name) for name in names):
            raise ValueError("one weight of mixture at least must be over 0, got only zeros")


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
    mixture: SceneMixture = field(default_factory=SceneMixture)
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
class DataCheck:
    """`dalle data check`: say what a set of captioned pictures holds, and what is wrong in it."""

    data: Path
    """Captioned pictures: a folder of them, each with its `.txt` or all in a metadata.csv, .tsv or
    .jsonl; such a table under any name; or a folder of tar shards."""
    image_px: int = 64
    """Height that training will bring pictures to, and width too where `width_px` is null."""
    width_px: int | None = None
    """Width that training will bring them to, if they are not to be square."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    workers: int = 0
    """Processes that look at pictures; 0 takes one per processor."""

    def __post_init__(self) -> None:
        """Refuse sizes that no picture has."""
        require_size(self)
        require_not_negative(self, "workers")

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return height_and_width(self.image_px, self.width_px)


@dataclass(frozen=True, kw_only=True)
class DataConvert:
    """`dalle data convert`: Parquet files that hold pictures and captions, to a plain folder."""

    data: Path
    """A Parquet file, or a folder of them, such as a data set downloaded from the Hugging Face
    Hub."""
    out: Path
    """Folder to write: the picture files, and metadata.jsonl with their captions."""
    split: str | None = None
    """Which split, where the folder holds several: what stands before -00000-of-00007."""
    image_column: str | None = None
    """Column of pictures; None takes one that is called image or alike."""
    caption_column: str | None = None
    """Column of captions, one text or a list of texts a row; None takes caption or text."""
    limit: int | None = None
    """Convert the first rows only."""

    def __post_init__(self) -> None:
        """Refuse to convert nothing."""
        if self.limit is not None:
            require_positive(self, "limit")


@dataclass(frozen=True, kw_only=True)
class DataDrawn:
    """`dalle data drawn`: let a model draw captions of a data set, as hard negatives for CLIP."""

    data: Path
    """Captioned pictures: a folder of them, each with its `.txt` or all in a metadata.csv, .tsv or
    .jsonl; such a table under any name; or a folder of tar shards."""
    model: Path
    """Model folder, or the name of a bundled model; it samples as it recommends."""
    out: Path
    """Token folder to write."""
    captions: int | None = None
    """Captions to draw, the first of the set; None draws all."""
    candidates: int = 2
    """Pictures of each caption."""
    seed: int = 0
    """Seed of the pictures."""
    device: Device = "auto"
    """Where they are drawn."""

    def __post_init__(self) -> None:
        """Refuse counts that draw nothing."""
        require_positive(self, "candidates")
        if self.captions is not None:
            require_positive(self, "captions")


@dataclass(frozen=True, kw_only=True)
class TrainVae:
    """`dalle train vae`: train the discrete VAE on pictures."""

    out: Path
    """Run folder: metrics, samples, checkpoints and the finished model go here."""
    data: DataConfig
    codes_of: Path | None = None
    """A trained dVAE whose encoder and codes are taken as they are, so that only the decoder is
    trained: tokens made before, and what was trained on them, stay valid. None trains all."""
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
        stride = self.model.stride
        whose = f"the dVAE's stride ({stride} = model.patch_px * 2^(model.groups - 1))"
        require_whole_tokens(self.data.size_px, stride, section="data.", whose=whose)


@dataclass(frozen=True, kw_only=True)
class ImportVae:
    """`dalle import vae`: a dVAE that others published, OpenAI's or a VQGAN, as a dVAE folder."""

    out: Path
    """Folder to write, for `dalle tokenize --vae` and `dalle eval vae`."""
    encoder: Path | None = None
    """The encoder of OpenAI's dVAE: encoder.pkl as it was published, or its tensors by the same
    names in another file of torch's or as safetensors. Goes with `decoder`."""
    decoder: Path | None = None
    """The decoder of OpenAI's dVAE, likewise."""
    checkpoint: Path | None = None
    """A VQGAN as taming-transformers saves it (last.ckpt), with the nearest code or a Gumbel
    quantiser; minDALL-E's first stage and ru-dalle's plain VAE are such, too."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read: encoder and decoder, or the checkpoint."""
        named = (self.encoder, self.decoder, self.checkpoint)
        return tuple(path for path in named if path is not None)

    def __post_init__(self) -> None:
        """Refuse all but one of the two kinds."""
        given = (self.encoder is not None, self.decoder is not None, self.checkpoint is not None)
        if given not in ((True, True, False), (False, False, True)):
            raise ValueError(
                "give --encoder and --decoder (OpenAI's dVAE), or --checkpoint (VQGAN)"
            )


@dataclass(frozen=True, kw_only=True)
class Tokenize:
    """`dalle tokenize`: turn captioned pictures into tokens, once, for the transformer."""

    data: Path
    """Captioned pictures: a folder of them, each with its `.txt` or all in a metadata.csv, .tsv or
    .jsonl; such a table under any name; or a folder of tar shards."""
    vae: Path
    """Folder of a trained dVAE: a run folder of `dalle train vae`, or a model folder."""
    out: Path
    """Token folder to write."""
    image_px: int = 64
    """Height of the pictures, and their width too where `width_px` is null."""
    width_px: int | None = None
    """Width, if they are not to be square."""
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
        require_size(self)
        require_positive(self, "crops", "batch")
        require_fraction(self, "max_bad_fraction")
        require_vocabulary(self)

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return height_and_width(self.image_px, self.width_px)


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
    """Model folder to go on from (fine-tuning), of the same shape and dVAE; its vocabulary and its
    token grid may be others. None starts with random weights."""
    lora_rank: int | None = None
    """Train only additions of this rank to the matrices of `init` (LoRA): a few per cent of the
    weights, so far less memory for gradients and moments; null trains all weights."""
    text_len: int = 64
    """Caption tokens per sequence; the other lengths come from the token folder."""
    model: TransformerConfig = field(default_factory=TransformerConfig)
    objective: TransformerObjectiveConfig = field(default_factory=TransformerObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    sample_captions: tuple[str, ...] = ()
    """Captions drawn on the sample sheets during training; none takes the first held-out ones."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling settings that the published model recommends; used on the sample sheets too."""
    recompute: bool = False
    """Keep less for the backward pass and compute it anew there: the same gradients with under half
    of the memory that grows with the batch, in a third more time."""
    publish_dtype: Literal["fp32", "fp16"] = "fp32"
    """Type in which the finished model's weights are stored."""
    resume: bool = False
    """Go on from the newest complete checkpoint in `out`."""

    def __post_init__(self) -> None:
        """Refuse an empty text half, and captions that the first sample sheet could not draw."""
        require_positive(self, "text_len")
        require_fraction(self, "heldout_fraction")
        if self.lora_rank is not None:
            require_positive(self, "lora_rank")
            if self.init is None:
                raise ValueError(
                    f"lora_rank is {self.lora_rank}, but there are no weights to add to; name a "
                    "model with init, or leave lora_rank out"
                )
            if self.optim.optimizer == "muon":
                raise ValueError(
                    f"lora_rank is {self.lora_rank} and optim.optimizer muon, which trains whole "
                    "matrices; set optim.optimizer to adamw"
                )
        for caption in self.sample_captions:
            try:
                check_prompt(caption)
            except (TypeError, ValueError) as err:
                raise ValueError(f"sample_captions: {err}") from err

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
    drawn: Path | None = None
    """Token folder of what the model that it will rank for drew for captions of `data.train`
    (`dalle data drawn`): each must fit its caption less well than the true picture does."""
    init: Path | None = None
    """CLIP or model folder to go on from, of the same shape and tokenizer; None starts with random
    weights."""
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
        """Refuse vocabularies without room for the bytes, and pictures of two sizes."""
        require_vocabulary(self)
        for name, ours, theirs in zip(
            ("image_px", "width_px"), self.data.size_px, self.model.size_px, strict=True
        ):
            if ours != theirs:
                raise ValueError(
                    f"data.{name} ({ours}) must be model.{name} ({theirs}), the size that the CLIP "
                    "looks at; set both alike"
                )
