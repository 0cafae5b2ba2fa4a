"""What a call may ask for, and how it is told what it may not."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, cast

import numpy as np
import pytest

from dalle import TextToImage
from dalle.config import MAX_CANDIDATES, SamplingConfig, SamplingOptions
from dalle.request import Request, check_request

MODELS_OWN = SamplingConfig(temperature=0.9, top_k=24, guidance_scale=1.5)


def request(candidates: Any = 16, keep: Any = None, seed: Any = 0, **options: Any) -> Request:
    return check_request(
        candidates, keep, seed=seed, default=MODELS_OWN, options=cast(SamplingOptions, options)
    )


def test_what_is_left_out_is_the_models_own() -> None:
    assert request(5) == Request(candidates=5, keep=5, seed=0, sampling=MODELS_OWN)
    changed = request(5, 2, -3, top_k=None, top_p=0.5, temperature=0)
    assert changed == Request(
        candidates=5,
        keep=2,
        seed=-3,
        sampling=SamplingConfig(temperature=0, top_k=24, top_p=0.5, guidance_scale=1.5),
    )


def test_top_k_0_switches_the_models_own_filter_off() -> None:
    """Bug: None keeps the model's own top-k, so nothing could ask for no filter."""
    assert request(top_k=0).sampling.top_k is None
    assert request(top_k=None).sampling.top_k == 24


def test_the_limits_themselves_are_allowed() -> None:
    largest = (1 << 63) - 1
    assert request(MAX_CANDIDATES, 1, largest).seed == largest
    assert request(1, 1, -largest).keep == 1
    assert request(temperature=100, top_k=1, top_p=1, guidance_scale=100).sampling.top_k == 1
    assert request(temperature=0, top_p=1e-9, guidance_scale=0).sampling.temperature == 0


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    made = request(np.int64(2), np.uint8(1), np.int32(3))
    assert made == request(2, 1, 3)
    assert {type(made.candidates), type(made.keep), type(made.seed)} == {int}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 0}, "candidates must be between 1 and 4,096, got 0"),
        ({"candidates": MAX_CANDIDATES + 1}, "candidates must be between 1 and 4,096, got 4097"),
        ({"candidates": 4, "keep": 5}, r"keep must be between 1 and candidates \(4\), got 5"),
        ({"candidates": 4, "keep": 0}, r"keep must be between 1 and candidates \(4\), got 0"),
        ({"candidates": 2.5}, r"candidates must be a whole number, got 2\.5"),
        ({"keep": "2"}, "keep must be a whole number, got '2'"),
        ({"seed": 0.5}, r"seed must be a whole number, got 0\.5"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"seed": 1 << 63}, r"seed must be a whole number below 2\^63 in size"),
        ({"temperature": -1}, "temperature must be between 0 .greedy. and 100, got -1"),
        ({"temperature": float("nan")}, "temperature must be between 0 .greedy. and 100, got nan"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"top_k": -1}, "top_k must be at least 1, got -1; to keep every token, leave it out"),
        ({"top_k": 2.5}, r"top_k must be a whole number or None, got 2\.5"),
        ({"top_p": 1.2}, r"top_p must be in \(0, 1\], got 1\.2"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
        # In single precision both are 0: the one was no index, the other always the first token.
        ({"top_p": 1e-46}, "top_p above 0 must be at least 1e-30, got 1e-46"),
        ({"temperature": 1e-46}, "temperature above 0 must be at least 1e-30, got 1e-46"),
        ({"guidance_scale": float("inf")}, "guidance_scale must be between 0 and 100, got inf"),
        ({"guidence": 2}, "unknown sampling option 'guidence'; did you mean guidance_scale?"),
        ({"candidats": 2}, "unknown sampling option 'candidats'; did you mean candidates?"),
        ({"crop": "top"}, "unknown sampling option 'crop'; the options are temperature, top_k"),
        ({"cfg": 2}, "unknown sampling option 'cfg'; the options are temperature, top_k"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        request(**settings)


def test_options_and_settings_name_the_same_things() -> None:
    settings = {field.name for field in dataclasses.fields(SamplingConfig)}
    assert set(SamplingOptions.__annotations__) == settings
    for verb in (TextToImage.generate, TextToImage.generate_many, TextToImage.stream):
        assert {"candidates", "keep", "seed"} <= set(inspect.signature(verb).parameters)
    for name in settings:
        assert f"`{name}`" in (TextToImage.generate.__doc__ or "")
