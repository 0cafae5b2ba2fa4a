"""How training settings move with the step: plain functions of the step, nothing to save."""

from __future__ import annotations

import math

from dalle.config import OptimConfig


def half_cosine(start: float, end: float, step: int, steps: int) -> float:
    """`start` at step 0, `end` from `steps` on, half a cosine in between (paper, appendix A.2)."""
    progress = min(max(step / steps, 0.0), 1.0)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of update number `step` (from 0) out of `steps`: warm-up, then half a cosine."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    after_warmup = max(steps - config.warmup_steps, 1)
    final = config.lr * config.final_lr_fraction
    return half_cosine(config.lr, final, step - config.warmup_steps, after_warmup)


def ema_decay(limit: float, step: int) -> float:
    """Decay of the averaged weights after update number `step`: small at first, then `limit`.

    An average that starts at full decay remembers the random initial weights for thousands of
    steps, which short runs never outlive.
    """
    return min(limit, (1 + step) / (10 + step))
