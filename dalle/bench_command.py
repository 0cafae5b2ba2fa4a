"""`dalle bench`: a table with ratios, one JSON file, and plots of the growth."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import torch

from dalle.allocator import keep_freed_memory
from dalle.bench.machine import Rates, describe, measure_rates, peak_memory_bytes
from dalle.bench.parts import (
    decode_row,
    growth_rows,
    image_rows,
    prefill_rows,
    start_rows,
    train_rows,
    ways,
)
from dalle.bench.results import Report, Row, read_earlier
from dalle.bench.workloads import Workload, load_workload
from dalle.config import Bench
from dalle.device import choose_device
from dalle.evaluate.plots import require_matplotlib
from dalle.native.build import compile_library

log = logging.getLogger(__name__)


def run(settings: Bench) -> int:
    """Measure and report; 0 when everything is measured.

    Raises:
        ModelFormatError: There is no such workload or model.
        BuildError: The decode step cannot be compiled.
        DalleError: Plots are asked for and matplotlib is not installed.
        ValueError: There is no such device, or nothing of this workload to compare with.
        OSError: A file cannot be written.
    """
    device = choose_device(settings.device)
    if settings.plots is not None:
        require_matplotlib()
    earlier = None
    if settings.compare is not None:
        earlier = read_earlier(settings.compare, workload=settings.workload)
    if settings.compile and device.type == "cpu":
        compile_library()
    workload = load_workload(settings.workload, device)
    rates = measure_rates(device)
    rows = []
    for row in _rows(settings, workload, rates, device):
        what = f"{row.part}, {row.way}, batch {row.batch}" if row.way else row.part
        log.info("%s: %.3g s", what, row.timing.median)
        rows.append(row)
    # Before the rates are measured anew, which takes a GiB beside all that the rows still hold.
    peak = peak_memory_bytes(device)
    report = Report(
        workload=workload.name,
        machine=describe(device),
        rates=rates,
        rates_after=measure_rates(device),
        rows=rows,
        peak_bytes=peak,
    )
    if settings.out is not None:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(report.to_json() + "\n", encoding="utf-8")
    if settings.plots is not None:
        from dalle.bench.plots import draw_plots

        draw_plots(report, settings.plots)
    sys.stdout.write(report.to_json() + "\n" if settings.json else report.to_table(earlier))
    return 0


def _rows(settings: Bench, workload: Workload, rates: Rates, device: torch.device) -> Iterator[Row]:
    """Rows of every part that is asked for."""
    runs, parts = settings.runs, settings.parts
    engines = []
    if {"prefill", "decode"} & {*parts}:  # their weights would count as memory of the other parts
        engines = ways(workload, settings.dtypes, device, compile=settings.compile)
    if "prefill" in parts:
        yield from prefill_rows(workload, engines, rates, runs=runs)
    if "decode" in parts:
        for batch in settings.batches:
            for engine in engines:
                yield decode_row(workload, engine, rates, captions=batch, candidates=1, runs=runs)
    yield from image_rows(workload, runs=runs, parts=parts)
    if "growth" in parts:
        yield from growth_rows(
            workload, settings.dtypes[0], rates, runs=runs, compile=settings.compile
        )
    if "train" in parts:
        keep_freed_memory()  # as the training loop does
        yield from train_rows(
            workload, rates, settings.dtypes, runs=runs, compile=settings.compile,
            recompute=settings.recompute,
        )  # fmt: skip
    if "start" in parts:
        yield from start_rows(workload, runs=runs)
