"""The typed tree behind every command: file schema, flags and Python API are this one thing.

Each verb of `dalle` has one root dataclass, in `making` (data and models) or `using` (pictures and
figures), made of the sections in `training` and `sampling` and of the models' own settings. YAML
files and `--section.key value` flags are read into it by `dalle.flags`. Nothing in this package,
nor in what it imports, may import torch, so that help and usage errors answer at once.
"""

from __future__ import annotations

from dalle.config.making import (
    DataEmoji,
    SceneMixture,
    Tokenize,
    TrainClip,
    TrainTransformer,
    TrainVae,
)
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
from dalle.config.using import EvalModel, EvalVae, Generate, Pack, Transform

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
    "SceneMixture",
    "Tokenize",
    "TrainClip",
    "TrainTransformer",
    "TrainVae",
    "Transform",
    "TransformerObjectiveConfig",
    "VaeObjectiveConfig",
    "check_counts",
    "check_seed",
    "override_sampling",
]
