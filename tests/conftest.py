"""What holds for every test: one thread, no network, repeatable examples."""

from __future__ import annotations

import os

# Before anything imports torch. One thread: models of test size are slower with more, and sums keep
# their order. Offline: a test that needs the network is wrong, so let it fail at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("DALLE_DEBUG", None)

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
