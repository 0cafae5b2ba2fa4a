"""What Gradio tells of whoever asks: who it is, what was clicked, and whether they still wait.

Neither of the first two is trusted.
"""

from __future__ import annotations

import gradio as gr
from gradio.context import LocalContext


def client_of(request: gr.Request) -> str:
    """Who asks: the address of the connection, which clients of other machines cannot choose.

    A program on this machine can: uvicorn believes its `X-Forwarded-For`, as it must a proxy's.
    """
    client = getattr(request, "client", None)
    return getattr(client, "host", None) or "unknown"


def has_left() -> bool:
    """Whether nobody waits any more for the answer to the call that is being answered here.

    So it is once the connection that listened for the answer has closed, and with it everything
    that could have been heard, or once the call was cancelled. Who has not begun to listen has not
    left. Gradio itself looks for this between what a generator yields, which stops the jobs of a
    tab that is closed; a function that answers once has to ask. Ask in the thread that answers.
    """
    page, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if page is None or event_id is None:  # asked outside the queue, where nothing is known
        return False
    event = page._queue.event_ids_to_events.get(event_id)
    return event is None or not event.alive


def place_of(event: gr.EventData, name: str = "place") -> int:
    """The number that an event of the page carries; -1 if it carries anything else."""
    data = getattr(event, "_data", None)
    value = data.get(name) if isinstance(data, dict) else None
    return value if type(value) is int and value >= 0 else -1
