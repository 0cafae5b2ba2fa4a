"""The typed tree behind every command: file schema, flags and Python API are this one thing.

Each verb of `dalle` has one root dataclass in `verbs`, made of the sections in `training` and
`sampling` and of the models' own settings. YAML files and `--section.key value` flags are read
into it by `dalle.flags`. Nothing in this package, nor in what it imports, may import torch, so
that help and usage errors answer at once.
"""

from __future__ import annotations

from dalle.config.sampling import (
    MAX_CANDIDATES,
    SamplingConfig,
    SamplingOptions,
    check_counts,
    check_seed,
    override_sampling,
)
from dalle.config.training import (
    ClipObjectiveConfig,
    DataConfig,
    Device,
    LoopConfig,
    OptimConfig,
    Precision,
    TransformerObjectiveConfig,
    VaeObjectiveConfig,
)
from dalle.config.verbs import (
    DataEmoji,
    EvalModel,
    EvalVae,
    Generate,
    Pack,
    Tokenize,
    TrainClip,
    TrainTransformer,
    TrainVae,
)

__all__ = [
    "MAX_CANDIDATES",
    "ClipObjectiveConfig",
    "DataConfig",
    "DataEmoji",
    "Device",
    "EvalModel",
    "EvalVae",
    "Generate",
    "LoopConfig",
    "OptimConfig",
    "Pack",
    "Precision",
    "SamplingConfig",
    "SamplingOptions",
    "Tokenize",
    "TrainClip",
    "TrainTransformer",
    "TrainVae",
    "TransformerObjectiveConfig",
    "VaeObjectiveConfig",
    "check_counts",
    "check_seed",
    "override_sampling",
]
