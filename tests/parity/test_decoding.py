"""Cached decoding against the plain forward pass, which knows no cache."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor

from dalle.bag_cache import BagCache
from dalle.config import SamplingConfig
from dalle.kv_cache import KVCache
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.sampling import draw, gumbel_noise, sample_tokens
from dalle.seeds import generator
from dalle.sequence import null_caption, pad_caption
from dalle.transformer import JointTransformer

SEQUENCE = SequenceConfig(text_len=5, text_vocab=9, grid_h=4, grid_w=5, image_vocab=17)
IMAGE_LEN = SEQUENCE.image_len
PROMPTS = [0, 1, 7, IMAGE_LEN - 1]

# Both paths round to float32 after sums of a few dozen terms in another order.
assert_close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


def tiny(attention: str, *, qk_norm: bool = False, tie: bool = False) -> JointTransformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        width=24,
        heads=3,
        layers=6,
        attention=attention,  # type: ignore[arg-type]
        conv_kernel=3,
        qk_norm=qk_norm,
        tie_embeddings=tie,
    )
    transformer = JointTransformer(SEQUENCE, config)
    with torch.no_grad():  # weights at which a hidden or forgotten token shows in every logit
        for name, parameter in transformer.named_parameters():
            parameter.mul_(1 if "norm" in name else 6)
    return transformer


def captions() -> Tensor:
    return torch.stack([pad_caption(ids, SEQUENCE) for ids in ([1, 2], [3], [], [8, 7, 6, 5, 4])])


def images(count: int) -> Tensor:
    return torch.randint(17, (count, IMAGE_LEN), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("prompt_len", PROMPTS)
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("attention", ["dense", "dense, multiplied", "paper"])
@torch.inference_mode()
def test_cached_decoding_equals_the_forward_pass(
    attention: str, qk_norm: bool, tie: bool, prompt_len: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every candidate has an image of its own; candidates of a caption share its prompt."""
    attention, _, multiplied = attention.partition(", ")
    if multiplied:  # as where torch has no FBGEMM
        monkeypatch.setattr("dalle.transformer.sums_rows_fast", lambda: False)
    transformer = tiny(attention, qk_norm=qk_norm, tie=tie)
    text_ids, candidates = captions(), 3
    tokens = images(len(text_ids) * candidates).view(len(text_ids), candidates, IMAGE_LEN)
    tokens[:, :, :prompt_len] = tokens[:, :1, :prompt_len]
    flat_text = text_ids.repeat_interleave(candidates, dim=0)
    uncached = transformer(flat_text, tokens.flatten(0, 1)).image.view(*tokens.shape, -1)

    logits, cache = transformer.prefill(text_ids, tokens[:, 0, :prompt_len], candidates=candidates)
    assert isinstance(cache, KVCache if multiplied or attention == "paper" else BagCache)
    assert_close(logits, uncached[:, 0, prompt_len])
    for position in range(prompt_len, IMAGE_LEN - 1):
        logits = transformer.decode_step(tokens[:, :, position], position, cache)
        assert_close(logits, uncached[:, :, position + 1])


@pytest.mark.parametrize("attention", ["dense", "paper"])
@torch.inference_mode()
def test_a_batch_equals_its_rows(attention: str) -> None:
    transformer, text_ids, tokens = tiny(attention), captions(), images(4)
    together = transformer(text_ids, tokens)
    for row in range(4):
        alone = transformer(text_ids[row : row + 1], tokens[row : row + 1])
        assert_close(together.text[row], alone.text[0])
        assert_close(together.image[row], alone.image[0])


@torch.inference_mode()
def test_bfloat16_decoding_stays_close_to_float32() -> None:
    """The cache is then bfloat16 too; the softmax and the logits stay float32."""
    exact, half = tiny("paper"), tiny("paper").bfloat16()
    text_ids, tokens = captions(), images(4)
    _, exact_cache = exact.prefill(text_ids, tokens[:, :6], candidates=1)
    _, half_cache = half.prefill(text_ids, tokens[:, :6], candidates=1)
    assert isinstance(half_cache, KVCache)
    assert half_cache.suffix[0].keys.dtype == torch.bfloat16
    errors = []
    for position in range(6, IMAGE_LEN - 1):
        newest = tokens[:, position : position + 1]
        expected = exact.decode_step(newest, position, exact_cache)
        logits = half.decode_step(newest, position, half_cache)
        assert logits.dtype == torch.float32
        errors.append((logits - expected).std() / expected.std())
    assert max(errors) < 0.05, "8 bits of precision through six layers"


