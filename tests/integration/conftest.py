"""What the tests that run from end to end share: commands, and tiny trainings on the scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dalle.cli import main
from dalle.config import (
    DataConfig,
    LoopConfig,
    OptimConfig,
    Tokenize,
    TrainClip,
    TrainTransformer,
    TrainVae,
    VaeObjectiveConfig,
)
from dalle.model_config import ClipConfig, TransformerConfig
from dalle.train.runs import train_vae
from dalle.train.tokenize import tokenize
from tests.integration.generating import Generate
from tests.paths import SCENES
from tests.random_models import save_random_model
from vae import VaeConfig

STEPS = 14

VaeSettings = Callable[..., TrainVae]
TransformerSettings = Callable[..., TrainTransformer]
ClipSettings = Callable[..., TrainClip]


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights for pictures of 64 px, of 8 x 8 tokens."""
    return save_random_model(
        tmp_path_factory.mktemp("models") / "random",
        grid=8,
        text_len=16,
        width=16,
        layers=1,
        groups=4,
        codes=16,
        code_dim=4,
        top_k=None,
    )


@pytest.fixture
def generate(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Generate:
    """Runs `dalle generate` on the tiny model into `tmp_path/out`: status, stdout, stderr."""

    def run(*words: str, model: Path | str = tiny_model) -> tuple[int, str, str]:
        out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
        # On the CPU, also where there is a GPU, whose pictures are others.
        status = main(["generate", "--model", str(model), "--device", "cpu", *out, *words])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def loop(**changes: Any) -> LoopConfig:
    """Steps of two micro-batches of two; logs and saves fall on different steps."""
    settings: dict[str, Any] = {"steps": STEPS, "batch": 4, "accumulate": 2, "seed": 3}
    settings |= {"log_every": 5, "eval_every": 7, "sample_every": STEPS, "save_every": 4}
    return LoopConfig(**(settings | {"precision": "fp32", "device": "cpu"} | changes))


@pytest.fixture(scope="session")
def vae_settings() -> VaeSettings:
    """Makes settings of a dVAE training; further keywords change the loop."""

    def make(out: Path, quantizer: Any = "gumbel", **loop_changes: Any) -> TrainVae:
        sizes: dict[str, Any] = {"channels": 8, "groups": 3, "blocks_per_group": 1}
        return TrainVae(
            out=out,
            data=DataConfig(train=SCENES, image_px=32, heldout_fraction=0.2, augment="paper"),
            model=VaeConfig(**sizes, codebook_size=32, codebook_dim=4, quantizer=quantizer),
            objective=VaeObjectiveConfig(tau_steps=20, kl_steps=10, min_usage=0.0),
            optim=OptimConfig(lr=2e-3, warmup_steps=3),
            loop=loop(**loop_changes),
        )

    return make


@pytest.fixture(scope="session")
def transformer_settings() -> TransformerSettings:
    """Makes settings of a transformer training; further keywords change the root or the loop."""

    def make(
        out: Path, tokens: Path, *, loop_changes: dict[str, Any] | None = None, **changes: Any
    ) -> TrainTransformer:
        settings: dict[str, Any] = {"text_len": 12, "heldout_fraction": 0.2}
        settings["sample_captions"] = ("a fox",)
        settings["optim"] = OptimConfig(lr=2e-3, warmup_steps=3)
        return TrainTransformer(
            out=out,
            tokens=tokens,
            model=TransformerConfig(width=32, layers=2, heads=2),
            loop=loop(**(loop_changes or {})),
            **(settings | changes),
        )

    return make


@pytest.fixture(scope="session")
def clip_settings() -> ClipSettings:
    """Makes settings of a CLIP training; further keywords change the root or the loop."""

    def make(out: Path, *, loop_changes: dict[str, Any] | None = None, **changes: Any) -> TrainClip:
        model = ClipConfig(
            image_px=32, patch_px=8, image_width=32, image_layers=2, text_len=16,
            text_width=32, text_layers=1, head_width=16, embed_dim=16,
        )  # fmt: skip
        settings: dict[str, Any] = {
            "data": DataConfig(train=SCENES, image_px=32, heldout_fraction=0.2),
            "vocab_size": 300,
            "model": model,
            "optim": OptimConfig(lr=2e-3, warmup_steps=3),
        }
        return TrainClip(out=out, loop=loop(**(loop_changes or {})), **(settings | changes))

    return make


@pytest.fixture(scope="session")
def trained_vae(tmp_path_factory: pytest.TempPathFactory, vae_settings: VaeSettings) -> Path:
    """Run folder of a finished dVAE."""
    out = tmp_path_factory.mktemp("trained") / "vae"
    assert train_vae(vae_settings(out, "nearest", steps=6)) == 0
    return out


@pytest.fixture(scope="session")
def tokens(trained_vae: Path) -> Path:
    """Token folder of the committed scenes, two versions of each."""
    out = trained_vae.with_name("tokens")
    settings = Tokenize(
        data=SCENES, vae=trained_vae, out=out, image_px=32, crops=2, vocab_size=300, batch=5
    )
    assert tokenize(settings) == 0
    return out
