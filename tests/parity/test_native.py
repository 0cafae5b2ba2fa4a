"""The compiled decode step against the plain one, and what its results may not depend on."""

from __future__ import annotations

import ctypes
import itertools
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import pytest
import torch
from torch import Tensor

from dalle.config import SamplingConfig, WeightType
from dalle.linear_layers import (
    Int8Linear,
    Int8Product,
    Int8WeightLinear,
    OneDnnLinear,
    in_dtype,
)
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.native import decoder as native_decoder
from dalle.native.build import FLAGS, SOURCE, compile_library
from dalle.native.decoder import NativeDecoder
from dalle.sampling import choose, sample_tokens
from dalle.sequence import pad_caption
from dalle.transformer import JointTransformer

SEQUENCE = SequenceConfig(text_len=5, text_vocab=9, grid_h=4, grid_w=5, image_vocab=17)
IMAGE_LEN = SEQUENCE.image_len
DTYPES: tuple[WeightType, ...] = ("fp32", "bf16", "int8")
PROMPT_LEN = 3

# Largest error of a score, in deviations of the scores. fp32 sums in another order; bf16 keeps 8
# bits of each number and int8 not quite as many, through four layers of large weights.
BOUNDS: dict[WeightType, float] = {"fp32": 2e-5, "bf16": 0.1, "int8": 0.4}


def tiny(width: int, heads: int, attention: str, *, qk_norm: bool = False) -> JointTransformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        width=width,
        heads=heads,
        layers=4,
        attention=attention,  # type: ignore[arg-type]
        conv_kernel=3,
        qk_norm=qk_norm,
    )
    transformer = JointTransformer(SEQUENCE, config).eval()
    with torch.no_grad():  # a token or a bias that is forgotten shows in every score
        for name, parameter in transformer.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(150 / width)
    return transformer


def captions() -> Tensor:
    return torch.stack([pad_caption(ids, SEQUENCE) for ids in ([1, 2], [3], [], [8, 7, 6, 5, 4])])


def images(captions: int, candidates: int) -> Tensor:
    stream = torch.Generator().manual_seed(3)
    tokens = torch.randint(17, (captions, candidates, IMAGE_LEN), generator=stream)
    tokens[:, :, :PROMPT_LEN] = tokens[:, :1, :PROMPT_LEN]
    return tokens


def scores(decoder: JointTransformer | NativeDecoder, text_ids: Tensor, tokens: Tensor) -> Tensor:
    """What a decoder says of every token after the prompt, shape (c, g, m - prompt, k)."""
    logits, cache = decoder.prefill(text_ids, tokens[:, 0, :PROMPT_LEN], candidates=tokens.shape[1])
    found = [logits[:, None].expand(-1, tokens.shape[1], -1)]
    for position in range(PROMPT_LEN, IMAGE_LEN - 1):
        newest = tokens[:, :, position]
        found.append(decoder.decode_step(newest, position, cache).clone())  # type: ignore[arg-type]
    return torch.stack(found, dim=2)


