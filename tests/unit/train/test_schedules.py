"""Schedules at their ends and in their middles."""

from __future__ import annotations

import pytest

from dalle.config import OptimConfig
from dalle.train.schedules import ema_decay, half_cosine, learning_rate


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1.0), (25, 0.0625 + 0.9375 * 0.853553), (50, 0.53125), (100, 0.0625), (10**9, 0.0625)],
)
def test_half_cosine_falls_from_start_to_end_and_stays(step: int, value: float) -> None:
    """A quarter of the way the cosine has lost (1 - cos 45 degrees) / 2 = 0.146447."""
    assert half_cosine(1.0, 0.0625, step, 100) == pytest.approx(value, abs=1e-6)


def test_half_cosine_rises_just_as_well() -> None:
    """The paper's KL weight: 0 to 6.6 over 5,000 updates."""
    assert half_cosine(0.0, 6.6, 0, 5000) == 0
    assert half_cosine(0.0, 6.6, 2500, 5000) == pytest.approx(3.3)
    assert half_cosine(0.0, 6.6, 5000, 5000) == 6.6


def test_learning_rate_warms_up_and_ends_at_its_final_fraction() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=4, final_lr_fraction=0.1)
    rates = [learning_rate(config, step, 25) for step in range(25)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[14] == pytest.approx(0.55), "halfway between steps 4 and 24"
    assert rates[24] == pytest.approx(0.1), "the last update, not the one after it"
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_learning_rate_of_runs_without_warm_up_or_shorter_than_it() -> None:
    plain = OptimConfig(lr=1.0, warmup_steps=0, final_lr_fraction=0.5)
    assert [learning_rate(plain, step, 3) for step in range(3)] == pytest.approx([1, 0.75, 0.5])
    assert learning_rate(plain, 0, 1) == 1
    short = OptimConfig(lr=1.0, warmup_steps=10)
    assert [learning_rate(short, step, 2) for step in range(2)] == pytest.approx([0.1, 0.2])


def test_the_average_forgets_its_start_quickly_and_then_keeps_to_its_limit() -> None:
    assert ema_decay(0.999, 0) == 0.1
    assert ema_decay(0.999, 90) == 0.91
    assert ema_decay(0.999, 10**6) == 0.999
    assert ema_decay(0.5, 90) == 0.5
