"""Steps of one shape, as CUDA graphs record them, against the plain ones.

On a CPU the same steps are run rather than recorded, so that all but the recording is tested
everywhere; the tests marked `gpu` record.
"""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from dalle.config import SamplingConfig
from dalle.graph_decoder import KEPT_DESKS, GraphDecoder, compiled_block
from dalle.sampling import Decoder, sample_tokens
from dalle.sequence import pad_caption
from dalle.transformer import JointTransformer
from tests.parity.test_decoding import PROMPTS, SEQUENCE, assert_close
from tests.parity.test_decoding import tiny as plain_tiny

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def tiny(attention: str = "dense", device: str = "cpu") -> JointTransformer:
    return plain_tiny(attention, qk_norm=attention == "paper").to(device).eval()


def captions(device: str = "cpu") -> Tensor:
    rows = [pad_caption(ids, SEQUENCE) for ids in ([1, 2], [3], [8, 7, 6, 5, 4])]
    return torch.stack(rows).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("prompt_len", PROMPTS)
@pytest.mark.parametrize("attention", ["dense", "paper"])
@torch.inference_mode()
def test_every_score_is_that_of_the_plain_step(
    attention: str, prompt_len: int, device: str
) -> None:
    plain = tiny(attention, device)
    recorded = GraphDecoder(plain, compile=False)
    drawn = torch.randint(17, (3, 2, SEQUENCE.image_len), generator=torch.Generator()).to(device)
    prompt = drawn[:, 0, :prompt_len]
    expected, cache = plain.prefill(captions(device), prompt, candidates=2)
    found, lease = recorded.prefill(captions(device), prompt, candidates=2)
    assert torch.equal(found, expected)
    for position in range(prompt_len, SEQUENCE.image_len - 1):
        newest = drawn[:, :, position]
        assert_close(
            recorded.decode_step(newest, position, lease),
            plain.decode_step(newest, position, cache),
        )


def greedy(decoder: Decoder, text_ids: Tensor, candidates: int = 2) -> Tensor:
    sampling = SamplingConfig(temperature=0, guidance_scale=1.5)
    *_, last = sample_tokens(
        decoder, text_ids, candidates=range(candidates), seed=0, sampling=sampling
    )
    return last.tokens


@pytest.mark.parametrize("device", DEVICES)
def test_a_desk_used_again_remembers_nothing(device: str) -> None:
    """Keys of an earlier picture lie where the next one's will: they must stay hidden."""
    plain = tiny(device=device)
    recorded = GraphDecoder(plain, compile=False)
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 0]):
        text_ids = captions(device)[order]
        assert torch.equal(greedy(recorded, text_ids), greedy(plain, text_ids))
    assert len(recorded._desks) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_batches_drawn_in_turn_do_not_meet(device: str) -> None:
    plain = tiny(device=device)
    recorded = GraphDecoder(plain, compile=False)
    sampling = SamplingConfig(temperature=1)
    streams = [
        [
            sample_tokens(
                decoder, captions(device), candidates=range(2), seed=seed, sampling=sampling
            )
            for seed in (1, 2)
        ]
        for decoder in (plain, recorded)
    ]
    for _ in range(SEQUENCE.grid_h):
        for expected, found in zip(*streams, strict=True):
            assert torch.equal(next(found).tokens, next(expected).tokens)
    assert len(recorded._desks) == 2


def test_few_desks_outlive_their_users() -> None:
    recorded = GraphDecoder(tiny(), compile=False)
    for candidates in range(1, 7):
        greedy(recorded, captions(), candidates)
    gc.collect()
    greedy(recorded, captions(), 1)
    assert len(recorded._desks) == KEPT_DESKS + 1


@pytest.mark.parametrize("device", DEVICES)
@torch.inference_mode()
def test_a_step_is_read_from_tensors_alone(device: str) -> None:
    """What a graph must not hold: a number that was true of the step in which it was recorded."""
    recorded = GraphDecoder(tiny("paper", device), compile=False)
    # Whole graphs or none: a step that asks a tensor for its number would be an error here.
    recorded._decode_block = torch.compile(
        recorded._decode_block, backend="aot_eager", fullgraph=True
    )
    assert torch.equal(
        greedy(recorded, captions(device)), greedy(tiny("paper", device), captions(device))
    )


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["dense", "paper"])
@torch.inference_mode()
def test_a_compiled_step_on_a_gpu_is_the_plain_one(attention: str) -> None:
    plain = tiny(attention, "cuda")
    compiled = GraphDecoder(plain, compile=True)
    assert torch.equal(greedy(compiled, captions("cuda")), greedy(plain, captions("cuda")))


@torch.inference_mode()
def test_a_compiled_step_copies_no_cache() -> None:
    """Bug: told of the same memory twice, torch made a copy of all of it at every step."""
    graphs: list[str] = []

    def seen(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph.code)
        return graph

    recorded = GraphDecoder(tiny(), compile=False)
    recorded._decode_block = compiled_block(backend=aot_autograd(fw_compiler=seen))
    assert torch.equal(greedy(recorded, captions()), greedy(tiny(), captions()))
    assert graphs
    assert not any("as_strided" in code for code in graphs)


@pytest.mark.gpu
@torch.inference_mode()
def test_two_threads_record_at_once() -> None:
    plain = tiny(device="cuda")
    recorded = GraphDecoder(plain, compile=False)
    counts = (1, 2, 3, 4)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda count: greedy(recorded, captions("cuda"), count), counts))
    for count, tokens in zip(counts, found, strict=True):
        assert torch.equal(tokens, greedy(plain, captions("cuda"), count))
