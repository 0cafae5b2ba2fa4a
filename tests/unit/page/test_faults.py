"""What people read of an error, and what only the log does."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator

import pytest

from dalle import DalleError
from dalle.page.faults import PageFault, fault_id, guarded

SECRET = "a fox at /home/ann/private.png"


pytestmark = pytest.mark.usefixtures("log_reaches_caplog")


def breaks() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as err:
        raise DalleError(f"cannot draw {SECRET}") from err


def test_an_error_becomes_an_id_that_the_log_knows(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(PageFault) as caught, guarded("drawing"):
        breaks()
    found = re.search(r"fault ([0-9a-f]{8})\.", str(caught.value))
    assert found
    assert f"fault {found[1]} while drawing" in caplog.text
    assert "DalleError" in caplog.text
    assert "KeyError" in caplog.text
    assert "in breaks" in caplog.text, "the log names the place"


def test_neither_the_person_nor_the_log_reads_a_caption(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(PageFault) as caught, guarded("drawing"):
        breaks()
    assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text
    # Whoever prints the fault with its trace must not print the error behind it.
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


def test_who_asks_for_details_reads_them(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG, logger="dalle.page.faults"),
        pytest.raises(PageFault),
        guarded("drawing"),
    ):
        breaks()
    assert SECRET in caplog.text


def test_a_message_for_people_passes_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    fault = PageFault("shorten the caption")
    with pytest.raises(PageFault) as caught, guarded("drawing"):
        raise fault
    assert caught.value is fault
    assert not caplog.records


def test_a_closed_tab_and_ctrl_c_are_no_faults() -> None:
    def frames() -> Generator[int, None, None]:
        with guarded("drawing"):
            yield 1
            yield 2

    running = frames()
    assert next(running) == 1
    running.close()  # GeneratorExit goes through the block
    with pytest.raises(KeyboardInterrupt), guarded("drawing"):
        raise KeyboardInterrupt


def test_ids_differ() -> None:
    assert len({fault_id() for _ in range(100)}) == 100
