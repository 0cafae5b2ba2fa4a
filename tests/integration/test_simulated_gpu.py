"""What is written for a GPU, run on one that is simulated: every tensor where it belongs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from dalle.cli import main
from dalle.data.tokens import TokenFolder
from dalle.picture import read_recipe
from tests.paths import ROOT, SCENES
from tests.simulated_gpu import NAME

LOOP = (
    *("--loop.steps", "2", "--loop.batch", "4", "--loop.accumulate", "2", "--loop.workers", "0"),
    *("--loop.eval_every", "2", "--loop.sample_every", "2", "--loop.save_every", "2"),
)
PICTURES = ("--data.train", str(SCENES), "--data.image_px", "32", "--data.heldout_fraction", "0.2")
VAE = (
    *("--model.channels", "8", "--model.groups", "3", "--model.blocks_per_group", "1"),
    *("--model.codebook_size", "32", "--model.codebook_dim", "8"),
)
TRANSFORMER = (
    *("--text_len", "16", "--heldout_fraction", "0.2", "--optim.optimizer", "muon"),
    *("--model.width", "32", "--model.layers", "3", "--model.heads", "2"),
    *("--model.attention", "paper", "--model.conv_kernel", "3", "--sample_captions", "[a fox]"),
)
CLIP = (
    *("--model.image_px", "32", "--model.patch_px", "8", "--model.image_width", "32"),
    *("--model.image_layers", "1", "--model.text_len", "32", "--model.text_width", "32"),
    *("--model.text_layers", "1", "--model.head_width", "16", "--model.embed_dim", "32"),
    *("--model.view_shift_px", "2", "--objective.through_vae", "0.6"),
)


def on_simulated_gpu(*lines: str, given: object = None) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, where the device is known."""
    program = ("import json, sys", "from tests.simulated_gpu import NAME, install", "install()")
    return subprocess.run(
        [sys.executable, "-c", "\n".join((*program, *lines)), json.dumps(given)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_everything_from_pictures_to_pictures(tmp_path: Path) -> None:
    vae, tokens, clip = (str(tmp_path / name) for name in ("vae", "tokens", "clip"))
    transformer, model = str(tmp_path / "transformer"), str(tmp_path / "model")
    start, drawn = str(tmp_path / "drawn"), tmp_path / "completed"
    tokenize = ["tokenize", "--data", str(SCENES), "--image_px", "32", "--vocab_size", "300"]
    commands = (
        ["train", "vae", "--out", vae, "--model.quantizer", "nearest", *PICTURES, *VAE, *LOOP],
        ["train", "vae", "--out", f"{vae}-gumbel", *PICTURES, *VAE, *LOOP],
        [*tokenize, "--vae", vae, "--out", tokens],
        ["train", "transformer", "--out", transformer, "--tokens", tokens, *TRANSFORMER, *LOOP],
        ["train", "clip", "--out", clip, "--vae", vae, *PICTURES, *CLIP, *LOOP,
         "--tokenizer", f"{tokens}/tokenizer.json"],
        ["pack", "--model", transformer, "--clip", clip, "--out", model],
        ["generate", "a fox", "a pizza", "--model", model, "--out", start, "--ranker", "clip",
         "--candidates", "2", "--guidance_scale", "1.5", "--top_k", "10", "--top_p", "0.9"],
        ["generate", "a fox", "--model", model, "--image", f"{vae}/samples/step-00000002.png",
         "--keep_rows", "0.5", "--dtype", "int8", "--candidates", "2", "--out", str(drawn)],
        ["suggest", "a", "--model", model],
    )  # fmt: skip
    run = on_simulated_gpu(
        "from dalle.cli import main",
        "for words in json.loads(sys.argv[1]):",
        "    assert main(words) == 0, words",
        given=commands,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count(f" parameters on {NAME}, ") == 4
    pictures = [*Path(start).glob("a-*.png"), *drawn.glob("a-*.png")]
    assert len(pictures) == 6
    assert {read_recipe(picture).device for picture in pictures} == {NAME}
    here = tmp_path / "here"
    assert main([*tokenize, "--vae", vae, "--out", str(here), "--device", "cpu"]) == 0
    there, known = TokenFolder(Path(tokens)), TokenFolder(here)
    for index in range(len(known)):
        np.testing.assert_array_equal(there.grid(index, 0), known.grid(index, 0))


def test_what_a_gpu_could_not_do_is_an_error() -> None:
    wrong = {
        "torch.ones(2, device=NAME) + torch.ones(2)": "add: a GPU's tensors with those of a CPU",
        "np.asarray(torch.ones(2, device=NAME))": "copy it to the CPU first",
        "recorded(lambda: torch.ones(2, device=NAME).sum().item())": "no CUDA graph can record",
        "recorded(lambda: torch.ones(2).to(NAME))": "no CUDA graph can record",
    }
    run = on_simulated_gpu(
        "import torch, numpy as np",
        "from tests.simulated_gpu import recorded",
        "recorded(lambda: torch.ones(2, device=NAME).sum())",
        "for line in json.loads(sys.argv[1]):",
        "    try:",
        "        print('nothing', eval(line))",
        "    except (RuntimeError, TypeError) as err:",
        "        print(err)",
        given=list(wrong),
    )
    assert run.returncode == 0, run.stderr
    for said, expected in zip(run.stdout.splitlines(), wrong.values(), strict=True):
        assert expected in said
