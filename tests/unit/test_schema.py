"""JSON from outside as config dataclasses: nothing unknown, missing or of a wrong type."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dalle.config import SamplingConfig
from dalle.model_config import TransformerConfig
from dalle.schema import MAX_JSON_BYTES, build_config, read_object
from vae.config import VaeConfig

SAMPLING: dict[str, Any] = {"temperature": 1, "top_k": None, "top_p": 0.9, "guidance_scale": 3.0}


@pytest.mark.parametrize(
    "config",
    [
        VaeConfig(channels=8, quantizer="nearest"),
        TransformerConfig(width=64, qk_norm=True, attention="paper"),
        SamplingConfig(top_k=7),
    ],
)
def test_what_asdict_wrote_comes_back(config: Any) -> None:
    assert build_config(type(config), dataclasses.asdict(config), where="here") == config


def test_whole_numbers_may_stand_for_fractions() -> None:
    assert build_config(SamplingConfig, SAMPLING, where="here").temperature == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": True}, r"here\.temperature must be a number, got True"),
        ({"temperature": "1"}, r"here\.temperature must be a number, got '1'"),
        ({"temperature": None}, r"here\.temperature must be a number, got None"),
        ({"temperature": float("nan")}, r"here: temperature must be between 0 .*got nan"),
        ({"top_k": 2.0}, r"here\.top_k must be an integer or null, got 2\.0"),
        ({"top_k": False}, r"here\.top_k must be an integer or null, got False"),
        ({"top_k": [1] * 100}, r"here\.top_k must be an integer or null, got \[1, .{0,60}$"),
        ({"top_k": 0}, r"here: top_k must be at least 1, got 0"),
        ({"colour": 1, "size": 2}, "here has unknown keys: colour, size"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_config(SamplingConfig, SAMPLING | change, where="here")


def test_literals_and_truth_values_are_checked() -> None:
    values = dataclasses.asdict(TransformerConfig())
    with pytest.raises(ValueError, match=r'attention must be "dense" or "paper", got \'sparse\''):
        build_config(TransformerConfig, values | {"attention": "sparse"}, where="here")
    with pytest.raises(ValueError, match=r"qk_norm must be true or false, got 1"):
        build_config(TransformerConfig, values | {"qk_norm": 1}, where="here")


def test_a_missing_key_is_not_filled_with_a_default() -> None:
    """The number of heads shapes no weight: with another one a model loads, and draws rubbish."""
    values = dataclasses.asdict(TransformerConfig(heads=4))
    del values["heads"]
    with pytest.raises(ValueError, match="here lacks the keys heads"):
        build_config(TransformerConfig, values, where="here")


def test_what_was_added_to_the_format_later_may_be_missing() -> None:
    """Models from before there were decoders of another width have the encoder's."""
    values = dataclasses.asdict(VaeConfig(channels=48))
    del values["decoder_channels"]
    config = build_config(VaeConfig, values, where="here")
    assert config == VaeConfig(channels=48)
    assert config.decoder_shape == (48, config.blocks_per_group)


@pytest.mark.parametrize("values", [None, [], "text", 3])
def test_what_is_no_object_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="here is missing or not an object"):
        build_config(VaeConfig, values, where="here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff{}", "is not JSON: .*utf-8"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "must hold a JSON object, but holds a list"),
        (b" " * (MAX_JSON_BYTES + 1), "is larger than 1,048,576 bytes"),
    ],
)
def test_files_that_hold_no_object_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_object(path)
