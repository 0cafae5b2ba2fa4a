"""Where things lie in the clone."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
SCENES = ROOT / "tests" / "data" / "scenes"
"""The committed shard of captioned scenes."""
