"""What the micro-batches of a step came to, whichever process had them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Share:
    """Some of a step's micro-batches, or all of them."""

    sums: dict[str, float] = field(default_factory=dict)
    """Metrics, each added up over the micro-batches that held anything."""
    filled: int = 0
    """How many those were."""
    keys: list[str] = field(default_factory=list)
    """Names of the samples in them."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Key of each unreadable sample, and what is wrong with it."""
    graded: list[bool] = field(default_factory=list)
    """Which of the trained weights have gradients of them."""
    signal: int = 0
    """Number of the signal that asks for an end; 0 if none came."""

    def means(self) -> dict[str, float]:
        """Metrics as means over the micro-batches that held anything."""
        return {name: total / self.filled for name, total in self.sums.items()}


def combined(shares: Sequence[Share]) -> Share:
    """All micro-batches of `shares` as one."""
    whole = Share()
    for share in shares:
        for name, total in share.sums.items():
            whole.sums[name] = whole.sums.get(name, 0.0) + total
        whole.filled += share.filled
        whole.keys += share.keys
        whole.faults += share.faults
        whole.signal = max(whole.signal, share.signal)
    whole.graded = [any(one) for one in zip(*(share.graded for share in shares), strict=True)]
    return whole
