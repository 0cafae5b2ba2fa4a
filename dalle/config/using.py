"""Roots of the verbs that use a model: packing, drawing, serving."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from dalle.config.ranges import check_region, require_positive
from dalle.config.sampling import (
    Dtype,
    SamplingConfig,
    check_counts,
    check_seed,
    check_suggestions,
    override_sampling,
)
from dalle.config.training import Device
from dalle.model_config import ClipConfig
from dalle.prompts import check_prompt
from dalle.transforms import TRANSFORMS, transform_caption

_BROUGHT_BY_LIKE = frozenset(
    {"candidates", "keep", "seed", "temperature", "top_k", "top_p", "guidance_scale", "ranker"}
    | {"dtype"}
)
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_READ_WITH_IMAGE = frozenset({"prompt_layout", "crop"})


@dataclass(frozen=True, kw_only=True)
class Pack:
    """`dalle pack`: one folder to publish of a model, its CLIP, its decoder, card and settings."""

    model: Path
    """A finished run of `dalle train transformer`, or a model folder."""
    out: Path
    """Model folder to write; replaced if it exists."""
    clip: Path | None = None
    """A finished run of `dalle train clip` with the model's tokenizer; None keeps what is there."""
    vae: Path | None = None
    """A finished run of `dalle train vae --codes_of` the model, whose decoder draws; None keeps the
    model's."""
    mean_with: Path | None = None
    """Another pass of the model's training, begun with --init at it: the mean of both transformers'
    weights is published, which is often better than either; None publishes the model's."""
    mean_share: float = 0.5
    """Share of the other pass in that mean: 0.33 for the third of three equal ones, of whose first
    two the model is the mean."""
    likelihood_weight: float | None = None
    """How much the likelihood of candidates counts beside the CLIP's cosine where they are ordered;
    None keeps what the CLIP says."""
    card: Path | None = None
    """Markdown file that becomes the model card; None keeps the one that is there."""
    temperature: float | None = None
    """Recommended sampling temperature; None keeps the model's."""
    top_k: int | None = None
    """Recommended top-k, 0 for none; None keeps the model's."""
    top_p: float | None = None
    """Recommended top-p; None keeps the model's."""
    guidance_scale: float | None = None
    """Recommended guidance scale; None keeps the model's."""

    def __post_init__(self) -> None:
        """Refuse settings out of range, and a share of nothing."""
        self.sampling(SamplingConfig())
        if self.likelihood_weight is not None:
            ClipConfig(likelihood_weight=self.likelihood_weight)
        if not 0 < self.mean_share < 1:
            raise ValueError(f"mean_share must be over 0 and under 1, got {self.mean_share}")
        if self.mean_with is None and self.mean_share != Pack.mean_share:
            raise ValueError("mean_share is the share of mean_with, which is not given; give both")

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """`default` with whatever was set on the command line."""
        return _sampling(self, default)


