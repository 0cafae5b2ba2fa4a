"""Results are plain JSON once they are told as dictionaries."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from dalle.evaluate.estimators import Curve, share
from dalle.evaluate.results import (
    EnvelopePoint,
    Evaluation,
    HitAt1,
    HitAtK,
    curve_points,
    envelope_points,
)


def test_an_evaluation_is_ready_for_json() -> None:
    points = curve_points(
        Curve(rates=np.array([0.25, 0.5], np.float32), low=np.zeros(2), high=np.array([0.75, 1.0]))
    )
    assert points == (
        HitAtK(k=1, rate=0.25, low=0.0, high=0.75),
        HitAtK(k=2, rate=0.5, low=0.0, high=1.0),
    )
    rate = share([True, False])
    evaluation = Evaluation(
        model="emoji",
        fingerprint="0123",
        set="heldout",
        captions=2,
        candidates=2,
        seed=0,
        temperature=0.7,
        seconds=1.5,
        hit_at_1=HitAt1(random=rate, oracle=rate, clip=rate),
        gap_closed={"clip": None},
        hit_at_k={"random": points},
        temperatures={"0.7": points},
        envelope=envelope_points({0.7: np.array([0.25, 0.5], np.float32)}),
        attributes={"all": rate},
    )
    tree = json.loads(json.dumps(asdict(evaluation)))
    told = {"rate": 0.5, "low": rate.low, "high": rate.high, "n": 2}
    assert tree["hit_at_1"] == {"random": told, "oracle": told, "likelihood": None, "clip": told}
    assert tree["hit_at_k"]["random"][1] == {"k": 2, "rate": 0.5, "low": 0.0, "high": 1.0}
    assert tree["envelope"][0] == {"k": 1, "rate": 0.25, "temperature": 0.7}
    assert tree["attributes"] == {"all": told}
    assert tree["gap_closed"] == {"clip": None}
    assert tree["retrieval"] is tree["bits_per_token"] is tree["memorisation"] is None


def test_the_envelope_has_a_point_for_each_k() -> None:
    found = envelope_points({0.5: np.array([0.4, 0.5]), 1.0: np.array([0.2, 0.9])})
    assert found == (
        EnvelopePoint(k=1, rate=0.4, temperature=0.5),
        EnvelopePoint(k=2, rate=0.9, temperature=1.0),
    )
    with pytest.raises(ValueError, match="at least one curve, got none"):
        envelope_points({})
