"""What holds for every test: one thread, no network, repeatable examples; and one tiny model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports torch. One thread: models of test size are slower with more, and sums keep
# their order. Offline: a test that needs the network is wrong, so let it fail at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
# Whether somebody has compiled the decode step on this machine must not change what a test sees.
os.environ["DALLE_CACHE"] = f"{os.devnull}/none"
os.environ.pop("DALLE_DEBUG", None)

import pytest
from hypothesis import settings

from tests.random_models import save_random_model

if TYPE_CHECKING:
    from dalle import TextToImage
    from dalle.data.emoji.font import EmojiFont
    from dalle.data.emoji.render import Painter

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)  # before groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, each takes whole files.

    Files keep what they have prepared. One process takes all that looks at the page with the
    bundled model, for two browsers would only wait for each other, and one all other servers, which
    take much memory. What takes longest comes first.
    """

    def folder(item: pytest.Item) -> str:
        return item.path.relative_to(Path(__file__).parent).parts[0]

    def group(item: pytest.Item) -> str:
        if folder(item) != "web":
            return str(item.path)
        return "page" if {"server", "browser"} & set(getattr(item, "fixturenames", ())) else "web"

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    order = ["web", "integration", "parity"]
    items.sort(key=lambda item: order.index(name) if (name := folder(item)) in order else 9)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a real model of test size: random weights, 4 x 4 tokens, pictures of 16 px.

    The weights are large enough that caption and drawn tokens sway every further token; what
    guidance, a wrong cache or a wrong caption would change does change.
    """
    return save_random_model(
        tmp_path_factory.mktemp("models") / "tiny", grid=4, guidance_scale=1.5, gain=8
    )


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_model: Path) -> TextToImage:
    """The tiny model, loaded; it keeps nothing between calls, so all tests may share it."""
    from dalle import TextToImage

    return TextToImage.from_pretrained(tiny_model, device="cpu")


@pytest.fixture(scope="session")
def font() -> EmojiFont:
    """The emoji font of this machine."""
    from dalle.data.emoji.font import find_font
    from dalle.errors import FontError

    try:
        return find_font()
    except FontError as err:
        pytest.skip(f"needs a colour emoji font: {err}")


@pytest.fixture(scope="session")
def painter(font: EmojiFont) -> Painter:
    """Paints scenes of 64 px."""
    from dalle.data.emoji.render import Painter

    return Painter(font, 64)
