"""Having torch compile what is trained."""

from __future__ import annotations

import torch
from torch import nn

from dalle.errors import TrainingError


def compile_parts(model: nn.Module) -> None:
    """Have torch compile a model's parts when they first run; names of weights stay.

    Blocks in a row are compiled one by one, since they share what is compiled for the first.
    """
    for child in model.children():
        for part in child if isinstance(child, nn.ModuleList) else (child,):
            part.compile()


def require_compiler(device: torch.device) -> None:
    """Refuse to compile where the first step would find that it cannot be done.

    Raises:
        TrainingError: `device` is a CPU, for which torch writes C++, and there is no compiler.
    """
    if device.type != "cpu":
        return
    # Imported here, since they take seconds to import.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as err:
        raise TrainingError(
            "loop.compile on a CPU needs a C++ compiler, and torch finds none; install one "
            "(Debian: apt-get install g++), name it in CXX, or leave out loop.compile"
        ) from err
