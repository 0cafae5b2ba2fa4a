"""How training settings move with the step: plain functions of the step, nothing to save."""

from __future__ import annotations

import math

from dalle.config import OptimConfig


def half_cosine(start: float, end: float, step: int, steps: int) -> float:
    """`start` at step 0, `end` from `steps` on, half a cosine in between (paper, appendix A.2)."""
    progress = min(max(step / steps, 0.0), 1.0)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of update number `step`, counted from 0, out of `steps`.

    It rises linearly over the warm-up, whose last update has the highest rate, and then falls by
    half a cosine to the final fraction, which the last update of all has.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    final = config.lr * config.final_lr_fraction
    falling = max(steps - 1 - config.warmup_steps, 1)
    return half_cosine(config.lr, final, step - config.warmup_steps, falling)


def ema_decay(limit: float, step: int) -> float:
    """Decay of the averaged weights after update number `step`: small at first, then `limit`.

    An average that starts at full decay remembers the random initial weights for thousands of
    steps, which short runs never outlive.
    """
    return min(limit, (1 + step) / (10 + step))
