"""What an evaluation of a text-to-image model found; `dataclasses.asdict` makes it ready for JSON.

A section that was not asked for, or cannot be computed (no ranker by CLIP, captions without ground
truth), is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dalle.evaluate.estimators import Curve, Rate, upper_envelope


@dataclass(frozen=True, kw_only=True)
class HitAtK:
    """One point of a curve, with its 95 % interval."""

    k: int
    """Candidates drawn."""
    rate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class EnvelopePoint:
    """The best rate at one k, whatever the temperature."""

    k: int
    """Candidates drawn."""
    rate: float
    temperature: float
    """The temperature that reaches it."""


@dataclass(frozen=True, kw_only=True)
class HitAt1:
    """The share of captions whose chosen candidate hits, by who chooses."""

    random: Rate
    """Any candidate, picked blindly."""
    oracle: Rate
    """A judge that knows the truth: whether there is any hit."""
    likelihood: Rate | None = None
    clip: Rate | None = None


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Whether CLIP finds the caption that a picture was drawn for among all captions."""

    captions: int
    """How many there were to choose from."""
    r_at_1: Rate
    """The right caption comes first."""
    r_at_5: Rate
    """The right caption is among the first five."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Cosines of pictures and their captions for CLIP, -1 to 1: means over captions."""

    drawn: Rate
    """Pictures that nobody chose."""
    best: Rate
    """Those that the model's ranker puts first; higher by itself where CLIP chose them."""
    true: Rate | None
    """True pictures, where there are some."""
    others: Rate | None
    """Pictures that nobody chose, beside the captions of others; None of a single caption."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Distances of sets of pictures from the true ones, 0 for sets that CLIP finds alike.

    Squared maximum mean discrepancies; comparable where CLIP and captions are the same.
    """

    drawn: Rate
    """Pictures that nobody chose."""
    best: Rate
    """Those that the model's ranker puts first."""
    rebuilt: Rate
    """The true pictures through the dVAE."""


@dataclass(frozen=True, kw_only=True)
class BitsPerToken:
    """Negative log-likelihood of held-out pairs, in bits; lower is better."""

    image: Rate
    """Mean over pictures, each the mean over its tokens."""
    caption: Rate
    """Mean over captions, each the mean over its tokens."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What the dVAE keeps of held-out pictures."""

    psnr_db: float
    ssim: float
    """Mean structural similarity, at most 1."""
    codebook_usage: float
    """Share of codes used over these pictures."""
    codebook_perplexity: float
    pictures: int


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """Distances from pictures to the training picture nearest to each."""

    median: float
    p05: float
    """One picture in twenty is nearer than this."""
    least: float
    n: int
    """Pictures that were compared."""


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Whether drawn pictures copy training pictures, held-out pictures being the measure."""

    generated: Nearness
    """A model that copies draws far nearer to its training pictures than `heldout` is."""
    heldout: Nearness
    """True pictures that training never showed."""
    training_pictures: int
    """How many were searched."""
    trained_on: int
    """Of the true pictures, how many are among those after all, pixel for pixel."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What the judge of attributes says of pictures whose truth is known.

    Hit rates can be trusted no further: what is drawn as well as ground truth counts as right as
    often as `images` do, and what is drawn as well as the dVAE allows as often as `rebuilt` do.
    """

    images: Rate
    """Ground-truth renderings that are judged right."""
    rebuilt: Rate
    """The same through the model's dVAE."""
    others: Rate | None
    """Ground-truth renderings that are judged right beside another scene's caption; None of a
    single scene."""
    caught: dict[str, Rate]
    """By attribute: found wrong where the caption is wrong in that alone, of renderings."""
    caught_rebuilt: dict[str, Rate]
    """The same through the model's dVAE."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that was measured of one model on one set of captions."""

    model: str
    """Name or folder, as it was asked for."""
    fingerprint: str
    """Hash of the model folder."""
    set: str
    """Name, file or folder of the caption set."""
    captions: int
    candidates: int
    """Pictures drawn for each caption."""
    seed: int
    temperature: float
    seconds: float
    """What the evaluation took."""
    hit_at_1: HitAt1 | None = None
    gap_closed: dict[str, Rate | None] = field(default_factory=dict)
    """By ranker (`likelihood`, `clip`): its way from random to oracle; None where there is none."""
    hit_at_k: dict[str, tuple[HitAtK, ...]] = field(default_factory=dict)
    """`random`: at least one of k random candidates hits, the most that any ranker can reach.
    `likelihood`, `clip`: of k random candidates, the one that the ranker puts first hits."""
    temperatures: dict[str, tuple[HitAtK, ...]] = field(default_factory=dict)
    """By temperature ("0.7"): at least one of k random candidates hits."""
    envelope: tuple[EnvelopePoint, ...] = ()
    """The best of `temperatures` at every k."""
    ranked_by: str | None = None
    """The ranker of `ranked_temperatures`, `ranked_envelope` and `ranked_kinds`."""
    ranked_temperatures: dict[str, tuple[HitAtK, ...]] = field(default_factory=dict)
    """By temperature: of k random candidates, the one that the ranker puts first hits."""
    ranked_envelope: tuple[EnvelopePoint, ...] = ()
    """The best of `ranked_temperatures` at every k."""
    judge: Validation | None = None
    retrieval: Retrieval | None = None
    agreement: Agreement | None = None
    likeness: Likeness | None = None
    attributes: dict[str, Rate] = field(default_factory=dict)
    """By attribute that the captions speak of: drawn right; `all` is every one at once."""
    kinds: dict[str, Rate] = field(default_factory=dict)
    """By kind of scene ("plain", "pair"): every attribute drawn right, by any candidate."""
    ranked_kinds: dict[str, Rate] = field(default_factory=dict)
    """The same of the candidate that the ranker puts first."""
    bits_per_token: BitsPerToken | None = None
    reconstruction: Reconstruction | None = None
    memorisation: Memorisation | None = None


def curve_points(curve: Curve) -> tuple[HitAtK, ...]:
    """`curve` as one point for each k, ready for JSON."""
    return tuple(
        HitAtK(k=index + 1, rate=float(rate), low=float(low), high=float(high))
        for index, (rate, low, high) in enumerate(
            zip(curve.rates, curve.low, curve.high, strict=True)
        )
    )


def envelope_points(curves: Mapping[float, np.ndarray]) -> tuple[EnvelopePoint, ...]:
    """The upper envelope of `curves` as one point for each k, ready for JSON.

    Args:
        curves: Rates by temperature, each of shape (n), the value for k at k - 1.

    Raises:
        ValueError: There are no curves, or their lengths differ.
    """
    rates, temperatures = upper_envelope(curves)
    return tuple(
        EnvelopePoint(k=index + 1, rate=float(rate), temperature=float(temperature))
        for index, (rate, temperature) in enumerate(zip(rates, temperatures, strict=True))
    )
