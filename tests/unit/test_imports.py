"""The house stands: imports point downward, and what answers `--help` never loads torch."""

from __future__ import annotations

import ast
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from dalle.cli import VERBS, Verb
from tests.paths import ROOT

# Highest layer first. A module may import from layers below its own, and its neighbours within a
# layer, except for those that stay apart.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("app",),
    ("dalle", "dalle.__main__"),
    ("dalle.cli",),
    ("dalle.page",),
    ("dalle.transform_command",),
    (
        *("dalle.generate_command", "dalle.pack_command", "dalle.eval_command"),
        *("dalle.eval_transforms_command", "dalle.probe_command", "dalle.bench_command"),
        *("dalle.drawn_command", "dalle.import_command"),
        *("dalle.openai_dvae", "dalle.taming_vqgan", "dalle.suggest_command"),
    ),
    ("dalle.bench",),
    ("dalle.pipeline", "dalle.train", "dalle.evaluate"),
    (
        *("dalle.flags", "dalle.flag_help", "dalle.command_line", "dalle.options"),
        *("dalle.yaml_file", "dalle.config", "dalle.checkpoint", "dalle.card", "dalle.folders"),
        *("dalle.device", "dalle.data", "dalle.sampling", "dalle.rerank", "dalle.picture"),
        *("dalle.sheets", "dalle.lettering", "dalle.schema", "dalle.results"),
        *("dalle.image_prompt", "dalle.given_picture", "dalle.ground", "dalle.transforms"),
        *("dalle.request", "dalle.drawing", "dalle.previews", "dalle.ranked"),
        *("dalle.caption_file", "dalle.labels", "dalle.image_tokenizer"),
        *(
            "dalle.caption_sampling",
            "dalle.engine",
            "dalle.linear_layers",
            "dalle.graph_decoder",
            "dalle.native",
        ),
    ),
    (
        *("dalle.transformer", "dalle.clip", "dalle.attention", "dalle.sparse_attention"),
        *("dalle.kv_cache", "dalle.bag_cache"),
        "dalle.sequence",
        *("dalle.captions", "dalle.model_config", "dalle.flops"),
        *("dalle.weights", "dalle.checksums", "dalle.foreign_tensors", "dalle.torch_file"),
        "dalle.torch_pickle",
    ),
    (
        "dalle.errors",
        "dalle.version",
        "dalle.seeds",
        "dalle.console",
        "dalle.signals",
        "dalle.prompts",
        "dalle.allocator",
        "dalle.processes",
        "dalle.whole_file",
    ),
    ("vae",),
)
MEMBERS_STAY_APART = ("dalle.pipeline", "dalle.train", "dalle.evaluate")

# Loaded by help, usage errors or data making, before or without any model.
TORCH_FREE = (
    "dalle",
    "dalle.cli",
    "dalle.config",
    "dalle.console",
    "dalle.errors",
    "dalle.flags",
    "dalle.model_config",
    "dalle.prompts",
    "dalle.transforms",
    "vae",
    "vae.config",
)
HEAVY = ("torch", "numpy", "gradio", "open_clip", "tokenizers", "PIL")


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    files = [path for top in ("dalle", "vae") for path in sorted((ROOT / top).rglob("*.py"))]
    files += [path for path in [ROOT / "app.py"] if path.exists()]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


