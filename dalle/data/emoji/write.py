"""Many scenes as tar shards, rendered in parallel processes and the same to the byte every time."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dalle.config import DataEmoji
from dalle.console import bar_disabled
from dalle.data.emoji.dice import Dice
from dalle.data.emoji.font import EmojiFont, find_font
from dalle.data.emoji.grammar import Grammar
from dalle.data.emoji.heldout import RATES, heldout_transform
from dalle.data.emoji.render import Painter
from dalle.data.emoji.subjects import list_subjects
from dalle.data.emoji.truth import describe
from dalle.data.emoji.wording import word
from dalle.data.scene_index import INDEX_FILE
from dalle.processes import map_in_processes
from dalle.whole_file import write_whole

FORMAT_VERSION = 1
"""Version of dataset.json and of the scenes' truth; raised when old readers would go wrong."""

_BATCH = 100  # scenes a process renders at a time
_PNG_COMPRESSION = 3  # from level 6 on it takes much longer for a few bytes less


@dataclass(frozen=True, kw_only=True)
class RenderedScene:
    """One scene as a shard stores it."""

    png: bytes
    caption: str
    truth: dict[str, Any]
    """Ground truth, ready for JSON; docs/data-card.md explains the fields."""


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """A finished shard, as dataset.json lists it."""

    file: str
    scenes: int
    bytes: int
    sha256: str


def write_scenes(settings: DataEmoji) -> int:
    """Renders scenes into `settings.out`; returns the exit status 0.

    Shards are `00000.tar`, `00001.tar`, … with members `000000000.png`, `.txt` and `.json` for
    each scene. `dataset.json`, written last, says what the folder holds. A run that is stopped
    takes its shards with it.

    Raises:
        ValueError: The output folder holds something already.
        FontError: No usable emoji font was found.
        OSError: The folder cannot be written.
    """
    out = settings.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out must be a new or empty folder, and {out} is not; name another one")
    font = find_font(settings.font)
    settings = replace(settings, font=font.path)
    out.mkdir(parents=True, exist_ok=True)
    shards: list[_Shard] = []
    try:
        with tqdm(
            total=settings.scenes,
            unit="scene",
            desc=f"{settings.split} scenes",
            disable=bar_disabled(),
        ) as bar:
            scenes = _render_all(settings)
            for first in range(0, settings.scenes, settings.shard_scenes):
                count = min(settings.shard_scenes, settings.scenes - first)
                path = out / f"{len(shards):05d}.tar"
                shards.append(_write_shard(path, first, islice(scenes, count), bar))
        index = json.dumps(_dataset(settings, font, shards), indent=2, ensure_ascii=False)
        write_whole(out / INDEX_FILE, index.encode() + b"\n")
    except BaseException:
        # Part of a set would pass for a whole one. The folder was empty, so all of it is ours; a
        # list of finished shards would miss one that was being entered when the signal came.
        for path in out.glob("*.tar*"):
            path.unlink(missing_ok=True)
        raise
    return 0


def render_scene(settings: DataEmoji, index: int) -> RenderedScene:
    """Scene `index` of a set; it depends on seed, split, subjects, mixture, font and size alone.

    With contrasts, scenes of odd index depend on the one before them as well.
    """
    grammar, painter = _studio(settings)
    dice = _dice(settings, index)
    if settings.contrasts and index % 2:
        partner = grammar.draw(_dice(settings, index - 1), settings.split)
        scene = grammar.contrast(partner, dice, settings.split)
    else:
        scene = grammar.draw(dice, settings.split)
    wording = word(scene, dice)
    picture = painter.paint(scene)
    png = io.BytesIO()
    picture.image.save(png, "PNG", compress_level=_PNG_COMPRESSION)
    truth = describe(scene, wording, picture.boxes)
    return RenderedScene(png=png.getvalue(), caption=wording.caption, truth=truth)


def _dice(settings: DataEmoji, index: int) -> Dice:
    return Dice(f"{settings.seed}/{settings.split}/{index}")


@lru_cache(maxsize=1)
def _studio(settings: DataEmoji) -> tuple[Grammar, Painter]:
    """What rendering needs, built once per process."""
    font = find_font(settings.font)
    grammar = Grammar(list_subjects(font, settings.subjects), settings.mixture)
    return grammar, Painter(font, settings.image_px)


def _render_all(settings: DataEmoji) -> Iterator[RenderedScene]:
    """Every scene in order, rendered by as many processes as the settings ask for."""
    starts = range(0, settings.scenes, _BATCH)
    work = partial(_render_batch, settings)
    for batch in map_in_processes(work, starts, workers=settings.workers):
        yield from batch


def _render_batch(settings: DataEmoji, start: int) -> list[RenderedScene]:
    stop = min(start + _BATCH, settings.scenes)
    return [render_scene(settings, index) for index in range(start, stop)]


def _write_shard(path: Path, first: int, scenes: Iterator[RenderedScene], bar: tqdm[Any]) -> _Shard:
    """A shard under a temporary name, given its own once it is whole."""
    unfinished = path.with_suffix(".tar.part")
    count = 0
    try:
        with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
            for scene in scenes:
                key = f"{first + count:09d}"
                truth = json.dumps(scene.truth, ensure_ascii=False, separators=(",", ":"))
                _add(tar, f"{key}.png", scene.png)
                _add(tar, f"{key}.txt", scene.caption.encode())
                _add(tar, f"{key}.json", truth.encode())
                count += 1
                bar.update()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return _Shard(file=path.name, scenes=count, bytes=len(content), sha256=digest)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time, owner and mode are constants
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _dataset(settings: DataEmoji, font: EmojiFont, shards: list[_Shard]) -> dict[str, Any]:
    """The content of dataset.json: how the set was made and what its shards hold."""
    subjects = list_subjects(font, settings.subjects)
    return {
        "format_version": FORMAT_VERSION,
        "kind": "emoji scenes",
        "scenes": settings.scenes,
        "image_px": settings.image_px,
        "seed": settings.seed,
        "split": settings.split,
        "subjects": settings.subjects,
        "subject_count": len(subjects),
        "mixture": asdict(settings.mixture),
        "together": 2 if settings.contrasts else 1,
        "held_out": {"rates": RATES, "transform": heldout_transform()},
        "font": {"file": font.path.name, "sha256": font.sha256()},
        "versions": {name: version(name) for name in ("emoji", "pillow")},
        "shards": [asdict(shard) for shard in shards],
    }