# Head widths of 8 (no whole vector), 16, 32 and 64; 24 and 40 leave padding in every product.
@pytest.mark.parametrize(
    ("width", "heads", "attention", "qk_norm"),
    [
        (24, 3, "dense", False),
        (40, 1, "paper", True),
        (64, 4, "dense", True),
        (64, 2, "paper", False),
        (128, 2, "dense", False),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_compiled_scores_stay_close(
    dtype: WeightType,
    width: int,
    heads: int,
    attention: str,
    qk_norm: bool,
    library: ctypes.CDLL,
) -> None:
    transformer = tiny(width, heads, attention, qk_norm=qk_norm)
    tokens = images(4, 3)
    expected = scores(transformer, captions(), tokens)
    found = scores(NativeDecoder(transformer, library, weights=dtype), captions(), tokens)
    error = ((found - expected).abs().max() / expected.std()).item()
    assert error < BOUNDS[dtype]
    if dtype != "fp32":
        assert error > BOUNDS["fp32"], "weights of fewer bits were really used"


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("attention", ["dense", "paper"])
def test_compiled_fp32_draws_the_same_greedy_tokens(
    attention: str, guidance_scale: float, library: ctypes.CDLL
) -> None:
    transformer = tiny(64, 2, attention)
    native = NativeDecoder(transformer, library, weights="fp32")
    sampling = SamplingConfig(temperature=0, guidance_scale=guidance_scale)
    *_, plain = sample_tokens(transformer, captions(), candidates=[0, 1], seed=0, sampling=sampling)
    *_, fast = sample_tokens(
        native, captions(), candidates=[0, 1], seed=0, sampling=sampling, chooser=native.choose
    )
    assert torch.equal(fast.tokens, plain.tokens)
    torch.testing.assert_close(fast.log_probability, plain.log_probability, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_bits_do_not_depend_on_the_batch(dtype: WeightType, library: ctypes.CDLL) -> None:
    """Batches of 1, 18, 40 and 72 rows go through vectors, one tile and several tiles."""
    decoder = NativeDecoder(tiny(64, 2, "dense"), library, weights=dtype)
    tokens = images(4, 18)
    together = scores(decoder, captions(), tokens)
    for candidates, count in ((1, 4), (18, 1), (10, 4)):
        rows = slice(4 - count, 4)
        part = scores(decoder, captions()[rows], tokens[rows, :candidates])
        assert torch.equal(part, together[rows, :candidates])


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_bits_do_not_depend_on_the_captions_read_together(
    dtype: WeightType, library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = NativeDecoder(tiny(64, 2, "paper"), library, weights=dtype)
    tokens = images(4, 3)
    together = scores(decoder, captions(), tokens)
    monkeypatch.setattr(native_decoder, "_PREFILL_ROWS", 3 * (1 + SEQUENCE.text_len + PROMPT_LEN))
    assert torch.equal(scores(decoder, captions(), tokens), together), "three, then one"
    monkeypatch.setattr(native_decoder, "_PREFILL_ROWS", 1)
    assert torch.equal(scores(decoder, captions(), tokens), together), "one by one"


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_bits_do_not_depend_on_the_threads(
    dtype: WeightType, library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = NativeDecoder(tiny(64, 2, "dense"), library, weights=dtype)
    tokens = images(4, 3)
    alone = scores(decoder, captions(), tokens)
    monkeypatch.setattr(NativeDecoder, "_threads", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # what reads captions
    assert torch.equal(scores(decoder, captions(), tokens), alone)


def test_a_drawing_goes_on_with_the_threads_it_began_with(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: whoever went on with it with more threads wrote past the memory made for fewer."""
    decoder = NativeDecoder(tiny(64, 2, "dense"), library, weights="fp32")
    tokens = images(4, 3)
    _, cache = decoder.prefill(captions(), tokens[:, 0, :PROMPT_LEN], candidates=3)
    size, guard = cache.scratch.numel(), 1 << 14
    cache.scratch = torch.full((size + guard,), 7.0)
    monkeypatch.setattr(NativeDecoder, "_threads", 4)
    decoder.decode_step(tokens[:, :, PROMPT_LEN].contiguous(), PROMPT_LEN, cache)
    assert (cache.scratch[size:] == 7).all()


SETTINGS = [
    SamplingConfig(),
    SamplingConfig(temperature=0),
    SamplingConfig(temperature=0.7, top_k=1),
    SamplingConfig(temperature=0.7, top_k=40),
    SamplingConfig(temperature=1.3, top_p=0.85),
    SamplingConfig(temperature=0.8, top_p=0.01, guidance_scale=2.0),
    SamplingConfig(top_k=60, top_p=0.5, guidance_scale=0.0),
    SamplingConfig(top_k=5000, guidance_scale=1.5),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("vocab", [17, 1024])
def test_compiled_choice_equals_the_plain_one(
    vocab: int, sampling: SamplingConfig, library: ctypes.CDLL
) -> None:
    decoder = NativeDecoder(tiny(24, 3, "dense"), library, weights="fp32")
    stream = torch.Generator().manual_seed(0)
    rows = 2 if sampling.guidance_scale == 1 else 4
    logits = 3 * torch.randn(rows, 200, vocab, generator=stream)
    noise = -torch.empty(200, vocab).exponential_(generator=stream).log()
    expected, expected_log = choose(logits, noise, 2, sampling)
    found, found_log = decoder.choose(logits, noise, 2, sampling)
    assert (found != expected).sum() <= 1, "a score may round to the other side of a filter's edge"
    same = found == expected
    torch.testing.assert_close(found_log[same], expected_log[same], rtol=1e-5, atol=1e-5)


def test_compiled_filters_keep_the_first_of_equal_scores(library: ctypes.CDLL) -> None:
    decoder = NativeDecoder(tiny(24, 3, "dense"), library, weights="fp32")
    logits = torch.zeros(1, 500, 17)
    noise = -torch.empty(500, 17).exponential_(generator=torch.Generator().manual_seed(0)).log()
    for sampling in (SamplingConfig(top_k=3), SamplingConfig(top_p=2.9 / 17)):
        tokens, _ = decoder.choose(logits, noise, 1, sampling)
        assert set(tokens.flatten().tolist()) == {0, 1, 2}
        assert torch.equal(tokens, choose(logits, noise, 1, sampling)[0])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of x86")
@pytest.mark.parametrize(
    "processor",
    [
        *("x86-64", "x86-64-v3", "alderlake", "skylake-avx512", "cascadelake", "cooperlake"),
        "sapphirerapids",
    ],
)
def test_the_step_is_sound_code_for_every_kind_of_processor(processor: str) -> None:
    """Each has other products of its own, and so other lines of it."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    flags = [flag for flag in FLAGS if not flag.startswith("-march")]
    run = subprocess.run(
        [compiler, *flags, f"-march={processor}", "-fsyntax-only", str(SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "bad value" in run.stderr:
        pytest.skip(f"this compiler does not know {processor}")
    assert run.returncode == 0, run.stderr


@torch.inference_mode()
def test_a_compiled_step_is_faster_than_torch_s(library: ctypes.CDLL) -> None:
    """On any processor: vectors wider than its registers once made it four times slower."""
    torch.manual_seed(0)
    config = TransformerConfig(width=512, heads=8, layers=2)
    transformer = JointTransformer(SEQUENCE, config).eval()
    native = NativeDecoder(transformer, library, weights="fp32")
    tokens = torch.zeros(4, 2, dtype=torch.int64)
    steps: list[Callable[[], Tensor]] = []
    for decoder in (in_dtype(transformer, "fp32"), native):
        _, cache = decoder.prefill(captions(), None, candidates=2)
        steps.append(partial(decoder.decode_step, tokens, 0, cache))  # type: ignore[arg-type]
    seconds = [[_seconds(step) for step in steps] for _ in range(15)]  # in turn
    plain, compiled = (median(times) for times in zip(*seconds, strict=True))
    assert compiled < plain


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --------------------------------------------------------------------------- without a compiler


def every_product() -> tuple[Int8Product, ...]:
    """All that multiply whole numbers here, however long one of them may take for it."""
    packs = torch.backends.quantized.engine in ("x86", "fbgemm")
    # Without VNNI, FBGEMM adds pairs of products in 16 bits, which these may exceed.
    packs = packs and torch.cpu._is_vnni_supported()
    return ("plain", "float", "packed") if packs else ("plain", "float")


@pytest.mark.parametrize("product", every_product())
@torch.inference_mode()
def test_int8_layers_stay_close_and_apart(product: Int8Product) -> None:
    """A row's result is its own, bit for bit, whatever other rows are in the batch."""
    torch.manual_seed(0)
    exact = torch.nn.Linear(64, 48)
    layer = Int8Linear(exact, product=product)
    x = torch.randn(9, 4, 64) * torch.logspace(-3, 3, 9)[:, None, None]
    y = layer(x)
    expected = exact(x) - exact.bias
    error = (y - exact.bias - expected).abs().amax(dim=(1, 2)) / expected.std(dim=(1, 2))
    assert 0 < error.max() < 0.05, "7 bits of weights and inputs, over sums of 64"
    for row, column in itertools.product((0, 4, 8), (0, 3)):
        assert torch.equal(layer(x[row : row + 1, column : column + 1])[0, 0], y[row, column])


@pytest.mark.parametrize("product", every_product())
@torch.inference_mode()
def test_int8_products_are_the_same_whole_numbers_whoever_multiplies(product: Int8Product) -> None:
    """Sums of inputs and weights that are whole numbers of steps already are these, exactly."""
    torch.manual_seed(0)
    exact = torch.nn.Linear(512, 48)
    weights, inputs = torch.randint(-127, 128, (48, 512)), torch.randint(-127, 128, (5, 512))
    weights[:, 0] = inputs[:, 0] = 127  # the largest of each row, so that a step is 1
    exact.weight.data = weights.float()
    sums = Int8Linear(exact, product=product)(inputs.float()) - exact.bias
    torch.testing.assert_close(sums, (inputs @ weights.T).float(), rtol=1e-6, atol=1e-2)


@pytest.mark.parametrize("product", every_product())
@torch.inference_mode()
def test_int8_of_nothing_is_the_bias(product: Int8Product) -> None:
    """A row of zeros has no scale, and is no NaN."""
    layer = Int8Linear(torch.nn.Linear(64, 48), product=product)
    x = torch.zeros(2, 64)
    x[1] = 1
    assert torch.equal(layer(x)[0], layer.bias)
    assert layer(x).isfinite().all()


@torch.inference_mode()
def test_a_gpu_s_int8_weights_are_those_of_a_processor() -> None:
    """Only the weights are rounded there, so products are those of what they stand for."""
    torch.manual_seed(0)
    exact = torch.nn.Linear(64, 48)
    layer = Int8WeightLinear(exact)
    x = torch.randn(5, 64)
    widened = layer.weight.double() * layer.scales.double()[:, None]
    expected = x.double() @ widened.T + exact.bias.double()
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert (widened - exact.weight).abs().max() <= layer.scales.max() / 2 * 1.001


@torch.inference_mode()
def test_weights_laid_out_for_onednn_give_torch_s_products() -> None:
    torch.manual_seed(0)
    exact = torch.nn.Linear(64, 48)
    x = torch.randn(3, 5, 64)
    torch.testing.assert_close(OneDnnLinear(exact, torch.float32)(x), exact(x))


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor has no products of bf16, and nothing takes that way",
)
@torch.inference_mode()
def test_bf16_weights_laid_out_for_onednn_give_torch_s_products() -> None:
    torch.manual_seed(0)
    exact = torch.nn.Linear(64, 48)
    x = torch.randn(3, 5, 64)
    narrow = OneDnnLinear(exact, torch.bfloat16)(x)
    assert narrow.dtype == torch.float32
    plain = exact.bfloat16()(x.bfloat16()).float()
    # One rounding of the sum to 8 bits may fall differently.
    torch.testing.assert_close(narrow, plain, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
@torch.inference_mode()
def test_plain_scores_in_fewer_bits_stay_close(dtype: WeightType) -> None:
    transformer = tiny(64, 2, "paper", qk_norm=True)
    before = transformer.blocks[0].mlp_in.weight.clone()  # type: ignore[union-attr, operator]
    tokens = images(4, 3)
    expected = scores(transformer, captions(), tokens)
    error = (scores(in_dtype(transformer, dtype), captions(), tokens) - expected).abs().max()
    assert 1e-4 < error / expected.std() < BOUNDS[dtype]
    after = transformer.blocks[0].mlp_in.weight  # type: ignore[union-attr]
    assert torch.equal(after, before), "the model itself stays as it is"  # type: ignore[arg-type]


def test_the_library_is_made_once_and_whole(library: ctypes.CDLL) -> None:
    path = Path(library._name)
    before = path.stat().st_mtime_ns
    assert compile_library() == path
    assert path.stat().st_mtime_ns == before, "the second call finds what the first made"
    assert set(path.parent.iterdir()) == {path, path.with_suffix(".sha256")}, (
        "nothing is left lying about"
    )
