"""Tiny runs on the committed scenes, for every test of the training package."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dalle.config import (
    DataConfig,
    LoopConfig,
    OptimConfig,
    TrainVae,
    VaeObjectiveConfig,
)
from tests.paths import SCENES
from vae import VaeConfig


@pytest.fixture(autouse=True)
def _warnings_reach_caplog(log_reaches_caplog: None) -> None:
    logging.getLogger("dalle").setLevel(logging.WARNING)


VaeRun = Callable[..., TrainVae]


@pytest.fixture
def vae_run(tmp_path: Path) -> VaeRun:
    """Makes settings of a training of a few steps; keyword arguments change sections' fields."""

    def make(
        *,
        model: dict[str, Any] | None = None,
        loop: dict[str, Any] | None = None,
        objective: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        **root: Any,
    ) -> TrainVae:
        sizes = {"channels": 8, "groups": 3, "blocks_per_group": 1, "codebook_size": 16}
        pictures: dict[str, Any] = {"train": SCENES, "image_px": 16, "heldout_fraction": 0.2}
        annealing = {"tau_steps": 10, "kl_steps": 10, "min_usage": 0.0}
        steps: dict[str, Any] = {"steps": 6, "batch": 4, "log_every": 3, "eval_every": 6}
        steps |= {"sample_every": 6, "save_every": 3, "precision": "fp32", "device": "cpu"}
        return TrainVae(
            out=root.pop("out", tmp_path / "run"),
            data=DataConfig(**(pictures | (data or {}))),
            model=VaeConfig(**(sizes | {"codebook_dim": 4} | (model or {}))),
            objective=VaeObjectiveConfig(**(annealing | (objective or {}))),
            optim=root.pop("optim", OptimConfig(lr=1e-3, warmup_steps=2, beta2=0.99)),
            loop=LoopConfig(**(steps | (loop or {}))),
            **root,
        )

    return make
