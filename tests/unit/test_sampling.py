"""Fair draws, and what an image may and may not depend on."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dalle.bag_cache import BagCache
from dalle.config import SamplingConfig
from dalle.kv_cache import KVCache
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.sampling import (
    Drawn,
    draw,
    gumbel_noise,
    sample_tokens,
)
from dalle.sequence import pad_caption
from dalle.transformer import JointTransformer
from tests.unit.test_filters import QUARTERS

SEQUENCE = SequenceConfig(text_len=4, text_vocab=9, grid_h=3, grid_w=4, image_vocab=13)
PLAIN = SamplingConfig()
FIRST_NOISE = [-1.2551391, -0.2073269, 0.4860613]
"""Of seed 0, by torch 2.15's own exponential noise."""


def tiny(**changes: object) -> JointTransformer:
    torch.manual_seed(0)
    config = TransformerConfig(width=16, heads=2, layers=2, **changes)  # type: ignore[arg-type]
    transformer = JointTransformer(SEQUENCE, config)
    with torch.no_grad():  # strong enough that what is drawn depends on what was drawn
        for name, parameter in transformer.named_parameters():
            parameter.mul_(1 if "norm" in name else 8)
    return transformer


def captions(*ids: Sequence[int]) -> Tensor:
    return torch.stack([pad_caption(caption, SEQUENCE) for caption in ids])


def last(
    transformer: JointTransformer,
    text_ids: Tensor,
    candidates: Sequence[int],
    *,
    seed: int = 0,
    sampling: SamplingConfig = PLAIN,
    image_prompt: Tensor | None = None,
) -> Drawn:
    *_, drawn = sample_tokens(
        transformer,
        text_ids,
        candidates=candidates,
        seed=seed,
        sampling=sampling,
        image_prompt=image_prompt,
    )
    return drawn


# ------------------------------------------------------------------------------------------- draws


def chi_square_chance(counts: Tensor, probabilities: Tensor) -> float:
    """Probability of counts at least this uneven if they were drawn from `probabilities`."""
    expected = probabilities * counts.sum()
    statistic = ((counts - expected).square() / expected).sum()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic.double() / 2))


@pytest.mark.parametrize(
    ("sampling", "probabilities"),
    [
        (SamplingConfig(), [0.125, 0.5, 0.125, 0.25]),
        (SamplingConfig(temperature=0.5), [1 / 22, 16 / 22, 1 / 22, 4 / 22]),
        (SamplingConfig(top_k=2), [0, 2 / 3, 0, 1 / 3]),
        (SamplingConfig(top_p=0.6), [0, 2 / 3, 0, 1 / 3]),
        (SamplingConfig(temperature=0.5, top_k=2, top_p=0.85), [0, 0.8, 0, 0.2]),
    ],
)
def test_tokens_are_drawn_as_often_as_their_probability(
    sampling: SamplingConfig, probabilities: list[float]
) -> None:
    """100,000 draws; a correct sampler fails once in a million seeds (chi-square)."""
    noise = gumbel_noise((100_000, 4), [torch.Generator().manual_seed(0)])[0]
    drawn = draw(QUARTERS.expand(100_000, -1), noise, sampling)
    counts = drawn.bincount(minlength=4)
    expected = torch.tensor(probabilities, dtype=torch.float64)
    assert counts[expected == 0].sum() == 0
    assert chi_square_chance(counts[expected > 0], expected[expected > 0]) > 1e-6


def test_first_tokens_of_many_candidates_follow_the_model() -> None:
    """The streams of different images are independent; false alarms: one in a million seeds."""
    transformer, text_ids = tiny(), captions([1, 2])
    with torch.inference_mode():
        logits, _ = transformer.prefill(text_ids, None, candidates=1)
        tokens = last(transformer, text_ids, range(4000)).tokens[0, :, 0]
    probabilities = logits[0].double().softmax(-1)
    assert chi_square_chance(tokens.bincount(minlength=13), probabilities) > 1e-6


