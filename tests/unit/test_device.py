"""Devices and precisions: what is asked for is used, or refused in words."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from dalle.device import autocast_dtype, choose_device

HAS_GPU = torch.cuda.is_available()


def test_auto_takes_a_gpu_only_if_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if HAS_GPU else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.skipif(HAS_GPU, reason="needs a machine without a usable GPU")
def test_a_gpu_that_is_not_there_is_an_error_rather_than_a_slow_run() -> None:
    with pytest.raises(ValueError, match="device is cuda, but torch finds no usable GPU; use"):
        choose_device("cuda")


def test_precision_is_as_asked_and_auto_follows_the_processor() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("fp32", cpu) is None
    assert autocast_dtype("bf16", cpu) is torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported()
    assert autocast_dtype("auto", cpu) is (torch.bfloat16 if native else None)


def test_auto_takes_no_gpu_for_bf16_that_only_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: torch says yes to older GPUs too, on which bf16 is slower than fp32."""
    gpu = torch.device("cuda")
    for native in (False, True):

        def answer(including_emulation: bool = True, native: bool = native) -> bool:
            return including_emulation or native

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
        assert autocast_dtype("auto", gpu) is (torch.bfloat16 if native else None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_a_forked_process_computes_too() -> None:
    """It waited for ever for the threads of OpenMP, which only the first process has."""
    program = (
        "import os, torch",
        "from dalle.device import outlive_forks",
        "outlive_forks()",
        "torch.set_num_threads(2)",
        "work = lambda: torch.ones(10**6).exp().sum()",
        "work()",
        "child = os.fork()",
        "work()",
        "child or os._exit(7)",
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))",
    )
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout == "7\n"
