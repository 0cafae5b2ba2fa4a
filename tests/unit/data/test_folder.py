"""Folders of pictures with captions beside them."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from dalle.data.samples import open_samples, samples_together
from dalle.errors import DataError
from tests.unit.data.sets import captions, png, write_samples, write_tar


def test_a_folder_is_read_with_its_subfolders(tmp_path: Path) -> None:
    for name in ("dogs/1.png", "cats/1.png", "cats/1.jpg", "b.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        path.with_suffix(".txt").write_text(f"caption of {path.parent.name}/{path.stem}")
    (tmp_path / "b.json").write_text('{"subject": "fox"}')
    (tmp_path / "notes.md").write_text("no picture")
    samples = open_samples(tmp_path)
    keys = [samples[index].key for index in range(len(samples))]
    assert keys == ["b.webp", "cats/1.jpg", "cats/1.png", "dogs/1.png"]
    assert samples.truth(0) == {"subject": "fox"}
    assert samples.truth(1) is None
    assert samples[3].image == b"dogs/1.png"
    assert samples[1].caption == samples[2].caption == "caption of cats/1"
    assert pickle.loads(pickle.dumps(samples))[3] == samples[3]


def test_the_order_is_by_path_whatever_the_file_system_says(tmp_path: Path) -> None:
    names = [f"{number * 37 % 101:03d}.png" for number in range(101)]
    for name in names:
        (tmp_path / name).write_bytes(png())
        (tmp_path / name).with_suffix(".txt").write_text("a fox")
    samples = open_samples(tmp_path)
    assert [samples[index].key for index in range(101)] == sorted(names)


def test_linked_folders_are_read_once_and_hidden_files_never(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "set"
    for name in ("elsewhere/1.png", "set/2.png", "set/._2.png", "set/.trash/3.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
        path.with_suffix(".txt").write_text(name)
    (folder / "cats").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)
    samples = open_samples(folder)
    assert captions(samples) == ["set/2.png", "elsewhere/1.png"]
    assert samples[1].key == "cats/1.png"


@pytest.mark.parametrize("index", ["[]", '{"images": []}', '{"labels": null}'])
@pytest.mark.parametrize("layout", ["shards", "folder"])
def test_a_dataset_json_of_somebody_else_is_nobodys_concern(
    layout: str, index: str, tmp_path: Path
) -> None:
    (tmp_path / "dataset.json").write_text(index)
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.txt").write_text("picture 0")
    if layout == "shards":
        write_samples(tmp_path / "0.tar", 1)
    assert captions(open_samples(tmp_path)) == ["picture 0"]
    assert samples_together(tmp_path) == 1


def test_a_picture_without_caption_raises_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(DataError, match=r"sample a\.png: it has no caption \(a\.txt is not there"):
        open_samples(tmp_path)[0]


def test_a_picture_can_be_read_without_its_caption(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "shards").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(png())
    write_tar(tmp_path / "shards" / "0.tar", {"a.png": png(), "b.txt": b"a fox"})
    for name in ("folder", "shards"):
        samples = open_samples(tmp_path / name)
        assert samples.picture(0) == png()
        with pytest.raises(DataError, match="it has no caption"):
            samples[0]
    with pytest.raises(DataError, match="sample 0/b: it has no picture"):
        samples.picture(1)


def test_pictures_of_other_kinds_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bug: they were left out without a word."""
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.txt").write_text("a fox")
    for name in ("b.bmp", "c.BMP", "d.gif", ".e.gif", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING, logger="dalle"):
        assert len(open_samples(tmp_path)) == 1
    (message,) = caplog.messages
    assert "are left out (2 .bmp, 1 .gif); make them PNG" in message


def test_endings_may_be_in_capitals(tmp_path: Path) -> None:
    """Bug: a picture's could, its caption's could not."""
    (tmp_path / "A.PNG").write_bytes(png())
    (tmp_path / "A.TXT").write_text("a fox")
    assert captions(open_samples(tmp_path)) == ["a fox"]


def test_a_changed_folder_changes_its_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.txt").write_text("a fox")
    before = open_samples(tmp_path).fingerprint
    (tmp_path / "a.txt").write_text("a foxes")
    assert open_samples(tmp_path).fingerprint != before


def test_folders_without_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither \.tar shards nor pictures"):
        open_samples(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        open_samples(tmp_path / "nowhere")
    write_tar(tmp_path / "0.tar", {"notes.md": b"nothing"})
    with pytest.raises(DataError, match="holds no readable sample in 1 tar shards"):
        open_samples(tmp_path)