def test_noise_is_finite_even_where_the_generator_gives_zero() -> None:
    noise = gumbel_noise((1_000_000,), [torch.Generator().manual_seed(0)])[0]
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)


def test_noise_is_that_of_torch_s_exponential_distribution() -> None:
    """So it was drawn before, number by number; pictures of that time must come out the same."""
    noise = gumbel_noise((1000,), [torch.Generator().manual_seed(7)])[0]
    uniform = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    expected = [-math.log(-math.log1p(-value)) for value in uniform.tolist()]
    torch.testing.assert_close(noise, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    first = gumbel_noise((3,), [torch.Generator().manual_seed(0)])[0].tolist()
    assert first == pytest.approx(FIRST_NOISE, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 7), (3, 513), (16, 1024)])
def test_noise_of_an_image_is_the_same_beside_any_others(shape: tuple[int, int]) -> None:
    """Enough of it that threads share it out in the middle of rows."""

    def streams() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(37)]

    together = gumbel_noise(shape, streams())
    assert together.shape == (37, *shape)
    for stream, noise in zip(streams(), together, strict=True):
        assert torch.equal(gumbel_noise(shape, [stream])[0], noise)


def test_temperature_zero_takes_the_best_whatever_the_noise() -> None:
    noise = torch.tensor([100.0, 0.0, 0.0, 0.0])
    assert draw(QUARTERS, noise, SamplingConfig(temperature=0)).item() == 1


# ------------------------------------------------------------------------------------- whole images


def test_rows_appear_one_by_one() -> None:
    drawn = list(
        sample_tokens(tiny(), captions([1], [2, 3]), candidates=[0, 1, 2], seed=0, sampling=PLAIN)
    )
    assert [item.rows_done for item in drawn] == [1, 2, 3]
    for item in drawn:
        assert item.tokens.shape == (2, 3, 4 * item.rows_done)
        assert item.log_probability.shape == (2, 3)
        assert torch.equal(item.tokens, drawn[-1].tokens[:, :, : 4 * item.rows_done])


@pytest.mark.parametrize(
    ("prompt_len", "rows"), [(0, [1, 2, 3]), (4, [2, 3]), (6, [2, 3]), (11, [3])]
)
def test_the_prompt_is_kept_and_the_rest_drawn(prompt_len: int, rows: list[int]) -> None:
    prompt = torch.arange(2 * prompt_len).view(2, prompt_len) % 13
    text_ids = captions([1], [2])
    drawn = list(
        sample_tokens(
            tiny(), text_ids, candidates=[0, 5], seed=0, sampling=PLAIN, image_prompt=prompt
        )
    )
    assert [item.rows_done for item in drawn] == rows
    kept = drawn[-1].tokens[:, :, :prompt_len]
    assert torch.equal(kept, prompt[:, None].expand_as(kept))
    assert drawn[-1].tokens.shape == (2, 2, 12)


def test_what_was_given_out_is_the_receivers_own() -> None:
    transformer, text_ids = tiny(), captions([1])
    expected = last(transformer, text_ids, [0])
    for item in sample_tokens(transformer, text_ids, candidates=[0], seed=0, sampling=PLAIN):
        final = item.tokens.clone(), item.log_probability.clone()
        with torch.inference_mode():
            item.tokens.fill_(0)
            item.log_probability.fill_(0)
    assert torch.equal(final[0], expected.tokens)
    assert torch.equal(final[1], expected.log_probability)


def test_same_seed_same_images_other_seed_or_index_others() -> None:
    transformer, text_ids = tiny(), captions([1, 2])
    first = last(transformer, text_ids, [0, 1]).tokens
    assert torch.equal(first, last(transformer, text_ids, [0, 1]).tokens)
    assert not torch.equal(first, last(transformer, text_ids, [0, 1], seed=1).tokens)
    assert not torch.equal(first[:, 0], first[:, 1])


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_an_image_does_not_depend_on_its_neighbours(guidance_scale: float) -> None:
    transformer = tiny(attention="paper", conv_kernel=3)
    sampling = SamplingConfig(top_k=9, guidance_scale=guidance_scale)
    together = last(transformer, captions([1], [2, 3], []), [0, 1, 7], sampling=sampling)
    alone = last(transformer, captions([2, 3]), [7], sampling=sampling)
    assert torch.equal(together.tokens[1, 2], alone.tokens[0, 0])
    torch.testing.assert_close(together.log_probability[1, 2], alone.log_probability[0, 0])


