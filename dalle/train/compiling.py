"""Having torch compile what is trained."""

from __future__ import annotations

from torch import nn


def compile_parts(model: nn.Module) -> None:
    """Have torch compile a model's parts when they first run; names of weights stay.

    Blocks in a row are compiled one by one, since they share what is compiled for the first.
    """
    for child in model.children():
        for part in child if isinstance(child, nn.ModuleList) else (child,):
            part.compile()
