"""What the status line says of captions that were cut, whatever was drawn of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalle import TextToImage
from dalle.page import tiles
from dalle.page.drawn import Collection, Drawn
from dalle.page.limits import Limits
from dalle.page.progress import Progress
from dalle.page.restore import settings_of
from dalle.page.service import Task
from dalle.page.settings import draw_settings
from tests.services import service_of


@pytest.mark.parametrize("state", ["done", "stopped"])
def test_a_collection_names_the_pictures_whose_captions_were_cut(
    tiny_pipeline: TextToImage, state: str
) -> None:
    """Batches, grids and sheets once said nothing, and neither did what was stopped."""
    image = tiny_pipeline.generate("a fox", candidates=1).images[0]
    batch = Collection(title="set.txt", labels=("a fox",) * 6)
    drawn = Drawn(
        place="batch", settings=(settings_of(image.recipe),) * 6, images=(image,) * 6,
        title="set.txt", collection=batch,
    )  # fmt: skip
    last = Progress(state="done" if state == "done" else "stopped", reason="Stopped.")
    notices = dict.fromkeys(range(1, 6), "it is <cut>")
    line = tiles.outcome_status(last, drawn, of=6, notices=notices)
    assert "Picture 2: it is &lt;cut&gt;. Picture 3: it is &lt;cut&gt;. Picture 4:" in line
    assert "Picture 5" not in line
    assert "And 2 more like these." in line
    assert "<b>Note.</b>" in line
    plain = tiles.outcome_status(last, drawn, of=6, notices={})
    assert ("<b>Note.</b>" in plain) == (state == "stopped")


def test_a_stopped_job_still_says_what_was_cut(
    tiny_model: Path, tiny_pipeline: TextToImage, tmp_path: Path
) -> None:
    service = service_of(tiny_model, tiny_pipeline, tmp_path)
    facts = service.facts
    settings = draw_settings(
        Limits(), default=facts.sampling, codebook_size=facts.codebook_size, grid=facts.grid,
        caption="a fox on a blue background " * 6, candidates=40,
    )  # fmt: skip
    steps = service.draw([Task(settings=settings)], client="me", key="tab")
    for step in steps:
        if step.first_candidate:
            break
    service.stop("tab")
    *_, last = steps
    assert last.state == "stopped"
    assert last.result is not None
    assert (last.result.notice or "").startswith("only the first 12 tokens of the caption are used")
