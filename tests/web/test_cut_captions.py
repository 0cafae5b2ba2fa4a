"""Captions longer than the model reads: their writers are told, and the server's log is not."""

from __future__ import annotations

import json

from tests.web.serving import RunningPage, call

LONG = "a fox on a blue background next to a very secret pizza " * 6


def test_a_program_is_told_what_was_cut_and_the_log_is_not(server: RunningPage) -> None:
    """The log once quoted the caption, where prompts of strangers have no place."""
    asked = {"caption": LONG, "candidates": 1, "keep": 1}
    answer = call(server, "generate", asked, client="10.7.0.1")
    data = next(line for line in answer.splitlines() if line.startswith("data: "))
    (result,) = json.loads(data.removeprefix("data: "))
    assert result["notice"].startswith("only the first 32 tokens of the caption are used: 'a fox")
    assert "secret" not in server.log
