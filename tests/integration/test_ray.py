"""The program of docs/many-machines.md, run as it stands there, with two processes of Ray."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle import TextToImage, read_recipe
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
CAPTIONS = ["a fox", "two apples", "", "a robot, above a car", "a pizza", "two apples"]
TIMEOUT_S = 900  # of one run; Ray starts half a dozen processes, and machines may be busy


@pytest.fixture
def parquet() -> Any:
    pytest.importorskip("ray", reason="needs Ray Data (pip install -e '.[ray]')")
    return pytest.importorskip("pyarrow.parquet", reason="needs Ray Data (pip install -e '.[ray]')")


def program() -> str:
    """The page's program, with parts of two captions, so that there is something to hand out."""
    found = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    text, replaced = re.subn(r"^PART = \d+", "PART = 2", found[0], flags=re.MULTILINE)
    assert replaced == 1
    return text


def draw(folder: Path, captions: Path, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the program in `folder`, on a Ray of its own."""
    script = folder / "draw_many.py"
    script.write_text(program(), encoding="utf-8")
    return subprocess.run(
        [sys.executable, script, captions, "drawn", "--model", model, *more],
        cwd=folder,
        env={**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def test_the_page_compiles_without_ray() -> None:
    compile(program(), "docs/many-machines.md", "exec")


@pytest.mark.timeout(3 * TIMEOUT_S)
def test_captions_become_pictures_and_a_table(
    parquet: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """One caption of six is empty: it is a row with an error, and changes no other."""
    captions = tmp_path / "captions.csv"
    quoted = "".join(f'{number},"{caption}"\n' for number, caption in enumerate(CAPTIONS))
    captions.write_text(f"id,caption\n{quoted}", encoding="utf-8")
    drawn = tmp_path / "drawn"

    run = draw(tmp_path, captions, tiny_model, "--actors", "2", "--cpus", "0.5")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == "6 captions, 3 of 3 parts to draw"
    assert run.stdout.splitlines()[-1] == "5 pictures, 1 captions not drawn"
    rows = parquet.read_table(drawn / "results").sort_by("number").to_pylist()
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["caption"] for row in rows] == CAPTIONS
    assert [row["file"] is None for row in rows] == [caption == "" for caption in CAPTIONS]
    assert "caption must not be empty" in rows[2]["error"]

    model = TextToImage.from_pretrained(tiny_model, device="cpu")
    before = {path: path.read_bytes() for path in sorted(drawn.rglob("*.png"))}
    assert list(before) == [drawn / row["file"] for row in rows if row["file"]]
    for row in (row for row in rows if row["file"]):
        best = model.generate(row["caption"], candidates=16, keep=1, seed=0).images[0]
        with Image.open(drawn / row["file"]) as picture:
            assert picture.tobytes() == best.image.tobytes(), row["caption"]
        assert read_recipe(drawn / row["file"]) == best.recipe
        assert (row["index"], row["score"]) == (best.recipe.index, best.score)

    # A run that was stopped before its second part was done.
    (drawn / "results" / "000000003.parquet").unlink()
    (drawn / "pictures" / "000000003" / "000000004-0.png").unlink()
    run = draw(tmp_path, captions, tiny_model, "--actors", "1")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == "6 captions, 1 of 3 parts to draw"
    assert {path: path.read_bytes() for path in sorted(drawn.rglob("*.png"))} == before
    assert parquet.read_table(drawn / "results").sort_by("number").to_pylist() == rows

    # Other captions for a folder that holds pictures already.
    captions.write_text("caption\na fox\n", encoding="utf-8")
    run = draw(tmp_path, captions, tiny_model)
    assert run.returncode == 1
    assert "tells of another run" in run.stderr