MODULES = modules()


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Project modules that a file imports anywhere, also by "module:function", with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from dalle import config` is the module dalle.config, not the package's own names.
            names = [name if name in MODULES else node.module for name in inner]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [name for name, colon, _ in [node.value.partition(":")] if colon]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name in MODULES)


def unit(module: str) -> str:
    """The entry of LAYERS that a module belongs to."""
    for known in (name for layer in LAYERS for name in layer):
        if module == known or (known != "dalle" and module.startswith(f"{known}.")):
            return known
    raise LookupError(f"{module} belongs to no layer; add it to LAYERS in {__file__}")


def height(name: str) -> int:
    return next(-index for index, layer in enumerate(LAYERS) if name in layer)


def may_import(importer: str, target: str) -> bool:
    upper, lower = unit(importer), unit(target)
    if upper == lower:
        return True
    if height(upper) == height(lower):
        return upper not in MEMBERS_STAY_APART
    return height(upper) > height(lower)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downward(module: str) -> None:
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {target}"
        for target, line in imported(MODULES[module])
        if not may_import(module, target)
    ]
    assert not wrong, "\n".join(wrong)


def test_layers_tell_up_from_down() -> None:
    assert may_import("dalle.train.loop", "dalle.data.order")
    assert may_import("dalle.train.loop", "vae.model")
    assert may_import("dalle.transformer", "dalle.attention")
    assert not may_import("vae.model", "dalle.errors")
    assert not may_import("dalle.transformer", "dalle.config")
    assert not may_import("dalle.train.loop", "dalle.pipeline")
    assert not may_import("dalle.pipeline", "dalle.cli")
    assert not may_import("dalle.cli", "dalle")
    with pytest.raises(LookupError, match=r"dalle\.novel belongs to no layer"):
        may_import("dalle.novel", "vae")


def test_imports_inside_functions_are_seen() -> None:
    found = {name for name, _ in imported(MODULES["dalle.cli"])}
    assert {"dalle.config", "dalle.flags"} <= found
    assert "dalle.train.runs" in found, "a verb's handler, as text"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.words)
def test_what_does_a_verb_s_work_takes_its_settings(verb: Verb) -> None:
    hints = get_type_hints(verb.load())
    assert hints.pop("return") is int
    assert next(iter(hints.values())) is verb.settings
    assert {*verb.reads} <= {field.name for field in dataclasses.fields(verb.settings)}


def test_modules_do_not_import_each_other_in_circles() -> None:
    below = {name: {target for target, _ in imported(path)} for name, path in MODULES.items()}
    below["dalle"] = below["vae"] = set()  # their heavy names are lazy and nobody below uses them
    left = set(below)
    while outer := {name for name in left if not below[name] & left}:
        left -= outer
    while outer := {name for name in left if not any(name in below[other] for other in left)}:
        left -= outer
    assert not left, f"these import each other in a circle: {sorted(left)}"


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}
    assert not [name for name in MODULES if drawers & set(name.split("."))]


def test_light_modules_load_nothing_heavy() -> None:
    program = (
        f"import sys\nfor name in {TORCH_FREE!r}: __import__(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.strip() == "[]"


def test_emoji_scenes_need_no_torch() -> None:
    names = [name for name in MODULES if name.startswith("dalle.data.emoji")]
    assert names, "the package dalle.data.emoji exists"
    program = f"import sys\nfor name in {names!r}: __import__(name)\nprint('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.strip() == "False"


def test_public_names_are_offered_and_found() -> None:
    import dalle
    import vae

    for name in dalle.__all__:
        assert getattr(dalle, name).__doc__, name
    assert dalle.TextToImage.__module__ == "dalle.pipeline"
    assert vae.DiscreteVAE.__module__ == "vae.model"
    assert "TextToImage" in dir(dalle)
    assert "DiscreteVAE" in dir(vae)
    with pytest.raises(AttributeError, match="'dalle' has no attribute 'TextToPicture'"):
        _ = dalle.TextToPicture
    with pytest.raises(AttributeError, match="'vae' has no attribute 'Vae'"):
        _ = vae.Vae


@pytest.mark.parametrize(
    ("asked", "found"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_waiting_threads_sleep_soon_unless_somebody_decides(
    asked: dict[str, str], found: str
) -> None:
    """Bug: beside another program, drawing took twice as long as threads that waited for it."""
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    program = (
        "import os, sys, dalle; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env={**others, **asked}, cwd=ROOT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert run.stdout.split() == [found, "False"]
