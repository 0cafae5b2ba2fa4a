"""What is old goes from the page's folder, while others write into it."""

from __future__ import annotations

import threading
from pathlib import Path

from dalle.page.exports import bytes_in
from dalle.page.sweep import sweep


def test_folders_go_once_they_are_empty_and_old(tmp_path: Path) -> None:
    """Every upload left one behind, which counted towards the room and was walked ever after."""
    results = tmp_path / "results"
    for path in (results, tmp_path / "a" / "b", tmp_path / "used"):
        path.mkdir(parents=True)
    (tmp_path / "used" / "fox.png").write_bytes(b"x")
    sweep(tmp_path, kept=results, age_s=3600)
    assert (tmp_path / "a" / "b").is_dir(), "who made it may be about to use it"
    sweep(tmp_path, kept=results, age_s=0)
    assert not (tmp_path / "a" / "b").exists()
    assert not (tmp_path / "used" / "fox.png").exists(), "what Gradio does not delete goes as well"
    sweep(tmp_path, kept=results, age_s=0)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_room_is_taken_by_files_alone(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}").mkdir()
    assert bytes_in(tmp_path) == 0
    (tmp_path / "7" / "small.png").write_bytes(b"x")
    (tmp_path / "7" / "large.png").write_bytes(bytes(10_000))
    assert bytes_in(tmp_path) == 4096 + 10_000


def test_folders_that_vanish_meanwhile_do_no_harm(tmp_path: Path) -> None:
    """Saving and uploading once failed for whoever came while another's folder was deleted."""
    for number in range(100):
        (tmp_path / f"still {number}").mkdir()
    over = threading.Event()

    def churn(name: str) -> None:
        while not over.is_set():
            (folder := tmp_path / name).mkdir(exist_ok=True)
            (folder / "file").write_bytes(b"x")
            (folder / "file").unlink()
            folder.rmdir()

    writers = [threading.Thread(target=churn, args=(f"{number}",)) for number in range(4)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(100):
            bytes_in(tmp_path)
            sweep(tmp_path, kept=tmp_path, age_s=3600)
    finally:
        over.set()
        for writer in writers:
            writer.join()
