"""Gradio as the page imports it, in half the time, before a test imports it."""

from __future__ import annotations

import contextlib

from dalle.page.quick_start import quick_import

with contextlib.suppress(ImportError), quick_import():
    import gradio  # noqa: F401
