"""Drawing image tokens: logit filters, guidance, and the loop that draws row after row.

Axis letters: c captions, g candidates of a caption, r image tokens given as a prompt, h w grid
rows and columns, k image vocabulary; v is any vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dalle.config import SamplingConfig
from dalle.model_config import TO_DRAW, SequenceConfig
from dalle.seeds import generator
from dalle.sequence import kept_first, null_caption


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What has been drawn when a row of the grid is complete.

    Attributes:
        tokens: Image tokens so far, the prompt's included, shape (c, g, rows_done * w), int64.
        rows_done: Complete rows of the grid, 1 to h.
        log_probability: Mean natural logarithm of the probability of the tokens from the first
            drawn one on, by the model as it is (temperature 1, no filter, no guidance), shape
            (c, g), float32. Kept ones behind it count too: they tell how well the drawn ones fit.
    """

    tokens: Tensor
    rows_done: int
    log_probability: Tensor


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Scores divided by `temperature`, shifted so that the best is 0.

    The shift changes no probability and keeps the smallest temperatures from overflowing.

    Args:
        logits: Scores, shape (..., v), float32.
        temperature: Above 0; under 1 sharpens, over 1 flattens. Greedy choice is not a division
            and is up to the caller.

    Raises:
        ValueError: `temperature` is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0 to divide by, got {temperature}")
    return (logits - logits.amax(dim=-1, keepdim=True)) / temperature


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Logits limited to the `top_k` likeliest tokens.

    Exactly that many stay, ties or not; a count beyond the vocabulary keeps every token.

    Args:
        logits: Scores, shape (..., v), float32; left untouched.
        top_k: Tokens to keep, at least 1.

    Returns:
        New scores, shape (..., v); dropped tokens are -inf.

    Raises:
        ValueError: `top_k` is below 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_k >= logits.shape[-1]:
        return logits.clone()
    count = torch.full((*logits.shape[:-1], 1), top_k, device=logits.device)
    return _keep_best(logits, _ordered(logits, top_k), count)


def keep_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Logits limited to the fewest tokens that together hold `top_p` of the probability.

    The likeliest token always stays, so a tiny `top_p` is greedy choice and 1.0 changes nothing.

    Args:
        logits: Scores, shape (..., v), float32; left untouched.
        top_p: Probability mass to keep, 0 < top_p <= 1.

    Returns:
        New scores, shape (..., v); dropped tokens are -inf.

    Raises:
        ValueError: `top_p` lies outside (0, 1].

    Source: Holtzman et al., arXiv:1904.09751; here top-k, if any, has already run.
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    if top_p == 1:
        return logits.clone()
    ordered = _ordered(logits, logits.shape[-1])
    probabilities = ordered.softmax(dim=-1)
    held_before = probabilities.cumsum(dim=-1) - probabilities
    held_before[..., 0] = 0
    return _keep_best(logits, ordered, (held_before < top_p).sum(dim=-1, keepdim=True))


def _ordered(logits: Tensor, needed: int) -> Tensor:
    """The best `needed` scores of shape (..., v) or more of them, the best first.

    On a CPU through numpy, whose vectorised sort is fifty times as fast as torch's.
    """
    if logits.device.type != "cpu":
        return logits.topk(needed, dim=-1).values
    return torch.from_numpy(np.sort(logits.numpy(), axis=-1)).flip(-1)


def _keep_best(logits: Tensor, ordered: Tensor, count: Tensor) -> Tensor:
    """Logits limited to the best `count`, shape (..., 1); of equal ones the first are kept."""
    last = ordered.gather(-1, count - 1)
    better, ties = logits > last, logits == last
    allowed = count - better.sum(dim=-1, keepdim=True)
    kept = better | (ties & (ties.cumsum(dim=-1) <= allowed))
    return logits.masked_fill(~kept, -torch.inf)


def guide(conditional: Tensor, null: Tensor, scale: float) -> Tensor:
    """Logits moved away from what the model says without a caption.

    Args:
        conditional: Scores given the caption, shape (..., v), float32.
        null: Scores given the null caption, same shape.
        scale: 1 gives `conditional`, 0 gives `null`, more follows the caption more closely.

    Source: Ho & Salimans, arXiv:2207.12598, with scale = 1 + their w, on logits.
    """
    return null + scale * (conditional - null)


