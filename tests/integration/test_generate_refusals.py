"""What `dalle generate` refuses: captions, settings, models, and places to write to."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dalle import read_recipe
from tests.integration.generating import FOX, Generate, files, pixels
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one caption or several to draw"),
        ([""], "a caption must not be empty, got ''"),
        ([" \t\x00"], "a caption must not be empty"),
        ([FOX, ""], "a caption must not be empty"),
        (["x" * 100_000], "at most 2,000 characters, got 100,000"),
        (["\udcff fox"], "lone surrogate U+DCFF at character 0"),
        ([FOX, "--candidates", "0"], "candidates must be between 1 and 4,096, got 0"),
        ([FOX, "--candidates", "2", "--keep", "3"], "keep must be between 1 and candidates (2)"),
        ([FOX, "--temperature", "-1"], "temperature must be between 0 (greedy) and 100"),
        ([FOX, "--temperature", "nan"], "--temperature must be a number, or null, got 'nan'"),
        ([FOX, "--top-p", "1.2"], "top_p must be in (0, 1], got 1.2"),
        ([FOX, "--seed", str(1 << 63)], "seed must be a whole number below 2^63"),
        ([FOX, "--temperature", ".nan"], "--temperature must be a finite number, got '.nan'"),
        ([FOX, "--seed", "1.5"], "--seed must be a whole number, got '1.5'"),
        ([FOX, "--device", "tpu"], "--device must be one of auto, cpu, cuda, got 'tpu'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str], message: str, generate: Generate, tmp_path: Path
) -> None:
    status, out, err = generate(*words)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", err), err
    assert len(err) < 400
    assert files(tmp_path) == []


def test_bad_captions_are_refused_without_loading_anything() -> None:
    """Whoever mistypes waits for no torch."""
    program = (
        "import sys; from dalle.cli import main; status = main(['generate', '']);"
        "sys.exit(10 * ('torch' in sys.modules or 'tokenizers' in sys.modules) + status)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True
    )
    assert run.returncode == 2, run.stderr


def damaged(tiny_model: Path, folder: Path, change: Callable[[bytes], bytes]) -> Path:
    """A copy of the tiny model whose weights were changed."""
    folder.mkdir()
    for path in tiny_model.iterdir():
        content = path.read_bytes()
        weights = path.name == "transformer.safetensors"
        (folder / path.name).write_bytes(change(content) if weights else content)
    return folder


def test_models_that_cannot_be_used_are_one_line_and_status_1(
    generate: Generate, tiny_model: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "gpt2"}')
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[Path | str, str]] = [
        ("no-such-model", "there is no model 'no-such-model'"),
        (empty, "is not a model folder"),
        (foreign, "config.json"),
        (damaged(tiny_model, tmp_path / "cut", lambda data: data[:-100]), "damaged"),
        (damaged(tiny_model, tmp_path / "flip", lambda data: data[:-1] + b"\x7f"), "damaged"),
    ]
    before = files(tmp_path)
    for model, message in cases:
        status, out, err = generate(FOX, model=model)
        assert (status, out) == (1, ""), model
        assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", err), err
    assert files(tmp_path) == before, "nothing is written, not even the output folder"


# ------------------------------------------------------------------------ where nothing can be put


def test_an_output_folder_that_cannot_be_written_is_found_before_the_work(
    generate: Generate, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    places = [file, file / "below"]
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if not os.access(locked, os.W_OK):  # the superuser may write anywhere
        places += [locked, locked / "below"]
    for place in places:
        # The model is not looked for: a bad folder must not cost the time of loading one.
        status, out, err = generate(FOX, "--out", str(place), model="no-such-model")
        assert (status, out) == (1, "")
        message = (
            rf"error: output folder {place} cannot be written \(.*\); give another with --out\n"
        )
        assert re.fullmatch(message, err), err
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_made_after_all_is_one_line(generate: Generate) -> None:
    place = Path("/proc/pictures")  # not even the superuser makes a folder there
    if not place.parent.is_dir():
        pytest.skip("needs a /proc file system")
    status, out, err = generate(FOX, "--candidates", "1", "--out", str(place))
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"error: .*{place}.* cannot be written \(.*\).*\n", err), err


@contextlib.contextmanager
def files_no_larger_than(limit: int) -> Iterator[None]:
    """What this process writes to a file past so many bytes fails, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("limit", "pictures"), [(100, 0), (4000, 2)])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    limit: int, pictures: int, generate: Generate, tmp_path: Path
) -> None:
    """The disk fills up in a picture, or in the sheet."""
    with files_no_larger_than(limit):
        status, out, err = generate(FOX, "--candidates", "2", "--json")
    assert status == 1
    assert re.fullmatch(r"error: .*\.png cannot be written \(File too large\).*\n", err)
    written = list((tmp_path / "out").iterdir())
    assert len(written) == pictures
    entries = json.loads(out)["captions"] if out else []
    told = [image["file"] for entry in entries for image in entry["images"]]
    assert sorted(told) == sorted(map(str, written))
    for path in written:
        assert read_recipe(path).caption == FOX
        assert len(pixels(path)) == 16 * 16 * 3


def test_a_link_to_nowhere_is_refused_before_anything_is_drawn(
    generate: Generate, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    status, out, err = generate(FOX, "--out", str(tmp_path / "link"))
    assert (status, out) == (1, "")
    assert "link is no folder" in err
