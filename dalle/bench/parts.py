"""The measurements, part by part; each yields rows as they are made.

Axis letters: c captions, g candidates of a caption.
"""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from dalle.bench.floors import decode_floor_s, training_floor_s
from dalle.bench.machine import Rates, measure
from dalle.bench.results import Row
from dalle.bench.workloads import Workload, random_workload, with_grid
from dalle.config import OptimConfig, Optimizer, WeightType
from dalle.device import autocast_dtype
from dalle.engine import Engine, Engines
from dalle.flops import Shape, prefill_flops
from dalle.native.build import load_library
from dalle.sampling import sample_tokens
from dalle.sequence import joint_loss
from dalle.train.compiling import compile_parts
from dalle.train.optim import build_optimizers

TRAIN_BATCH = 8
IMAGE_BATCH = 8
GROWTH_SIDES = (8, 16, 32)
GROWTH_BATCH = 8
GROWTH_CANDIDATES = (1, 8, 64, 512)


def ways(
    workload: Workload, dtypes: Sequence[WeightType], device: torch.device, *, compile: bool
) -> list[Engine]:
    """Every engine that draws here in one of `dtypes`; on a GPU, if `compile`, compiled as well."""
    engines = Engines(workload.transformer, device)
    can_compile = compile if device.type != "cpu" else load_library() is not None
    compiled = [False, True] if can_compile else [False]
    return [engines.exactly(dtype, compiled=way) for way in compiled for dtype in dtypes]


def way_name(engine: Engine) -> str:
    """What a row calls an engine."""
    return f"{engine.dtype} {'compiled' if engine.compiled else 'torch'}"


def prefill_rows(
    workload: Workload, engines: Sequence[Engine], rates: Rates, *, runs: int
) -> Iterator[Row]:
    """Reading one caption, for one candidate and for 64: the work must be the same."""
    device = next(workload.transformer.parameters()).device
    text_ids = workload.captions(1)
    flops = prefill_flops(workload.shape, 1)
    for engine in engines:
        for candidates in (1, 64):

            def work(engine: Engine = engine, candidates: int = candidates) -> None:
                with torch.inference_mode():
                    engine.decoder.prefill(text_ids, None, candidates=candidates)

            yield Row(
                part="prefill",
                way=way_name(engine),
                batch=candidates,
                timing=measure(work, runs=max(runs, 5), device=device),
                units=workload.shape.sequence.text_len + 1,
                unit="tokens",
                floor_s=flops / rates.flops[engine.dtype],
                bf16_floor_s=flops / rates.flops["bf16"],
            )


def decode_row(
    workload: Workload,
    engine: Engine,
    rates: Rates,
    *,
    captions: int,
    candidates: int,
    runs: int,
    part: str = "decode",
) -> Row:
    """All image tokens of `candidates` pictures of each of `captions`, prefill included."""
    text_ids = workload.captions(captions)
    guided = workload.sampling.guidance_scale != 1  # as `sample_tokens` asks
    batches = engine.microbatches(candidates)

    def work() -> None:
        for indices in batches:
            for _ in sample_tokens(
                engine.decoder,
                text_ids,
                candidates=indices,
                seed=0,
                sampling=workload.sampling,
                chooser=engine.chooser,
            ):
                pass

    def floor_s(dtype: WeightType) -> float:
        return decode_floor_s(
            workload.shape, rates, dtype, captions=captions, candidates=candidates, guided=guided
        )

    return Row(
        part=part,
        way=way_name(engine),
        batch=captions * candidates,
        timing=measure(work, runs=runs, device=text_ids.device),
        units=captions * candidates * workload.shape.sequence.image_len,
        unit="tokens",
        floor_s=floor_s(engine.dtype),
        bf16_floor_s=floor_s("bf16"),
    )


def image_rows(workload: Workload, *, runs: int, parts: Sequence[str]) -> Iterator[Row]:
    """DVAE and CLIP over the pictures of one batch."""
    device = next(workload.vae.parameters()).device
    sequence, stride = workload.shape.sequence, workload.vae.config.stride
    grid = torch.zeros(IMAGE_BATCH, sequence.grid_h, sequence.grid_w, dtype=torch.int64).to(device)
    pixels = torch.zeros(IMAGE_BATCH, 3, sequence.grid_h * stride, sequence.grid_w * stride)
    pixels = pixels.to(device)
    measured: dict[str, Callable[[], Tensor]] = {}
    if "vae" in parts:
        measured["vae decode"] = lambda: workload.vae.decode(grid)
        measured["vae encode"] = lambda: workload.vae.encode(pixels)
    if "clip" in parts:
        clip, config = workload.make_clip()
        clip = clip.to(device).eval()
        seen = torch.zeros(IMAGE_BATCH, 3, *config.size_px, device=device)
        measured["clip images"] = lambda: clip.encode_image(seen)  # type: ignore[operator]
    for name, work in measured.items():
        with torch.inference_mode():
            timing = measure(work, runs=max(runs, 5), device=device)
        yield Row(
            part=name, way="fp32 torch", batch=IMAGE_BATCH, timing=timing, units=IMAGE_BATCH,
            unit="images",
        )  # fmt: skip