def gumbel_noise(shape: Sequence[int], streams: Sequence[torch.Generator]) -> Tensor:
    """Standard Gumbel noise: the highest score plus noise is a fair draw.

    torch's own exponential noise is drawn so too, to the last bit, but one number at a time: on a
    CPU that took a twelfth of the time of drawing 64 pictures.

    Args:
        shape: Of what is drawn from each stream.
        streams: One for each image (g of them); what the others are changes no bit.

    Returns:
        Shape (g, *shape), float32, on the streams' device.
    """
    uniform = torch.empty(len(streams), *shape, dtype=torch.float64, device=streams[0].device)
    for one, stream in zip(uniform, streams, strict=True):
        one.uniform_(generator=stream)
    # All at once: one image's are too few for a CPU's second thread.
    exponential = uniform.neg_().log1p_().neg_().float()
    return exponential.clamp_min_(torch.finfo(torch.float32).tiny).log_().neg_()


def draw(logits: Tensor, noise: Tensor, sampling: SamplingConfig) -> Tensor:
    """One token per image from its scores, after temperature, top-k and nucleus.

    Args:
        logits: Scores, shape (..., v), float32.
        noise: Gumbel noise, same shape; not read at temperature 0, which takes the best.
        sampling: The settings; guidance is not applied here.

    Returns:
        Tokens, shape (...), int64.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = apply_temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = keep_nucleus(logits, sampling.top_p)
    return (logits + noise).argmax(dim=-1)


def choose(
    logits: Tensor, noise: Tensor, captions: int, sampling: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """The next token of each image, and its log-probability by the model as it is.

    Args:
        logits: Scores given the captions, shape (c, g, k), float32; when guided, those given the
            null caption follow as further rows.
        noise: Gumbel noise of each candidate, shape (g, k).
        captions: How many captions there are (c).
        sampling: The settings.

    Returns:
        Tokens, int64, and natural logarithms, float32, both of shape (c, g).
    """
    conditional = scores = logits[:captions]
    if len(logits) > captions:
        scores = guide(conditional, logits[captions:], sampling.guidance_scale)
    drawn = draw(scores, noise, sampling)
    return drawn, log_probability_of(drawn, conditional)


def log_probability_of(tokens: Tensor, logits: Tensor) -> Tensor:
    """Natural logarithms of the probabilities of `tokens` (...) by scores (..., v), float32."""
    return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


class Decoder(Protocol):
    """What `sample_tokens` draws with: a `JointTransformer`, or a faster form of one."""

    sequence: SequenceConfig

    def prefill(
        self, text_ids: Tensor, image_prompt: Tensor | None, *, candidates: int
    ) -> tuple[Tensor, Any]:
        """Scores for the first token, and a cache for `decode_step` alone to look into."""

    def decode_step(self, tokens: Tensor, position: int, cache: Any) -> Tensor:
        """Scores for the token after `position`; the next step may overwrite them."""


class Chooser(Protocol):
    """`choose`, or a faster form of it."""

    def __call__(
        self, logits: Tensor, noise: Tensor, captions: int, sampling: SamplingConfig
    ) -> tuple[Tensor, Tensor]:
        """See `choose`."""


def sample_tokens(
    decoder: Decoder,
    text_ids: Tensor,
    *,
    candidates: Sequence[int],
    seed: int,
    sampling: SamplingConfig,
    image_prompt: Tensor | None = None,
    chooser: Chooser = choose,
) -> Iterator[Drawn]:
    """Draw the image tokens of every candidate of every caption, a row of the grid at a time.

    An image depends on its caption and prompt, `seed`, its candidate index and the settings, not
    on the other captions and candidates (up to the rounding of products of another batch size).
    Closing the iterator frees its memory.

    Args:
        decoder: The model; its device and dtype are used as they are.
        text_ids: Captions with pads, shape (c, t), int64, on the model's device.
        candidates: Index of each candidate to draw for every caption (g of them).
        seed: Any integer.
        sampling: Temperature, filters and guidance.
        image_prompt: First image tokens, shape (c, r), 0 <= r <= m; they are kept as they are,
            but for those that are `TO_DRAW`, in the same places for all captions.
        chooser: What takes tokens from scores.

    Returns:
        An iterator with one item for each row of the grid that the prompt left incomplete.

    Raises:
        ValueError: No caption, no candidate, or a prompt of a wrong shape or vocabulary.
    """
    if image_prompt is None:
        image_prompt = text_ids.new_empty(len(text_ids), 0)
    _check_request(decoder.sequence, text_ids, candidates, image_prompt)
    # A stream of its own for each image: what shares its batch cannot change it.
    streams = [generator("image", seed, index, device=text_ids.device) for index in candidates]
    return _draw_rows(
        decoder,
        text_ids,
        image_prompt=image_prompt,
        streams=streams,
        sampling=sampling,
        chooser=chooser,
    )


def _check_request(
    sequence: SequenceConfig, text_ids: Tensor, candidates: Sequence[int], image_prompt: Tensor
) -> None:
    """Raise ValueError for shapes that cannot be drawn."""
    if text_ids.ndim != 2 or not len(text_ids) or text_ids.shape[1] != sequence.text_len:
        raise ValueError(
            f"text_ids must have shape (captions, {sequence.text_len}), got {tuple(text_ids.shape)}"
        )
    if not candidates:
        raise ValueError("candidates must name at least one index, got none")
    if image_prompt.ndim != 2 or len(image_prompt) != len(text_ids):
        raise ValueError(
            f"image_prompt must have one row for each of the {len(text_ids)} captions, got shape "
            f"{tuple(image_prompt.shape)}"
        )
    to_draw = image_prompt == TO_DRAW
    if (to_draw != to_draw[:1]).any():
        raise ValueError("image_prompt must leave the same places of all captions to be drawn")
    length = image_prompt.shape[1]
    if length > sequence.image_len or (length == sequence.image_len and not to_draw.any()):
        raise ValueError(
            f"image_prompt must leave some of the {sequence.image_len} image tokens to draw, got "
            f"{length}; give fewer rows"
        )
    kept = image_prompt[~to_draw]
    if ((kept < 0) | (kept >= sequence.image_vocab)).any():
        raise ValueError(
            f"image_prompt must hold tokens from 0 to {sequence.image_vocab - 1}, got "
            f"{kept.min()} to {kept.max()}; encode it with this model's dVAE"
        )


@torch.inference_mode()
def _draw_rows(
    decoder: Decoder,
    text_ids: Tensor,
    *,
    image_prompt: Tensor,
    streams: Sequence[torch.Generator],
    sampling: SamplingConfig,
    chooser: Chooser,
) -> Iterator[Drawn]:
    sequence = decoder.sequence
    null = null_caption(sequence).to(text_ids.device).expand_as(text_ids)
    # The null caption, guided away from itself, is itself.
    guided = sampling.guidance_scale != 1 and not torch.equal(text_ids, null)
    captions, prompt_len = len(image_prompt), kept_first(image_prompt[0])
    behind = image_prompt[:, prompt_len:]  # kept tokens among those that are drawn
    is_kept = (behind[0] != TO_DRAW).tolist()
    image_prompt = image_prompt[:, :prompt_len]
    tokens = text_ids.new_empty(captions, len(streams), sequence.image_len)  # c g m
    tokens[:, :, :prompt_len] = image_prompt[:, None]
    log_probability = torch.zeros(tokens.shape[:2], device=tokens.device)  # c g

    if guided:  # the null caption runs beside each caption, as further rows of the batch
        text_ids = torch.cat([text_ids, null])
        image_prompt = torch.cat([image_prompt, image_prompt])
    logits, cache = decoder.prefill(text_ids, image_prompt, candidates=len(streams))
    logits = logits[:, None].expand(-1, len(streams), -1)  # c g k, or 2c g k when guided

    for position in range(prompt_len, sequence.image_len):
        column = position % sequence.grid_w
        if position == prompt_len or column == 0:
            shape = (sequence.grid_w, sequence.image_vocab)
            row_noise = gumbel_noise(shape, streams)  # g w k
        place = position - prompt_len
        if place < len(is_kept) and is_kept[place]:
            drawn = behind[:, place, None].expand(-1, len(streams))  # c g
            gained = log_probability_of(drawn, logits[:captions])
        else:
            drawn, gained = chooser(logits, row_noise[:, column], captions, sampling)  # c g
        tokens[:, :, position] = drawn
        log_probability += gained
        if column == sequence.grid_w - 1:
            yield Drawn(
                tokens=tokens[:, :, : position + 1].clone(),
                rows_done=position // sequence.grid_w + 1,
                log_probability=log_probability / (position + 1 - prompt_len),
            )
        if position + 1 < sequence.image_len:
            newest = torch.cat([drawn, drawn]) if guided else drawn
            logits = decoder.decode_step(newest, position, cache)
