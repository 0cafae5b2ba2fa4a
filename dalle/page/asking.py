"""What Gradio tells of whoever asks: who it is, and what was clicked. Neither is trusted."""

from __future__ import annotations

import gradio as gr


def client_of(request: gr.Request) -> str:
    """Who asks: the address of the connection, which a client cannot choose."""
    client = getattr(request, "client", None)
    return getattr(client, "host", None) or "unknown"


def place_of(event: gr.EventData, name: str = "place") -> int:
    """The number that an event of the page carries; -1 if it carries anything else."""
    data = getattr(event, "_data", None)
    value = data.get(name) if isinstance(data, dict) else None
    return value if type(value) is int and value >= 0 else -1