def train_rows(
    workload: Workload,
    rates: Rates,
    dtypes: Sequence[WeightType],
    *,
    runs: int,
    compile: bool,
    recompute: bool,
) -> Iterator[Row]:
    """A training step as `dalle train transformer` makes it: forward, backward, update.

    With AdamW, and with Muon as the recipes have it, whose own products the floor leaves out. On a
    GPU, if `compile`, also as `loop.compile` has it; all of them with `recompute` or without.
    """
    device = next(workload.transformer.parameters()).device
    shape = workload.shape
    compiled = [False, True] if compile and device.type != "cpu" else [False]
    workload.transformer.recompute = recompute
    trained = [dtype for dtype in dtypes if dtype != "int8"]
    for dtype, way, optimizer in itertools.product(trained, compiled, get_args(Optimizer)):
        work = _training_step(
            workload, autocast_dtype(dtype, device), device, compile=way, optimizer=optimizer
        )
        name = f"{dtype} {'compiled' if way else 'torch'}"
        name += ", Muon" if optimizer == "muon" else ""
        yield Row(
            part="train step",
            way=f"{name}, recomputed" if recompute else name,
            batch=TRAIN_BATCH,
            timing=measure(work, runs=runs, device=device),
            units=TRAIN_BATCH * shape.sequence.total_len,
            unit="tokens",
            floor_s=training_floor_s(shape, rates, dtype, batch=TRAIN_BATCH),
            bf16_floor_s=training_floor_s(shape, rates, "bf16", batch=TRAIN_BATCH),
        )
        workload.transformer.eval().zero_grad(set_to_none=True)


def _training_step(
    workload: Workload,
    autocast: torch.dtype | None,
    device: torch.device,
    *,
    compile: bool,
    optimizer: Optimizer,
) -> Callable[[], None]:
    """A step of the workload's transformer, again and again on the same batch.

    It is trained itself, since a copy would count as memory that training takes; compiled, a copy.
    """
    shape = workload.shape
    model = workload.transformer
    if compile:
        model = copy.deepcopy(model)
        compile_parts(model)
    model.train()
    optimizers = build_optimizers(model, OptimConfig(optimizer=optimizer))
    text_ids = workload.captions(TRAIN_BATCH)
    images = torch.zeros(TRAIN_BATCH, shape.sequence.image_len, dtype=torch.int64).to(device)
    scored = torch.ones(TRAIN_BATCH, dtype=torch.bool, device=device)

    def work() -> None:
        for one in optimizers:
            one.zero_grad(set_to_none=True)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            logits = model.raw_logits(text_ids, images)
            loss = joint_loss(
                logits.text,
                logits.image,
                text_ids=text_ids,
                image_tokens=images,
                text_weight=0.125,
                scored_text=scored,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one in optimizers:
            one.step()

    return work


def start_rows(workload: Workload, *, runs: int) -> Iterator[Row]:
    """Whole processes, from their start to their end; the first picture is the bundled model's."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["generate", "a fox", "--candidates", "1", "--out", folder, "--device", "cpu"]
        for name, arguments in (
            ("start: help", ["-m", "dalle", "--help"]),
            ("start: import torch", ["-c", "import torch"]),
            ("start: import the pipeline", ["-c", "import dalle; dalle.TextToImage"]),
            ("start: first picture", ["-m", "dalle", "--quiet", *words]),
        ):

            def work(arguments: list[str] = arguments) -> None:
                subprocess.run(
                    [sys.executable, *arguments],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
                )

            timing = measure(work, runs=runs, device=torch.device("cpu"))
            yield Row(part=name, way="", batch=1, timing=timing, units=1, unit="starts")


def growth_rows(
    workload: Workload, dtype: WeightType, rates: Rates, *, runs: int, compile: bool
) -> Iterator[Row]:
    """Time against image tokens, dense and masked, and against candidates of one caption.

    The fastest way in `dtype` is taken: the compiled one where there is one.
    """
    device = next(workload.transformer.parameters()).device
    for masks in (False, True):
        for side in GROWTH_SIDES:
            shape: Shape = with_grid(workload.shape, side, masks=masks)
            grown = random_workload(workload.name, shape, device)
            engine = ways(grown, [dtype], device, compile=compile)[-1]
            row = decode_row(
                grown, engine, rates, captions=GROWTH_BATCH, candidates=1, runs=runs,
                part=f"{side * side} tokens, {'masked' if masks else 'dense'}",
            )  # fmt: skip
            yield row
    engine = ways(workload, [dtype], device, compile=compile)[-1]
    for candidates in GROWTH_CANDIDATES:
        row = decode_row(
            workload, engine, rates, captions=1, candidates=candidates, runs=runs,
            part="candidates",
        )  # fmt: skip
        yield replace(row, units=candidates, unit="images")
