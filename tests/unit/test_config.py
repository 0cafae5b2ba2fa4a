"""The settings tree: every shipped file builds, every option has a reader."""

from __future__ import annotations

import ast
import itertools
import math
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import dalle.config
import dalle.model_config
import vae.config
from dalle import flags
from dalle.cli import VERBS, Verb
from dalle.clip import build_clip
from dalle.config import (
    DataConfig,
    OptimConfig,
    SceneMixture,
    TrainClip,
    TrainTransformer,
    VaeObjectiveConfig,
)
from dalle.options import options
from dalle.transformer import JointTransformer
from tests.paths import ROOT
from vae.model import DiscreteVAE

CONFIG_MODULES = (dalle.config, dalle.model_config, vae.config)
SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))


def command(path: Path) -> tuple[Verb, list[str]]:
    """The verb and the words after it of the command in a file's first line."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    match = re.fullmatch(r"# dalle (.+)", first)
    assert match, f"{path} begins with its command, `# dalle VERB --config ...`, got {first!r}"
    words = shlex.split(match[1])
    for verb in VERBS:
        parts = verb.words.split()
        if words[: len(parts)] == parts:
            return verb, words[len(parts) :]
    raise AssertionError(f"{path} begins with a command whose verb does not exist: {first!r}")


def test_configs_are_shipped() -> None:
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_config_builds_by_its_own_command(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, words = command(path)
    monkeypatch.chdir(ROOT)
    assert words[words.index("--config") + 1] == str(path.relative_to(ROOT))
    built: object = flags.parse(verb.settings, words, prog=verb.words, positional=verb.positional)
    assert isinstance(built, verb.settings)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_config_tells_how_long_it_takes(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    head = " ".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert re.search(r"\b(seconds?|minutes?|hours?)\b", head), f"{path} opens with {head!r}"


@pytest.mark.parametrize(
    "recipe", sorted({path.parent for path in SHIPPED}), ids=lambda path: path.name
)
def test_a_recipe_s_model_stays_inside_32_mib(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dalle pack` puts it together, in 16 bits: dVAE, transformer and CLIP."""

    def settings(name: str) -> Any:
        verb, words = command(recipe / f"{name}.yaml")
        return flags.parse(verb.settings, words, prog=verb.words, positional=verb.positional)

    monkeypatch.chdir(ROOT)
    dvae = settings("decoder" if (recipe / "decoder.yaml").is_file() else "vae").model
    transformer, words = settings("transformer"), settings("tokenize").vocab_size
    side = settings("vae").data.image_px // dvae.stride
    sequence = dalle.model_config.SequenceConfig(
        text_len=transformer.text_len, text_vocab=words, grid_h=side, grid_w=side,
        image_vocab=dvae.codebook_size,
    )  # fmt: skip
    with torch.device("meta"):
        models = (
            DiscreteVAE(dvae),
            JointTransformer(sequence, transformer.model),
            build_clip(settings("clip").model, words),
        )
    numbers = sum(tensor.numel() for model in models for tensor in model.state_dict().values())
    assert 2 * numbers < 32 * 2**20


def reads(node: ast.AST) -> Iterator[str]:
    """Names of attributes that code reads, those of `__post_init__` aside."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) and child.name == "__post_init__":
            continue
        if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Load):
            yield child.attr
        yield from reads(child)


def test_every_setting_is_read_somewhere() -> None:
    """A flag nobody reads is a lie; checking its value in `__post_init__` is not reading it."""
    sources = [*(ROOT / "dalle").rglob("*.py"), *(ROOT / "vae").rglob("*.py")]
    read = {name for path in sources for name in reads(ast.parse(path.read_text("utf-8")))}
    owners = [
        owner
        for module in CONFIG_MODULES
        for owner in vars(module).values()
        if isinstance(owner, type) and is_dataclass(owner)
    ]
    dead = sorted(
        {f"{owner.__name__}.{field.name}" for owner in owners for field in fields(owner)}
        - {f"{owner.__name__}.{name}" for owner in owners for name in read}
    )
    assert not dead, f"nobody reads {', '.join(dead)}"


def test_a_setting_that_is_only_checked_counts_as_unread() -> None:
    tree = ast.parse(
        "class A:\n"
        "    def __post_init__(self):\n        check(self.idle)\n"
        "    def work(self):\n        self.written = self.used\n"
    )
    assert set(reads(tree)) == {"used"}


def test_every_section_belongs_to_a_verb() -> None:
    reachable = {option.owner for verb in VERBS for option in options(verb.settings)}
    sections = {
        owner
        for module in CONFIG_MODULES
        for owner in vars(module).values()
        if isinstance(owner, type) and is_dataclass(owner)
    }
    # These two travel inside model folders; no command line sets them.
    assert {owner.__name__ for owner in sections - reachable} <= {
        "SequenceConfig",
        "SamplingConfig",
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimConfig(beta1=1.0), "beta1 must be from 0 to less than 1, got 1.0"),
        (lambda: OptimConfig(beta2=1.0), "beta2 must be from 0 to less than 1, got 1.0"),
        (lambda: OptimConfig(lr=math.nan), "lr must be greater than 0 and finite, got nan"),
        (lambda: OptimConfig(clip_norm=math.inf), "clip_norm must be greater than 0 and finite"),
        (lambda: OptimConfig(lr=-1.0), "lr must be greater than 0, got -1.0"),
        (lambda: VaeObjectiveConfig(kl_weight=math.nan), "kl_weight must not be negative and fin"),
        (lambda: VaeObjectiveConfig(tau_steps=0), "tau_steps must be greater than 0, got 0"),
        (lambda: SceneMixture(plain=math.nan), "plain must not be negative and finite, got nan"),
    ],
)
def test_numbers_that_train_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    """Bug: NaN compares with nothing, so it passed every check; and betas of 1 divide by zero."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (("a fox", " "), "sample_captions: a caption must not be empty"),
        (("a" * 2001,), "sample_captions: a caption must have at most 2,000 characters"),
    ],
)
def test_captions_that_cannot_be_drawn_are_refused_before_training(
    captions: tuple[str, ...], message: str
) -> None:
    """Bug: they ended the run at its first sample sheet, and again whenever it was resumed."""
    with pytest.raises(ValueError, match=message):
        TrainTransformer(out=Path("run"), tokens=Path("tokens"), sample_captions=captions)


def test_a_clip_looks_at_the_pictures_in_their_size() -> None:
    """Bug: the first step ended with shapes that do not fit."""
    data = DataConfig(train=Path("pictures"), image_px=128)
    message = r"data.image_px \(128\) must be model.image_px \(64\).*; set both alike"
    with pytest.raises(ValueError, match=message):
        TrainClip(out=Path("run"), data=data)
