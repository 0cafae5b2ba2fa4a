"""How processes share the tests."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize("number", range(4))
def test_one_process_does_all_of_a_file(
    number: int, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each test once went to whichever process was free, and all prepared the same things.

    xdist had written its groups where pytest, from 9.2 on, does not look.
    """
    del number
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("a single process does everything, or each test was meant to go anywhere")
    processes = tmp_path_factory.getbasetemp().parent / "processes-of-one-file"
    with processes.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    assert set(processes.read_text(encoding="utf-8").split()) == {str(os.getpid())}
