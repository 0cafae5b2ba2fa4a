"""Model FLOPs utilisation: how much of what its processors can multiply a training does."""

from __future__ import annotations

import torch

from dalle.device import gemm_rate


class Mfu:
    """Operations per second of a training, beside those of large products on the same devices.

    Args:
        flops_per_step: Operations that the model takes for a step; 0 where nobody counts them.
        dtype: Of most products.
        device: Where they are made; its rate is measured, in a tenth of a second or two.
        devices: How many such devices train together.
    """

    def __init__(
        self, *, flops_per_step: int, dtype: torch.dtype, device: torch.device, devices: int
    ) -> None:
        self.flops_per_step = flops_per_step
        self.peak = devices * gemm_rate(dtype, device) if flops_per_step else 0.0

    def values(self, steps_per_s: float) -> dict[str, float]:
        """What is logged at a speed: nothing where operations are not counted."""
        if not self.flops_per_step:
            return {}
        return {"flops_per_s": steps_per_s * self.flops_per_step}

    def text(self, steps_per_s: float) -> str:
        """What a progress bar says of a speed, behind other words."""
        if not self.flops_per_step:
            return ""
        return f", {steps_per_s * self.flops_per_step / self.peak:.0%} MFU"
