"""Which folder is meant when a person names a model."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from dalle.errors import ModelFormatError

PICKLED = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of weights that are pickles, which can run code when they are opened."""


def bundled_models() -> dict[str, Path]:
    """Names and folders of the models that come with the package."""
    root = Path(str(resources.files("dalle"))) / "pretrained"
    if not root.is_dir():
        return {}
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}


def at_home(path: str | Path) -> Path:
    """A path that begins with ~ as a shell reads it, which leaves `--out=~/runs` as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises where there is no home


def model_folder(name: str | Path) -> Path:
    """The folder of a bundled model's name, of a model folder, or of a finished run.

    Raises:
        ModelFormatError: There is neither a bundled model nor a folder of that name, or it names a
            file.
    """
    path = at_home(name)
    if (path / "config.json").is_file():
        return path
    if (path / "model" / "config.json").is_file():
        return path / "model"
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    if path.is_dir():
        raise ModelFormatError(
            f"{path} is not a model folder: neither it nor its subfolder `model` has a config.json"
        )
    if path.suffix.lower() in PICKLED:
        raise ModelFormatError(
            f"{path} is refused: {path.suffix} files are pickles, which can run code when they are "
            "opened, so they are never loaded; give the folder of a model with config.json and "
            "safetensors, such as `dalle train` and `dalle pack` write"
        )
    if path.is_file():
        raise ModelFormatError(
            f"{path} is a file, not a model folder; give the folder that holds config.json"
        )
    raise ModelFormatError(
        f"there is no model {str(name)!r}: it is neither a folder nor one of the bundled models "
        f"({', '.join(bundled) or 'none'})"
    )