@torch.inference_mode()
def test_prefix_is_held_once_per_caption() -> None:
    transformer, text_ids = tiny("paper"), captions()
    for candidates in (1, 50):
        _, cache = transformer.prefill(text_ids, None, candidates=candidates)
        assert isinstance(cache, KVCache)
        assert cache.prefix[0].keys.shape == (4, 3, 6, 8), "captions, heads, 1 + t, head width"
        assert cache.suffix[0].keys.shape == (4, 3, candidates, 19, 8)


@torch.inference_mode()
def test_equal_captions_are_computed_once() -> None:
    transformer = tiny("dense")
    rows: list[int] = []
    transformer.blocks[0].register_forward_hook(lambda *call: rows.append(len(call[1][0])))
    text_ids = captions()[[3, 0, 3, 1, 0]]
    logits, prefix = transformer.read(text_ids, None)
    assert rows == [3]
    assert torch.equal(logits[[0, 1]], logits[[2, 4]])
    for row in range(5):
        alone, prefix_alone = transformer.read(text_ids[row : row + 1], None)
        assert_close(logits[row], alone[0])
        for layer, (keys, values) in enumerate(prefix_alone):
            assert_close(prefix[layer].keys[row], keys[0])
            assert_close(prefix[layer].values[row], values[0])


def uncached_sample(
    transformer: JointTransformer,
    caption: Tensor,
    prompt: Tensor,
    *,
    noise: dict[int, Tensor],
    sampling: SamplingConfig,
) -> tuple[Tensor, float]:
    """One image drawn by two full forward passes per token, and its mean log-probability."""
    tokens = torch.zeros(1, IMAGE_LEN, dtype=torch.int64)
    tokens[0, : len(prompt)] = prompt
    total = 0.0
    for position in range(len(prompt), IMAGE_LEN):
        conditional = transformer(caption[None], tokens).image[0, position]
        null = transformer(null_caption(SEQUENCE)[None], tokens).image[0, position]
        scale = sampling.guidance_scale
        token = draw((1 - scale) * null + scale * conditional, noise[position], sampling)
        tokens[0, position] = token
        total += conditional.double().softmax(-1)[token].log().item()
    return tokens[0], total / (IMAGE_LEN - len(prompt))


@pytest.mark.parametrize("prompt_len", [0, 7])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(guidance_scale=3.0),
        SamplingConfig(guidance_scale=0.0, temperature=0.7),
        SamplingConfig(guidance_scale=2.0, temperature=0.0),
        SamplingConfig(temperature=1.3, top_k=8, top_p=0.8),
    ],
)
@pytest.mark.parametrize("attention", ["dense", "paper"])
@torch.inference_mode()
def test_drawn_images_equal_uncached_drawing(
    attention: str, sampling: SamplingConfig, prompt_len: int
) -> None:
    transformer, text_ids = tiny(attention), captions()[:2]
    prompts = images(2)[:, :prompt_len]
    candidates = [0, 4]
    *_, drawn = sample_tokens(
        transformer,
        text_ids,
        candidates=candidates,
        seed=11,
        sampling=sampling,
        image_prompt=prompts,
    )
    for (row, caption), (column, candidate) in itertools.product(
        enumerate(text_ids), enumerate(candidates)
    ):
        stream = generator("image", 11, candidate)
        first_row = prompt_len // 5
        noise = torch.cat([gumbel_noise((5, 17), [stream])[0] for _ in range(first_row, 4)])
        by_position = dict(enumerate(noise, start=5 * first_row))
        tokens, log_probability = uncached_sample(
            transformer, caption, prompts[row], noise=by_position, sampling=sampling
        )
        assert torch.equal(drawn.tokens[row, column], tokens)
        assert drawn.log_probability[row, column].item() == pytest.approx(log_probability, rel=1e-3)
