"""`dalle data check`: what a set of captioned pictures holds, before hours are spent on it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from dalle.config import DataCheck
from dalle.console import bar_disabled
from dalle.data.images import DECODED_TIMES, centre_crop, open_rgb
from dalle.data.sample import without_key
from dalle.data.samples import SampleSet, open_samples
from dalle.errors import DataError
from dalle.labels import shown, size_text
from dalle.processes import map_in_processes

NAMED = 5
"""Samples, captions and copies that are called by their names."""
HALF = 0.5
"""Pictures of which training sees so much of the area, or less, are counted."""
_BETTER = 0.1
"""Another size is proposed where it shows so much more of the area of the average picture."""
_SIDES_OF = 16
"""The longer side that is proposed is a multiple of it, as the strides of most dVAEs want it."""
_BATCH = 64
_CAPTION_CHARS = 60


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What was found of a sample."""

    key: str
    picture: str
    """What its picture is called, alike for all captions of it."""
    fault: str | None = None
    """Why it cannot be read, or has no caption that can."""
    size: tuple[int, int] | None = None
    """Width and height before it is cut, the right way up; None where it cannot be read."""
    seen: bytes = b""
    """A hash of the pixels that training sees."""
    caption: str | None = None


@dataclass
class _Facts:
    """What is known of a set, look after look."""

    samples: int = 0
    faults: defaultdict[tuple[str, bool], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """Names of samples by what is wrong with them, and whether their picture can be read."""
    pictures: set[str] = field(default_factory=set)
    """Those that can be read."""
    captions_of: Counter[str] = field(default_factory=Counter)
    """How many captions each of them has."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    captions: Counter[str] = field(default_factory=Counter)
    seen: dict[bytes, str] = field(default_factory=dict)
    """The first sample with these pixels."""
    copies: list[tuple[str, str]] = field(default_factory=list)
    """Samples with the pixels of an earlier one, and that one."""

    def add(self, look: _Look) -> None:
        self.samples += 1
        if look.fault is not None:
            # What stands behind is of this sample alone.
            reason = re.split(r" \(|: ", look.fault)[0]
            self.faults[reason, look.size is not None].append(look.key)
        if look.caption is not None:
            self.captions[look.caption] += 1
        if look.size is not None:
            self.captions_of[look.picture] += look.caption is not None
            if look.picture in self.pictures:
                return  # what is the picture's own was counted with its first caption
            self.pictures.add(look.picture)
            self.sizes.append(look.size)
            first = self.seen.setdefault(look.seen, look.key)
            if first != look.key:
                self.copies.append((look.key, first))


def run(settings: DataCheck) -> int:
    """Look at every sample and say what there is; 0 when done.

    Raises:
        DataError: There is no such set, or nothing in it can be read.
    """
    _opened.cache_clear()  # the set may have changed since another run of this process
    samples = open_samples(settings.data)
    work = partial(_look_at, settings.data, len(samples), settings.size_px)
    starts = range(0, len(samples), _BATCH)
    facts = _Facts()
    with tqdm(total=len(samples), desc="check", unit="img", disable=bar_disabled()) as bar:
        for looks in map_in_processes(work, starts, workers=settings.workers):
            for look in looks:
                facts.add(look)
            bar.update(len(looks))
    report = _report(facts, settings)
    sys.stdout.write(json.dumps(report) + "\n" if settings.json else _text(report, settings))
    if not facts.sizes:
        raise DataError(f"{settings.data}: none of {facts.samples:,} pictures can be read")
    return 0


def _look_at(path: Path, count: int, image_px: tuple[int, int], start: int) -> list[_Look]:
    """Some samples, beginning with number `start`."""
    samples = _opened(path)
    return [_look(samples, number, image_px) for number in range(start, min(start + _BATCH, count))]


@lru_cache(maxsize=1)
def _opened(path: Path) -> SampleSet:
    """The set, once a process; what there is to remark was said where it was opened first."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return open_samples(path)
    finally:
        logging.disable(before)


def _look(samples: SampleSet, number: int, image_px: tuple[int, int]) -> _Look:
    key, name = samples.key(number), samples.picture_name(number)
    fault = caption = None
    try:
        try:
            sample = samples[number]
            file, caption = sample.image, sample.caption
        except DataError as err:
            fault = without_key(err, key)
            file = samples.picture(number)  # which may be whole
        image = open_rgb(file, enough_px=DECODED_TIMES * max(image_px))
        seen = centre_crop(image, image_px)
        with Image.open(io.BytesIO(file)) as picture:
            width, height = picture.size
        if (width > height) != (image.width > image.height):
            width, height = height, width  # turned as its EXIF says
    except DataError as err:
        return _Look(key=key, picture=name, fault=without_key(err, key))
    pixels = hashlib.blake2b(seen.tobytes(), digest_size=16).digest()
    return _Look(
        key=key, picture=name, fault=fault, size=(width, height), seen=pixels, caption=caption
    )


def _report(facts: _Facts, settings: DataCheck) -> dict[str, Any]:
    """The facts, ready for JSON."""
    height, width = settings.size_px
    seen = _seen(facts.sizes, settings.size_px)
    lengths = [len(caption) for caption in facts.captions.elements()]
    return {
        "samples": facts.samples,
        "pictures": len(facts.sizes),
        "captioned": len(lengths),
        "several_captions": sum(times > 1 for times in facts.captions_of.values()),
        "faults": [
            {"reason": reason, "picture": picture, "samples": len(keys), "first": keys[:NAMED]}
            for (reason, picture), keys in sorted(
                facts.faults.items(), key=lambda item: -len(item[1])
            )
        ],
        "width_px": _spread([width for width, _ in facts.sizes]),
        "height_px": _spread([height for _, height in facts.sizes]),
        "smaller": sum(size[0] < width or size[1] < height for size in facts.sizes),
        "half_seen": int((seen <= HALF).sum()),
        "seen": float(seen.mean()) if len(seen) else None,
        "better_size": _better_size(facts.sizes, settings.size_px),
        "caption_chars": _spread(lengths),
        "different_captions": len(facts.captions),
        "repeated": [
            {"caption": caption, "times": times}
            for caption, times in facts.captions.most_common(NAMED)
            if times > 1
        ],
        "copies": {
            "pictures": len(facts.copies),
            "first": [list(pair) for pair in facts.copies[:NAMED]],
        },
    }


def _seen(sizes: Sequence[tuple[int, int]], image_px: tuple[int, int]) -> np.ndarray:
    """How much of its area each picture keeps that is cut to the proportions of `image_px`."""
    ratios = np.array([width / height for width, height in sizes]) * image_px[0] / image_px[1]
    return np.minimum(ratios, 1 / ratios)


def _better_size(
    sizes: Sequence[tuple[int, int]], image_px: tuple[int, int]
) -> dict[str, float] | None:
    """The size with the same shorter side that shows most of the pictures, if that is much more."""
    if not sizes:
        return None
    shorter = min(image_px)
    longer = range(-(-shorter // _SIDES_OF) * _SIDES_OF, 2 * shorter + 1, _SIDES_OF)
    proposed = {*((shorter, side) for side in longer), *((side, shorter) for side in longer)}
    seen = {size: float(_seen(sizes, size).mean()) for size in (image_px, *sorted(proposed))}
    best = max(seen, key=lambda size: seen[size])
    if seen[best] < seen[image_px] + _BETTER:
        return None
    return {"image_px": best[0], "width_px": best[1], "seen": seen[best]}


def _spread(values: Sequence[int]) -> dict[str, int] | None:
    """Least, median and most; None of nothing."""
    if not values:
        return None
    least, median, most = np.percentile(values, (0, 50, 100), method="nearest")
    return {"least": int(least), "median": int(median), "most": int(most)}


def _text(report: Mapping[str, Any], settings: DataCheck) -> str:
    return "".join(f"{line}\n" for line in _lines(report, settings))


def _lines(report: Mapping[str, Any], settings: DataCheck) -> Iterator[str]:
    cut_to = size_text(settings.size_px)
    yield (
        f"{shown(str(settings.data), 200)}: {report['samples']:,} samples, "
        f"{report['pictures']:,} pictures that can be read, {report['captioned']:,} captions"
    )
    if several := report["several_captions"]:
        yield (
            f"  {several:,} pictures have several captions: each is a sample, and all of a picture "
            "are trained on or set aside together"
        )
    for fault in report["faults"]:
        reason = shown(fault["reason"], 200)
        where = (
            "without a usable caption, so for the dVAE alone" if fault["picture"] else "left out"
        )
        yield f"  {fault['samples']:,} {where}: {reason} ({_named(fault)})"
    if width := report["width_px"]:
        height = report["height_px"]
        yield (
            f"sizes: {width['least']} to {width['most']} px wide (median {width['median']}), "
            f"{height['least']} to {height['most']} px high (median {height['median']})"
        )
        if report["smaller"]:
            yield f"  {report['smaller']:,} are smaller than {cut_to} and will be enlarged"
        if report["half_seen"]:
            yield (
                f"  {report['half_seen']:,} lose half of their area or more where they are cut to "
                f"{cut_to}, and with it what the caption says of that"
            )
        if better := report["better_size"]:
            yield (
                f"  of the average picture {report['seen']:.0%} is seen; with --image_px "
                f"{better['image_px']} --width_px {better['width_px']} it would be "
                f"{better['seen']:.0%}"
            )
    if chars := report["caption_chars"]:
        yield (
            f"captions: {report['different_captions']:,} different ones, {chars['least']} to "
            f"{chars['most']} characters (median {chars['median']})"
        )
        for one in report["repeated"]:
            yield f"  {one['times']:,} times {shown(one['caption'], _CAPTION_CHARS)!r}"
    if copies := report["copies"]["pictures"]:
        pairs = ", ".join(f"{a} = {b}" for a, b in report["copies"]["first"])
        more = ", …" if copies > NAMED else ""
        yield (
            f"copies: {copies:,} pictures are the same as another at {cut_to}, so that one "
            f"of them may be trained on and the other set aside ({shown(pairs, 300)}{more})"
        )


def _named(fault: Mapping[str, Any]) -> str:
    more = ", …" if fault["samples"] > NAMED else ""
    return shown(", ".join(fault["first"]), 200) + more
