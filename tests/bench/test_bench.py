"""Floors by hand, and `dalle bench` from end to end on a model of test size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dalle.bench.floors import decode_floor_s, training_floor_s
from dalle.bench.machine import Rates, Timing, measure, measure_rates
from dalle.bench.results import Report, Row, read_medians
from dalle.bench.workloads import NAMED, load_workload, with_grid
from dalle.cli import main
from dalle.flops import Shape, prefill_flops, training_flops
from dalle.model_config import SequenceConfig, TransformerConfig
from dalle.transformer import JointTransformer

CPU = torch.device("cpu")

# 12 weights in each of 2 blocks of width 1 (3 + 1 + 4 + 4), 5 + 1 text and 7 image classes.
SHAPE = Shape(
    sequence=SequenceConfig(text_len=2, text_vocab=5, grid_h=1, grid_w=3, image_vocab=7),
    config=TransformerConfig(width=1, heads=1, layers=2),
)


def test_weights_are_those_of_the_model() -> None:
    shape = NAMED["tiny"]
    with torch.device("meta"):
        model = JointTransformer(shape.sequence, shape.config)
    in_blocks = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    assert shape.block_weights == in_blocks
    assert shape.image_head_weights == model.image_unembedding.numel()
    assert shape.text_head_weights == model.text_unembedding.numel()


def test_floors_by_hand() -> None:
    assert (SHAPE.block_weights, SHAPE.numbers_per_slot) == (24, 4)
    # 3 slots of 24 weights, 7 scores; 1 + 2 + 3 slots seen, 4 numbers each. Twice all that.
    assert prefill_flops(SHAPE, 1) == 2 * (24 * 3 + 7) + 2 * 4 * 6 == 206
    assert prefill_flops(SHAPE, 5) == 5 * 206
    # 5 slots; text head on 2 of them, image head on 3; 15 pairs. Three times forward.
    forward = 2 * 24 * 5 + 2 * (2 * 6 + 3 * 7) + 2 * 4 * 15
    assert training_flops(SHAPE, 10) == 3 * 10 * forward

    slow_memory = Rates(flops={"fp32": 1e9, "bf16": 1e9, "int8": 1e9}, bytes_per_s=1.0)
    # Two steps read 31 weights, 3 prefix slots and 1 or 2 drawn ones of each picture.
    steps = (31 + 4 * (3 + 1 * 6)) + (31 + 4 * (3 + 2 * 6))
    found = decode_floor_s(SHAPE, slow_memory, "bf16", captions=1, candidates=6)
    assert found == pytest.approx(2 * steps, rel=1e-6)
    apart = decode_floor_s(SHAPE, slow_memory, "bf16", captions=6, candidates=1)
    assert apart == pytest.approx(2 * (steps + 2 * 4 * 3 * 5), rel=1e-6), "six prefixes, not one"

    slow_sums = Rates(flops={"fp32": 1.0, "bf16": 2.0, "int8": 4.0}, bytes_per_s=1e9)
    operations = 206 + 2 * 6 * 31 * 2 + 2 * 4 * 6 * (4 + 5)
    found = decode_floor_s(SHAPE, slow_sums, "bf16", captions=1, candidates=6)
    assert found == pytest.approx(operations / 2)
    assert training_floor_s(SHAPE, slow_sums, "int8", batch=10) == 3 * 10 * forward / 4


def test_masks_and_grids_change_nothing_else() -> None:
    grown = with_grid(NAMED["small"], 32, masks=True)
    assert grown.sequence.image_len == 1024
    assert set(grown.config.layer_masks()) == {"row", "column", "conv"}
    assert grown.block_weights == NAMED["small"].block_weights


def test_measuring_counts_runs_and_keeps_the_median() -> None:
    calls: list[int] = []
    timing = measure(lambda: calls.append(1), runs=5, device=CPU)
    assert len(calls) == 6, "the first does not count"
    assert 0 < timing.shortest <= timing.median <= timing.longest
    assert timing.runs == 5


def test_captions_of_a_workload_differ(tiny_model: Path) -> None:
    workload = load_workload(str(tiny_model), CPU)
    assert len(workload.captions(9).unique(dim=0)) == 9


def test_bench_from_end_to_end(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures" / "bench.json"
    words = ["bench", str(tiny_model), "--runs", "1", "--device", "cpu", "--batches", "[2]"]
    assert main(["--quiet", *words, "--parts", "[prefill,decode,vae,clip,train]",
                 "--out", str(out)]) == 0  # fmt: skip
    table = capsys.readouterr().out
    report = json.loads(out.read_text())
    rows = {(row["part"], row["way"], row["batch"]): row for row in report["rows"]}
    ways = {way for part, way, _ in rows if part == "decode"}
    assert ways == {"fp32 torch", "bf16 torch", "int8 torch"}, "nothing is compiled unasked"
    assert {part for part, _, _ in rows} == {
        "prefill", "decode", "vae decode", "vae encode", "clip images", "train step",
    }  # fmt: skip
    decode = rows["decode", "fp32 torch", 2]
    assert (decode["units"], decode["unit"]) == (2 * 16, "tokens")
    assert 0 < decode["floor_s"] < decode["seconds"]
    assert "| decode " in table
    assert "x bf16 floor" in table

    less_memory = ["--parts", "[train]", "--dtypes", "[fp32]", "--recompute", "true"]
    assert main(["--quiet", *words, *less_memory]) == 0
    assert "| train step | fp32 torch, recomputed |" in capsys.readouterr().out

    assert main(["--quiet", *words, "--parts", "[vae]", "--compare", str(out)]) == 0
    assert "times as fast" in capsys.readouterr().out
    assert main(["--quiet", *words, "--parts", "[vae]", "--compare", str(tiny_model)]) == 2
    assert "cannot be compared with" in capsys.readouterr().err
    assert main(["bench", "--parts", "[decode]", "--plots", "x"]) == 2
    assert "add growth to --parts" in capsys.readouterr().err


def row(part: str, seconds: float, batch: int = 8) -> Row:
    timing = Timing(
        median=seconds, shortest=seconds / 2, longest=2 * seconds, runs=3, lost_cores=0.25
    )
    return Row(
        part=part, way="bf16 compiled", batch=batch, timing=timing, units=100, unit="tokens",
        floor_s=seconds / 4, bf16_floor_s=seconds / 5,
    )  # fmt: skip


def test_a_table_holds_ratios_and_a_comparison(tmp_path: Path) -> None:
    rates = Rates(flops={"fp32": 1e9, "bf16": 3e9, "int8": 5e9}, bytes_per_s=7e9)
    machine: dict[str, str | int] = {"device": "a processor", "threads": 2, "torch": "2"}

    def report(seconds: float) -> Report:
        return Report(
            workload="small",
            machine=machine,
            rates=rates,
            rates_after=replace(rates, bytes_per_s=4e9),
            rows=[row("decode", seconds)],
            peak_bytes=3 << 20,
        )

    (tmp_path / "old.json").write_text(report(6.0).to_json())
    text = report(2.0).to_table(read_medians(tmp_path / "old.json"))
    cells = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    assert cells == [
        "decode", "bf16 compiled", "8", "2", "1 - 4", "50 tokens", "4.00", "5.00", "0.25", "3.00",
    ]  # fmt: skip
    assert "rates: 7.0 GB/s read; fp32 1, bf16 3, int8 5 G operations/s" in text
    assert "afterwards: 4.0 GB/s read" in text
    assert "peak memory: 3 MiB" in text


def test_plots_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from dalle.bench.plots import CANDIDATES_FILE, TOKENS_FILE, draw_plots

    rows = [row(f"{n} tokens, {kind}", n / 50) for kind in ("dense", "masked") for n in (64, 256)]
    rows += [row("candidates", n / 10, batch=n) for n in (1, 8, 64)]
    rates = Rates(flops={"fp32": 1, "bf16": 1, "int8": 1}, bytes_per_s=1)
    draw_plots(
        Report(
            workload="small", machine={}, rates=rates, rates_after=rates, rows=rows, peak_bytes=0
        ),
        tmp_path / "new",
    )
    for name in (TOKENS_FILE, CANDIDATES_FILE):
        assert (tmp_path / "new" / name).stat().st_size > 5000


@pytest.mark.bench
def test_the_machine_is_measured() -> None:
    rates = measure_rates(CPU)
    assert min(rates.flops.values()) > 1e9
    assert rates.bytes_per_s > 1e8