def test_greedy_images_are_equal_and_take_no_noise() -> None:
    greedy = SamplingConfig(temperature=0)
    transformer, text_ids = tiny(), captions([1, 2])
    tokens = last(transformer, text_ids, [0, 1], sampling=greedy).tokens
    assert torch.equal(tokens[:, 0], tokens[:, 1])
    assert torch.equal(tokens, last(transformer, text_ids, [5, 6], seed=9, sampling=greedy).tokens)


def test_guidance_one_is_off_and_costs_nothing() -> None:
    """At scale 1 the null caption is not read; otherwise it is one more row, read once."""
    transformer, text_ids = tiny(), captions([1], [2, 3], [4])
    rows: list[int] = []
    transformer.blocks[0].register_forward_hook(lambda *call: rows.append(len(call[1][0])))
    plain = last(transformer, text_ids, [0, 1]).tokens
    assert torch.equal(
        plain, last(transformer, text_ids, [0, 1], sampling=SamplingConfig(guidance_scale=1)).tokens
    )
    guided = last(transformer, text_ids, [0, 1], sampling=SamplingConfig(guidance_scale=4)).tokens
    assert not torch.equal(plain, guided)
    assert rows == [3, 3, 4]


def test_images_of_no_caption_need_no_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: every row was decoded twice to be guided by itself."""
    transformer, text_ids = tiny(), captions([])
    rows: list[int] = []
    decode_step = transformer.decode_step

    def noted(newest: Tensor, position: int, cache: KVCache | BagCache) -> Tensor:
        rows.append(len(newest))
        return decode_step(newest, position, cache)

    monkeypatch.setattr(transformer, "decode_step", noted)
    guided = last(transformer, text_ids, [0], sampling=SamplingConfig(guidance_scale=5)).tokens
    assert {*rows} == {1}
    assert torch.equal(guided, last(transformer, text_ids, [0]).tokens)


def test_closing_the_iterator_frees_the_cache() -> None:
    def caches() -> int:
        gc.collect()
        return sum(type(thing) in {KVCache, BagCache} for thing in gc.get_objects())

    before = caches()
    rows = sample_tokens(tiny(), captions([1]), candidates=[0], seed=0, sampling=PLAIN)
    next(rows)
    assert caches() == before + 1
    rows.close()  # type: ignore[attr-defined]
    assert caches() == before


def test_drawing_leaves_gradients_of_the_caller_on() -> None:
    for item in sample_tokens(tiny(), captions([1]), candidates=[0], seed=0, sampling=PLAIN):
        assert not item.log_probability.requires_grad
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"text_ids": torch.zeros(1, 5, dtype=torch.int64)},
            r"shape \(captions, 4\), got \(1, 5\)",
        ),
        ({"text_ids": torch.zeros(0, 4, dtype=torch.int64)}, r"got \(0, 4\)"),
        ({"candidates": []}, "at least one index, got none"),
        (
            {"image_prompt": torch.zeros(2, 4, dtype=torch.int64)},
            "one row for each of the 1 captions",
        ),
        (
            {"image_prompt": torch.zeros(1, 12, dtype=torch.int64)},
            "12 image tokens to draw, got 12",
        ),
        ({"image_prompt": torch.full((1, 4), 13)}, "tokens from 0 to 12, got 13 to 13"),
    ],
)
def test_impossible_requests_are_refused_before_anything_runs(
    changes: dict[str, object], message: str
) -> None:
    request = {"text_ids": captions([1]), "candidates": [0], "image_prompt": None} | changes
    text_ids = request.pop("text_ids")
    with pytest.raises(ValueError, match=message):
        sample_tokens(tiny(), text_ids, seed=0, sampling=PLAIN, **request)  # type: ignore[arg-type]