@dataclass(frozen=True, kw_only=True)
class Generate:
    """`dalle generate`: draw pictures for captions."""

    captions: tuple[str, ...] = ()
    """What to draw, one caption or several."""
    caption_file: Path | None = None
    """Captions to draw from a file: .txt with one a line, .csv or .tsv with a column `caption`; or
    from - (standard input), one a line. One that cannot be drawn leaves the others alone."""
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
    """Keep only this many likeliest tokens, 0 keeps all; None takes the model's own setting."""
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
    image: Path | None = None
    """A picture to go on from (PNG, JPEG, WebP): its upper part is kept, the rest is drawn. Without
    a caption it is completed freely."""
    keep_rows: float | None = None
    """How much of --image or --vary is kept: a part of the height (under 1), or a number of token
    rows; None is half."""
    region: tuple[float, ...] | None = None
    """What is drawn of --image or --vary, instead of all below the kept rows: left, top, right and
    bottom, each from 0 to 1; 0 0 0.5 1 is the left half."""
    prompt_layout: Literal["top-half", "place-on-top"] = "top-half"
    """Keep the upper rows of --image, or fit all of it into them."""
    crop: Literal["center", "top", "pad"] = "center"
    """How --image becomes as wide and high as the model's pictures, with `top-half`."""
    vary: Path | None = None
    """A picture drawn earlier: keep its first rows and draw the rest anew, with its caption unless
    another is given."""
    like: Path | None = None
    """Redraw a picture made earlier, exactly, from the settings stored in its PNG."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where to draw."""
    dtype: Dtype = "auto"
    """Type of the transformer's weights while it draws; auto is the fastest that loses nothing
    worth the name, int8 loses a little."""
    compile: bool = False
    """Compile the decode step: on a CPU if nobody has, some seconds, once; on a GPU by torch, for
    every process anew, which pays where many pictures follow."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, before anything is loaded."""
        check_counts(candidates=self.candidates, keep=self.kept)
        check_seed(self.seed)
        self.sampling(SamplingConfig())
        self._check_sources()
        for caption in self.captions:
            check_prompt(caption)

    def _check_sources(self) -> None:
        """Refuse nothing to draw, several things that exclude each other, and rows of nothing."""
        drawn = self.image is not None or (bool(self.captions) and self.vary is None)
        others = (self.caption_file, self.like, self.vary)
        if drawn + sum(other is not None for other in others) != 1:
            raise ValueError(
                "give one caption or several to draw, such as 'a fox', with or without --image, or "
                "one of --caption-file, --vary and --like PICTURE.png; got "
                f"{len(self.captions)} captions, --image {self.image}, --caption-file "
                f"{self.caption_file}, --vary {self.vary} and --like {self.like}"
            )
        changed = {
            field.name for field in fields(self) if getattr(self, field.name) != field.default
        }
        self.check_typed(changed)
        if self.region is not None:
            self._check_region(self.region)
        if self.keep_rows is not None:
            if self.image is None and self.vary is None:
                raise ValueError(
                    f"keep_rows {self.keep_rows:g} says how much of a picture is kept; give one "
                    "with --image or --vary"
                )
            if not self.keep_rows >= 0 or (self.keep_rows >= 1 and self.keep_rows % 1):
                raise ValueError(
                    "keep_rows must be a part of the height under 1, or a whole number of token "
                    f"rows, got {self.keep_rows:g}"
                )

    def _check_region(self, region: tuple[float, ...]) -> None:
        """Refuse a region that is none, or of nothing, or beside what says what is drawn, too."""
        if len(region) != 4:
            raise ValueError(f"region must be left, top, right and bottom, got {list(region)}")
        check_region(region)
        if self.image is None and self.vary is None:
            remedy = (
                "--like redraws one as it was" if self.like else "give one with --image or --vary"
            )
            raise ValueError(f"region {list(region)} says what is drawn of a picture; {remedy}")
        beside = [] if self.keep_rows is None else [f"keep_rows {self.keep_rows:g}"]
        if self.prompt_layout == "place-on-top":
            beside.append("prompt_layout place-on-top")
        if beside:
            raise ValueError(
                f"region {list(region)} says what is drawn, all else being kept; leave "
                f"{' and '.join(beside)} out"
            )

    def check_typed(self, names: Set[str]) -> None:
        """Refuse settings that would change nothing, also where they say what the default does.

        Args:
            names: Fields that somebody set.

        Raises:
            ValueError: A redrawn picture brings one of them, or it needs a picture and none is
                given.
        """
        if self.image is None and not names.isdisjoint(_READ_WITH_IMAGE):
            raise ValueError("prompt_layout and crop say how --image is read; give one")
        if self.prompt_layout == "place-on-top" and "crop" in names:
            raise ValueError(
                f"crop {self.crop} says how a picture is cut whose top is kept, and "
                "place-on-top keeps all of it; leave one of them out"
            )
        given = [
            f"--{field.name.replace('_', '-')} {getattr(self, field.name)}"
            for field in fields(self)
            if field.name in _BROUGHT_BY_LIKE and field.name in names
        ]
        if self.like is not None and given:
            raise ValueError(
                f"--like {self.like} redraws one picture with the settings stored in it, so "
                f"{', '.join(given)} would change nothing; leave "
                f"{'it' if len(given) == 1 else 'them'} out, or draw the caption without --like"
            )

    @property
    def rows(self) -> float | int | None:
        """How much of a given picture is kept, as the API takes it."""
        if self.keep_rows is None:
            return None if self.region is not None else 0.5
        return self.keep_rows if 0 < self.keep_rows < 1 else int(self.keep_rows)

    @property
    def kept(self) -> int:
        """How many pictures of a caption are kept."""
        return min(4, self.candidates) if self.keep is None else self.keep

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """`default` with whatever was set on the command line."""
        return _sampling(self, default)


