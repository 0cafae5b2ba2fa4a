from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

from dalle.config import DataEmoji
from dalle.data.emoji.font import EmojiFont
from dalle.data.emoji.write import render_scene, write_scenes
from dalle.data.samples import open_samples, samples_together

COMMITTED = Path(__file__).parents[3] / "data" / "scenes"

pytestmark = pytest.mark.usefixtures("font")


def settings(out: Path, **changes: object) -> DataEmoji:
    base = {"out": out, "scenes": 50, "image_px": 32, "subjects": "core", "workers": 1}
    return DataEmoji(**(base | changes))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """120 scenes are more than a process renders at a time, and their shards end elsewhere."""
    for workers in (1, 2):
        out = tmp_path / str(workers)
        write_scenes(settings(out, workers=workers, scenes=120, shard_scenes=70))
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert sorted(one) == ["00000.tar", "00001.tar", "dataset.json"]
    assert one == two


def test_a_scene_depends_on_seed_split_and_index_alone(tmp_path: Path) -> None:
    base = settings(tmp_path)
    third = render_scene(base, 3)
    assert render_scene(settings(tmp_path / "x", scenes=5, workers=2), 3) == third
    assert render_scene(base, 4) != third
    assert render_scene(settings(tmp_path, seed=1), 3) != third
    assert render_scene(settings(tmp_path, split="heldout"), 3) != third


def test_the_committed_scenes_are_still_what_their_seed_gives(
    tmp_path: Path, font: EmojiFont
) -> None:
    """When this fails on purpose, write tests/data/scenes anew and say so in the changelog."""
    index = json.loads((COMMITTED / "dataset.json").read_text())
    if index["font"]["sha256"] != font.sha256():
        pytest.skip("the committed scenes were drawn with another version of the font")
    samples = open_samples(COMMITTED)
    again = settings(tmp_path, image_px=64, seed=index["seed"])
    for number in range(len(samples)):
        scene = render_scene(again, number)
        assert (scene.caption, scene.truth) == (samples[number].caption, samples.truth(number))
        before, now = (
            np.asarray(Image.open(BytesIO(png))) for png in (samples[number].image, scene.png)
        )
        # A newer Pillow may round a resampled pixel differently.
        assert np.abs(before.astype(int) - now).max() <= 3


def test_size_changes_pixels_and_nothing_else(tmp_path: Path) -> None:
    small, large = (render_scene(settings(tmp_path, image_px=px), 8) for px in (32, 128))
    assert small.caption == large.caption
    assert small.truth["template"] == large.truth["template"]
    assert Image.open(BytesIO(large.png)).size == (128, 128)


def test_what_is_written_is_what_was_rendered(tmp_path: Path) -> None:
    assert write_scenes(settings(tmp_path, shard_scenes=20)) == 0
    samples = open_samples(tmp_path)
    assert len(samples) == 50
    for index in (0, 19, 20, 49):
        scene, sample = render_scene(settings(tmp_path), index), samples[index]
        assert sample.key == f"{index // 20:05d}/{index:09d}"
        assert (sample.image, sample.caption, samples.truth(index)) == (
            scene.png, scene.caption, scene.truth,
        )  # fmt: skip


def test_dataset_json_describes_the_shards(tmp_path: Path, font: EmojiFont) -> None:
    write_scenes(settings(tmp_path, shard_scenes=30, seed=4))
    text = (tmp_path / "dataset.json").read_text()
    index = json.loads(text)
    assert index["format_version"] == 1
    assert (index["scenes"], index["image_px"], index["seed"], index["split"]) == (
        50, 32, 4, "train",
    )  # fmt: skip
    assert [shard["scenes"] for shard in index["shards"]] == [30, 20]
    for shard in index["shards"]:
        content = (tmp_path / shard["file"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(content).hexdigest()
        assert shard["bytes"] == len(content)
    assert index["font"]["sha256"] == font.sha256()
    assert str(font.path.parent) not in text, "no path of the machine leaks"


def test_tar_members_carry_no_time_and_no_owner(tmp_path: Path) -> None:
    write_scenes(settings(tmp_path, scenes=2))
    with tarfile.open(tmp_path / "00000.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        f"00000000{index}.{suffix}" for index in (0, 1) for suffix in ("png", "txt", "json")
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}


def test_truth_matches_the_caption_and_the_picture(tmp_path: Path) -> None:
    for index in range(60):
        scene = render_scene(settings(tmp_path, image_px=64), index)
        truth = scene.truth
        assert truth["caption"] == scene.caption
        assert truth["held_out"] is False
        assert json.loads(json.dumps(truth)) == truth
        for subject in truth["subjects"]:
            left, top, right, bottom = subject["box"]
            assert 0 <= left < right <= 64
            assert 0 <= top < bottom <= 64
        if truth["look"] and truth["look"].startswith("colored"):
            assert truth["subjects"][-1]["color"] == truth["look"].split()[1]


def test_heldout_truth_names_what_is_held_out(tmp_path: Path) -> None:
    truth = render_scene(settings(tmp_path, split="heldout"), 0).truth
    assert truth["held_out"] is True
    assert all(": " in combination for combination in truth["held_out_combinations"])
    assert truth["held_out_combinations"]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        write_scenes(settings(tmp_path))
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        write_scenes(settings(tmp_path / "thesis.txt"))
    assert contents(tmp_path) == {"thesis.txt": b"precious"}


def test_a_stopped_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """Bug: a shard just renamed, and not yet on the list of finished ones, stayed behind."""
    out = tmp_path / "out"

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if list(out.glob("*.tar")):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_scenes(settings(out, scenes=10**6, shard_scenes=20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert contents(out) == {}


def test_writing_scenes_never_imports_torch() -> None:
    code = "import sys, dalle.data.emoji.write, dalle.data.samples; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_contrasting_scenes_come_in_twos(tmp_path: Path) -> None:
    """The first of two is the scene that stands there without contrasts; the index says so."""
    with_contrasts = settings(tmp_path / "twos", contrasts=True, scenes=40, shard_scenes=20)
    write_scenes(with_contrasts)
    samples = open_samples(tmp_path / "twos")
    assert samples_together(tmp_path / "twos") == 2
    plain = settings(tmp_path / "ones")
    for index in range(0, 40, 2):
        first, second = samples[index], samples[index + 1]
        assert first.caption == render_scene(plain, index).caption
        assert samples.truth(index) is not None
        assert samples.truth(index + 1) is not None
        assert first.image != second.image


def test_contrasts_need_even_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scenes come in twos, so scenes and shard_scenes must be"):
        settings(tmp_path, contrasts=True, scenes=3)
