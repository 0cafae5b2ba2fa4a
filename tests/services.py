"""What stands behind the page, without the page: models that are loaded, and who may use them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalle.page.facts import read_facts
from dalle.page.limits import Limits
from dalle.page.service import Service

if TYPE_CHECKING:
    from dalle import TextToImage


def fail(error: BaseException) -> None:
    """What to do where a model that is there cannot be loaded."""
    raise AssertionError("the model cannot be loaded") from error


def service_of(
    model: Path, pipeline: TextToImage, folder: Path, *, load: bool = True, **limits: Any
) -> Service:
    """A service that lends `pipeline`, the model in the folder `model`; loaded if `load`."""
    service = Service(
        read_facts(model), limits=Limits(**limits), folder=folder, load=lambda: pipeline
    )
    if load:
        service.load_in_background(fail)
        assert service.is_ready_within(60), "the model is there already"
    return service
