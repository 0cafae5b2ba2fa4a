"""`dataset.json`, by which `dalle data emoji` says what a set of scenes holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dalle.errors import DataError

INDEX_FILE = "dataset.json"
_MAX_BYTES = 64 << 20
"""A set of ours has about 150 bytes for each shard."""


def read_scene_index(folder: Path) -> Mapping[str, Any]:
    """What the `dataset.json` in `folder` says; nothing where there is none, or somebody else's.

    Many data sets come with a file of this name. One of ours lists shards.

    Raises:
        DataError: It cannot be read, or is not JSON.
    """
    path = folder / INDEX_FILE
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return {}
        index = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as err:
        raise DataError(
            f"{path} cannot be read: {err}; write the set anew, or remove the file if it is not of "
            "`dalle data emoji`"
        ) from err
    return index if isinstance(index, dict) and "shards" in index else {}
