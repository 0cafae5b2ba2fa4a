"""What is left in the page's folder where Gradio deletes old files: folders, and what it forgot."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

CACHE_SECONDS = 3600
"""How long files that the page wrote are kept, and how often old ones are looked for."""
_FORGOTTEN = 3
"""Files of so many times that age were forgotten: uploads that broke off, above all."""


def sweep(folder: Path, *, kept: Path, age_s: float) -> None:
    """Delete what is old in `folder`: empty folders, and files that Gradio should have deleted.

    Files and folders may come and go meanwhile.

    Args:
        folder: The page's folder.
        kept: A folder in it that stays, empty or not.
        age_s: How long empty folders are kept, and files that Gradio knows.
    """
    now = time.time()
    for place, _, names in os.walk(folder, topdown=False):
        for file in (Path(place, name) for name in names):
            with contextlib.suppress(OSError):
                # Gradio sets the time of a file anew when it hands it out again, and with it this.
                if now - file.lstat().st_ctime > _FORGOTTEN * age_s:
                    file.unlink()
        path = Path(place)
        with contextlib.suppress(OSError):  # such as that it is not empty
            if path not in (folder, kept) and now - path.lstat().st_mtime > age_s:
                path.rmdir()


def sweep_for_good(folder: Path, *, kept: Path) -> None:
    """Call `sweep` now and then, in the background, for as long as the process runs."""

    def go_on() -> None:
        while True:
            time.sleep(CACHE_SECONDS)
            sweep(folder, kept=kept, age_s=CACHE_SECONDS)

    threading.Thread(target=go_on, name="sweep", daemon=True).start()
