"""`dalle suggest`: captions that a model would write itself, one a line."""

from __future__ import annotations

import json
import logging
import sys

from dalle.config import Suggest
from dalle.labels import one_line
from dalle.pipeline import TextToImage

log = logging.getLogger(__name__)


def run(settings: Suggest) -> int:
    """Draw captions and print them; 0 when done.

    Raises:
        ModelFormatError: The model cannot be loaded.
        ValueError: A setting is out of range.
    """
    model = TextToImage.from_pretrained(settings.model, device=settings.device)
    captions = model.captions.suggest(
        settings.begin,
        count=settings.count,
        seed=settings.seed,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    if len(captions) < settings.count:
        log.warning(
            "%d of %d captions: what else the model wrote was one of these, or no text; a higher "
            "temperature or top_p brings others",
            len(captions), settings.count,
        )  # fmt: skip
    if settings.json:
        text = json.dumps({"model": settings.model, "captions": captions}) + "\n"
    else:
        text = "".join(f"{one_line(caption)}\n" for caption in captions)
    sys.stdout.write(text)
    return 0
