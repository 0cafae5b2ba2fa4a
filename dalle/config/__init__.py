"""The typed tree behind every command: file schema, flags and Python API are this one thing.

Each verb of `dalle` has one root dataclass, in `making` (data and models), `using` (pictures),
`measuring` (figures of models) or `benchmark` (speed), made of the sections in `training` and
`sampling` and of the models' own settings. YAML files and `--section.key value` flags are read into
it by `dalle.flags`. Nothing in this package, nor in what it imports, may import torch, so that help
and usage errors answer at once.
"""

from __future__ import annotations

from dalle.config.benchmark import Bench, BenchPart
from dalle.config.making import (
    DataCheck,
    DataConvert,
    DataDrawn,
    DataEmoji,
    ImportVae,
    SceneMixture,
    Tokenize,
    TrainClip,
    TrainTransformer,
    TrainVae,
)
from dalle.config.measuring import EvalModel, EvalTransforms, EvalVae, Probe
from dalle.config.sampling import (
    MAX_CANDIDATES,
    Dtype,
    SamplingConfig,
    SamplingOptions,
    WeightType,
    check_counts,
    check_seed,
    check_suggestions,
    override_sampling,
)
from dalle.config.training import (
    ClipObjectiveConfig,
    DataConfig,
    Device,
    LoopConfig,
    OptimConfig,
    Optimizer,
    Precision,
    TransformerObjectiveConfig,
    VaeObjectiveConfig,
)
from dalle.config.using import Demo, Generate, Pack, Suggest, Transform

__all__ = [
    "MAX_CANDIDATES",
    "Bench",
    "BenchPart",
    "ClipObjectiveConfig",
    "DataCheck",
    "DataConfig",
    "DataConvert",
    "DataDrawn",
    "DataEmoji",
    "Demo",
    "Device",
    "Dtype",
    "EvalModel",
    "EvalTransforms",
    "EvalVae",
    "Generate",
    "ImportVae",
    "LoopConfig",
    "OptimConfig",
    "Optimizer",
    "Pack",
    "Precision",
    "Probe",
    "SamplingConfig",
    "SamplingOptions",
    "SceneMixture",
    "Suggest",
    "Tokenize",
    "TrainClip",
    "TrainTransformer",
    "TrainVae",
    "Transform",
    "TransformerObjectiveConfig",
    "VaeObjectiveConfig",
    "WeightType",
    "check_counts",
    "check_seed",
    "check_suggestions",
    "override_sampling",
]
