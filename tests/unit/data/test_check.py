"""`dalle data check`: what it says of sets with known faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle.cli import main
from dalle.config import DataCheck
from tests.unit.data.sets import write_samples


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Nine samples, of which two pictures and two captions cannot be read."""
    sizes = [(40, 30), (40, 30), (90, 45), (12, 10), (200, 100)]
    for number, size in enumerate(sizes):
        shade = (min(number, 1) * 60,) * 3  # the first is black, the others have one grey
        Image.new("RGB", size, shade).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a fox" if number else "a black cat")
    for name in ("x", "y"):
        (tmp_path / f"{name}.png").write_bytes(b"no picture")
        (tmp_path / f"{name}.txt").write_text("a fox")
    Image.new("RGB", (50, 50), "red").save(tmp_path / "no-caption.png")
    Image.new("RGB", (50, 50), "blue").save(tmp_path / "empty-caption.png")
    (tmp_path / "empty-caption.txt").write_text(" ")
    return tmp_path


def report(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["data", "check", str(folder), "--image_px", "16", "--json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_everything_is_counted_and_named(
    pictures: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    found = report(pictures, capsys, "--workers", workers)
    assert (found["samples"], found["pictures"], found["captioned"]) == (9, 7, 5)
    faults = {one["reason"]: one for one in found["faults"]}
    assert faults.keys() == {
        "the picture is damaged, or is not PNG, JPEG or WebP",
        "it has no caption",
        "the caption is empty",
    }
    assert found["faults"][0]["first"] == ["x.png", "y.png"], "the most frequent comes first"
    assert faults["it has no caption"]["samples"] == 1
    assert found["width_px"] == {"least": 12, "median": 50, "most": 200}
    assert found["height_px"] == {"least": 10, "median": 45, "most": 100}
    assert (found["smaller"], found["half_seen"]) == (1, 2)
    assert found["caption_chars"] == {"least": 5, "median": 5, "most": 11}
    assert found["different_captions"] == 2
    assert found["repeated"] == [{"caption": "a fox", "times": 4}]
    # Three others have the grey of 1.png.
    assert found["copies"]["pictures"] == 3
    assert found["copies"]["first"] == [[f"{number}.png", "1.png"] for number in (2, 3, 4)]


def test_people_read_sentences(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(pictures), "--image_px", "16"]) == 0
    out = capsys.readouterr().out
    for line in (
        f"{pictures}: 9 samples, 7 pictures that can be read, 5 captions",
        "  1 without a usable caption, so for the dVAE alone: it has no caption (no-caption.png)",
        "  2 left out: the picture is damaged, or is not PNG, JPEG or WebP (x.png, y.png)",
        "sizes: 12 to 200 px wide (median 50), 10 to 100 px high (median 45)",
        "  1 are smaller than 16 x 16 px and will be enlarged",
        "captions: 2 different ones, 5 to 11 characters (median 5)",
        "  4 times 'a fox'",
    ):
        assert f"{line}\n" in out
    assert "  2 lose half of their area or more where they are cut to 16 x 16 px, " in out
    assert "copies: 3 pictures are the same as another at 16 x 16 px" in out


def test_a_size_is_proposed_that_shows_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turned by EXIF they are upright, so it is not their files' sizes that count."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for number in range(4):
        Image.new("RGB", (90, 60 + number)).save(tmp_path / f"{number}.jpg", exif=exif)
        (tmp_path / f"{number}.txt").write_text("an owl")
    found = report(tmp_path, capsys, "--image_px", "64")
    assert found["width_px"]["most"] == 63
    assert found["seen"] == pytest.approx(np.mean([(60 + n) / 90 for n in range(4)]))
    better = {"image_px": 96, "width_px": 64, "seen": pytest.approx(0.976, abs=1e-3)}
    assert found["better_size"] == better
    main(["data", "check", str(tmp_path)])
    assert (
        "  of the average picture 68% is seen; with --image_px 96 --width_px 64 it would be 98%\n"
        in capsys.readouterr().out
    )
    found = report(tmp_path, capsys, "--image_px", "24", "--width_px", "16")
    assert (found["better_size"], found["half_seen"]) == (None, 0)
    # Strides are powers of two, so proposed sides must be multiples of one.
    better = report(tmp_path, capsys, "--image_px", "100")["better_size"]
    assert (better["image_px"] % 16, better["width_px"]) == (0, 100)


def test_of_many_a_few_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(70):  # more than a process looks at in one go
        (tmp_path / f"{number:02}.png").write_bytes(b"no picture")
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    (tmp_path / "good.txt").write_text("an owl")
    assert main(["data", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "70 left out: the picture is damaged" in out
    assert "(00.png, 01.png, 02.png, 03.png, 04.png, …)\n" in out
    assert "copies" not in out
    assert "times" not in out


def test_shards_and_tables_are_checked_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(tmp_path / "0.tar", 3)
    assert report(tmp_path, capsys)["captioned"] == 3
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    table = tmp_path / "a.csv"
    table.write_text("image,caption\na.png,\na.png,two\n")
    assert report(table, capsys)["several_captions"] == 0
    table.write_text("image,caption\na.png,one\na.png,two\n\n,three\n")
    found = report(table, capsys)
    assert (found["samples"], found["pictures"], found["captioned"]) == (3, 1, 2)
    # Bug: a picture's second caption made a copy of it, with a warning of what is set aside.
    assert (found["several_captions"], found["copies"]["pictures"]) == (1, 0)
    main(["data", "check", str(table)])
    assert "  1 pictures have several captions: " in capsys.readouterr().out
    (fault,) = found["faults"]
    assert (fault["reason"], fault["first"]) == ("it names no picture", ["line 5"])
    assert not fault["picture"]


def test_a_set_that_changed_is_looked_at_anew(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(pictures, capsys, "--workers", "1")["samples"] == 9
    (pictures / "0.png").unlink()
    assert report(pictures, capsys, "--workers", "1")["samples"] == 8


def test_a_set_without_pictures_is_an_error_after_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert main(["data", "check", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "1 left out: the picture is damaged" in out
    assert "none of 1 pictures can be read" in err
    assert main(["data", "check", str(tmp_path / "gone")]) == 1
    assert "gone is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["check", "vae"])
def test_names_do_not_steer_terminals(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """Errors kept escape sequences to themselves already; what is left out was named with them."""
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    table = tmp_path / "a.jsonl"
    names = ["good.png", "\x1b[2Jgone.png", "\x1b[2J\ud800.png", "a\nerror: gone"]
    rows = [json.dumps({"file_name": name, "text": "a fox"}) for name in names]
    table.write_text("\n".join(rows))
    if verb == "check":
        words = ["data", "check", str(table)]
    else:
        words = ["eval", "vae", "--vae", str(tiny_model), "--data", str(table), "--image_px", "16"]
    assert main(words) == 0
    said = "".join(capsys.readouterr())
    assert "[2Jgone.png" in said
    assert "\x1b" not in said
    assert "\nerror: gone" not in said


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image_px must be greater than 0"):
        DataCheck(data=tmp_path, image_px=0)
    with pytest.raises(ValueError, match="workers"):
        DataCheck(data=tmp_path, workers=-1)
