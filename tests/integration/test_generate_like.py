"""`dalle generate --like`: a picture drawn again, or the reason why it cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tests.integration.generating import FOX, Generate, files


@pytest.mark.parametrize(("candidates", "index"), [("1", 0), ("5", 3), ("20", 18)])
def test_like_gives_the_same_bytes(
    candidates: str, index: int, generate: Generate, tmp_path: Path
) -> None:
    settings = ("--seed", "-4", "--temperature", "1.1", "--top-p", "0.9", "--guidance-scale", "2")
    _, out, _ = generate(FOX, "--candidates", candidates, "--keep", candidates, "--json", *settings)
    images = json.loads(out)["captions"][0]["images"]
    first = next(Path(image["file"]) for image in images if image["index"] == index)
    status, out, err = generate("--like", str(first), "--json", "--out", str(tmp_path / "again"))
    assert (status, err) == (0, "")
    (again,) = json.loads(out)["captions"][0]["images"]
    assert again["index"] == index
    assert Path(again["file"]).parent == tmp_path / "again"
    assert Path(again["file"]).read_bytes() == first.read_bytes()
    assert files(tmp_path / "again") == [first.name], "one picture needs no sheet"


def png(path: Path, text: str | None) -> Path:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_itxt("parameters", text)
    Image.new("RGB", (16, 16)).save(path, pnginfo=info)
    return path


def test_like_refuses_what_it_cannot_repeat(generate: Generate, tmp_path: Path) -> None:
    _, out, _ = generate(FOX, "--candidates", "1", "--json", "--out", str(tmp_path / "first"))
    picture = Path(json.loads(out)["captions"][0]["images"][0]["file"])
    with Image.open(picture) as image:
        stored = json.loads(image.info["parameters"])
    (tmp_path / "note.png").write_text("no picture")

    def changed(name: str, **values: Any) -> Path:
        return png(tmp_path / name, json.dumps({**stored, **values}))

    cases = [
        (tmp_path / "gone.png", 1, "No such file or directory"),
        (tmp_path, 2, "cannot be read as a PNG"),
        (tmp_path / "note.png", 2, "cannot be read as a PNG"),
        (png(tmp_path / "bare.png", None), 2, "holds no settings"),
        (png(tmp_path / "huge.png", " " * 5_000_000), 2, "at most 65,536"),
        (png(tmp_path / "deep.png", "[" * 60_000), 2, "nested too deeply"),
        (changed("type.png", seed="7"), 2, "seed must be a whole number, got '7'"),
        (changed("empty.png", caption=" "), 2, "must not be empty"),
        (changed("batch.png", batch=[4096, 4096]), 2, "at most 256 images"),
        (changed("other.png", model="f" * 16), 1, "drawn by model ffffffffffffffff"),
        (changed("gpu.png", device="cuda"), 1, "drawn on cuda, whose random numbers are not"),
    ]
    for path, expected, message in cases:
        status, out, err = generate("--like", str(path))
        assert (status, out) == (expected, ""), path
        assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", err), err
    assert files(tmp_path / "out") == []
    status, _, err = generate(FOX, "--like", str(picture))
    assert status == 2
    assert "give one caption or several to draw" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--seed", "3"], "--seed 3 would change nothing; leave it out"),
        (["--candidates", "4", "--keep", "2"], "--candidates 4, --keep 2 would change nothing; "),
        (["--top-k", "0", "--top-p", "0.5"], "--top-k 0, --top-p 0.5 would"),
        (["--temperature", "0.5"], "--temperature 0.5 would"),
        (["--guidance-scale", "1"], "--guidance-scale 1.0 would"),
        (["--ranker", "none"], "--ranker none would"),
        (["--keep-rows", "2"], "keep_rows 2 says how much of a picture is kept"),
    ],
)
def test_settings_beside_like_are_refused_by_name(
    words: list[str], named: str, generate: Generate, tmp_path: Path
) -> None:
    """They were once ignored without a word; nothing is read before they are refused."""
    status, out, err = generate("--like", "gone.png", *words)
    assert (status, out) == (2, "")
    assert named in err
    assert files(tmp_path / "out") == []