@dataclass(frozen=True, kw_only=True)
class Transform:
    """`dalle transform`: redraw a picture in another look, below itself."""

    image: Path
    """The picture: PNG, JPEG or WebP."""
    to: str
    """What it becomes: sketch, grayscale, upside-down, silhouette, neon, pixel-art, close-up,
    postage-stamp, sunglasses, hat, red, blue, green, pink, violet or yellow; `all` draws each."""
    subject: str | None = None
    """What the picture shows, such as fox; None lets CLIP guess."""
    model: str = "emoji"
    """Name of a bundled model, or a model folder."""
    candidates: int = 16
    """Pictures drawn for each transform."""
    keep: int | None = None
    """Best pictures kept for each; None keeps 4, or 1 of each with `all`."""
    seed: int = 0
    """Seed of the pictures."""
    temperature: float | None = None
    """Divides the logits, 0 is greedy; None takes the model's own."""
    top_k: int | None = None
    """Keep only so many likeliest tokens, 0 keeps all; None takes the model's own."""
    top_p: float | None = None
    """Keep the likeliest tokens of this mass; None takes the model's own."""
    guidance_scale: float | None = None
    """How closely to follow the caption, 1 is off; None takes the model's own."""
    out: Path = Path("pictures")
    """Folder the pictures are written to."""
    clip: str | None = None
    """CLIP that guesses and ranks, as for `dalle generate`; None takes the model's own."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where to draw."""

    def __post_init__(self) -> None:
        """Refuse unknown transforms and what cannot be drawn, before anything is loaded."""
        transform_caption(TRANSFORMS[0].name if self.to == "all" else self.to, self.subject)
        keep = min(4, self.candidates) if self.keep is None else self.keep
        check_counts(candidates=self.candidates, keep=keep)
        check_seed(self.seed)
        _sampling(self, SamplingConfig())


@dataclass(frozen=True, kw_only=True)
class Suggest:
    """`dalle suggest`: captions that a model would write itself, to see what can be asked of it."""

    begin: str = ""
    """How they begin; empty leaves all to the model."""
    model: str = "emoji"
    """Name of a bundled model, or a model folder."""
    count: int = 8
    """How many; fewer come where the model repeats itself."""
    seed: int = 0
    """Seed of the captions."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest words, and has one caption to give."""
    top_p: float = 0.95
    """Keep the likeliest tokens of this mass."""
    json: bool = False
    """Print one JSON object on stdout, and nothing else there."""
    device: Device = "auto"
    """Where they are drawn."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, before anything is loaded."""
        if self.begin.strip():
            check_prompt(self.begin)
        check_suggestions(
            count=self.count, seed=self.seed, temperature=self.temperature, top_p=self.top_p
        )


def _sampling(settings: Pack | Generate | Transform, default: SamplingConfig) -> SamplingConfig:
    return override_sampling(
        default,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        guidance_scale=settings.guidance_scale,
    )


@dataclass(frozen=True, kw_only=True)
class Demo:
    """`dalle demo`: serve the web page, until Ctrl-C."""

    model: str = "emoji"
    """Name of a bundled model, or a model folder."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets every machine of the network in."""
    port: int = 7860
    """Port to listen on; 0 takes any that is free."""
    public_host: str | None = None
    """Name by which a proxy on this machine, such as one that asks for a password, serves the page
    to others. It must pass on the headers Host and X-Forwarded-Proto; `host` stays as it is."""
    max_seconds: float = 300.0
    """Longest time in seconds that a request may draw."""
    mcp: bool = False
    """Offer the endpoints as tools to programs that speak MCP as well."""
    clip: str | None = None
    """CLIP that ranks, as for `dalle generate`; None takes the model's own."""
    device: Device = "auto"
    """Where to draw."""

    def __post_init__(self) -> None:
        """Refuse what cannot be listened on, and a limit that lets nothing through."""
        require_positive(self, "max_seconds")
        if self.public_host is not None and not _HOST_NAME.fullmatch(self.public_host):
            raise ValueError(
                "public_host must be a name in lower case, without scheme and port, such as "
                f"pictures.example.org, got {self.public_host!r:.80}"
            )
        if not 0 <= self.port < 1 << 16:
            raise ValueError(
                f"port must be between 0 and {(1 << 16) - 1}, got {self.port}; 0 takes a free one"
            )
