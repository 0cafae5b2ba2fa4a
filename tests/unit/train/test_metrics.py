"""metrics.jsonl: one JSON object a line, whatever the numbers and whatever the disk says."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from dalle.train.metrics import (
    METRICS_FILE,
    SKIPPED_FILE,
    MetricsLog,
    Window,
    note_skipped,
    read_metrics,
)


def test_lines_are_json_for_any_reader(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, tensorboard=False, after=0)
    log.write(1, {"loss": 0.5, "psnr": math.inf, "kl": math.nan})
    log.write(2, {"loss": 0.25})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == [
        {"step": 1, "loss": 0.5, "psnr": None, "kl": None},
        {"step": 2, "loss": 0.25},
    ]
    assert list(read_metrics(tmp_path / METRICS_FILE)) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.25},
    ]


def test_a_resumed_run_forgets_what_it_will_write_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, tensorboard=False, after=0)
    for step in (10, 20, 30):
        log.write(step, {"loss": 1 / step, "psnr": math.inf})
    before = (tmp_path / METRICS_FILE).read_text().splitlines(keepends=True)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 40, "lo')  # the process was killed here
    MetricsLog(tmp_path, tensorboard=False, after=20).write(30, {"loss": 7.0})
    after = (tmp_path / METRICS_FILE).read_text().splitlines(keepends=True)
    assert after[:2] == before[:2]
    assert [json.loads(line) for line in after[2:]] == [{"step": 30, "loss": 7.0}]


def test_a_resumed_run_forgets_skipped_steps_that_are_still_to_come(tmp_path: Path) -> None:
    """Bug: they were there twice. A skipped step is named by the updates before it."""
    for step in (19, 20, 21):
        note_skipped(tmp_path, step, "loss nan", ["a.png"])
    MetricsLog(tmp_path, tensorboard=False, after=20)
    lines = (tmp_path / SKIPPED_FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [19]


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    MetricsLog(tmp_path, tensorboard=False, after=0).write(5, {"loss": 1.0})
    MetricsLog(tmp_path, tensorboard=False, after=0)
    assert list(read_metrics(tmp_path / METRICS_FILE)) == []


def test_training_never_stops_for_logging(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = MetricsLog(tmp_path, tensorboard=False, after=0)
    (tmp_path / METRICS_FILE).mkdir()  # now nothing can be written there
    log.write(1, {"loss": 1.0})
    log.write(2, {"loss": 1.0})
    assert [record.message.split(":")[0] for record in caplog.records] == [
        f"metrics are being lost, {tmp_path / METRICS_FILE} cannot be written"
    ]


def test_tensorboard_events_appear(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = MetricsLog(tmp_path, tensorboard=True, after=0)
    log.write(1, {"loss": 0.5})
    log.write(2, {"loss": 0.25})
    log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]


def test_a_window_averages_over_updates_alone() -> None:
    window = Window()
    window.add({"loss": 1.0, "text": 5.0})
    window.skip()
    window.add({"loss": 2.0, "text": 6.0})
    assert window.means() == {"loss": 1.5, "text": 5.5}
    assert (window.updates, window.skipped, window.steps) == (2, 1, 3)
    assert Window().means() == {}


def test_the_speed_is_that_of_steps_alone() -> None:
    """Bug: windows with an evaluation in them, or a checkpoint, showed a lower speed."""
    window = Window()
    for _ in range(2):
        with window.timed():
            time.sleep(0.01)
            window.add({"loss": 1.0})
        time.sleep(0.2)
    assert 10 < window.steps_per_s() <= 100


def test_a_window_goes_on_after_a_restart() -> None:
    first = Window()
    first.add({"loss": 0.1})
    first.skip()
    second = Window()
    second.restore(json.loads(json.dumps(first.state())))
    second.add({"loss": 0.2})
    assert second.means() == {"loss": (0.1 + 0.2) / 2}
    assert (second.updates, second.skipped) == (2, 1)
    assert second.steps == 1, "speed is measured in this process alone"
