"""`dalle tokenize`: every picture through the dVAE once, for the transformer to read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from dalle.captions import CaptionTokenizer, normalise
from dalle.checkpoint import load_vae
from dalle.config import Tokenize
from dalle.data.order import Draw
from dalle.data.pictures import Fault, Picture, PictureSet
from dalle.data.samples import open_samples
from dalle.data.tokens import TokenWriter
from dalle.device import choose_device
from dalle.errors import DataError
from dalle.folders import model_folder
from vae.pixels import to_pixels

log = logging.getLogger(__name__)

Versions = tuple[str, list[torch.Tensor]]
"""A normalised caption and the versions of its picture, each (y, x, 3) uint8."""


def tokenize(run: Tokenize) -> int:
    """Write the token folder that `run` describes; 0 when done.

    Raises:
        DataError: The pictures cannot be read at all, or too many of them are bad.
        ModelFormatError: The dVAE cannot be loaded.
        ValueError: The out folder exists.
    """
    device = choose_device(run.device)
    vae = load_vae(model_folder(run.vae)).to(device)
    samples = open_samples(run.data)
    indices = range(len(samples))
    plain = PictureSet(samples, indices, px=run.image_px, crop="plain", seed=run.seed)
    random = PictureSet(samples, indices, px=run.image_px, crop="transformer", seed=run.seed)
    faults: list[Fault] = []
    with (
        TokenWriter(run.out, vae.cpu(), crops=run.crops, source=samples.fingerprint) as writer,
        torch.inference_mode(),
    ):
        vae = vae.to(device)
        pictures = _versions(plain, random, crops=run.crops, faults=faults)
        progress = tqdm(pictures, total=len(samples), desc="tokenize", unit="img", disable=None)
        for group in _groups(progress, run.batch):
            images = torch.stack([image for _, versions in group for image in versions])
            grids = vae.encode(to_pixels(images.to(device))).cpu().numpy()  # b*crops h w
            for number, (caption, _) in enumerate(group):
                writer.add(caption, grids[number * run.crops : (number + 1) * run.crops])
        if len(faults) > run.max_bad_fraction * len(samples):
            raise DataError(
                f"{len(faults)} of {len(samples)} samples were unreadable, more than "
                f"max_bad_fraction ({run.max_bad_fraction}) allows; the first: {faults[0].key}: "
                f"{faults[0].reason}"
            )
        tokenizer = (
            CaptionTokenizer.load(run.tokenizer)
            if run.tokenizer is not None
            else CaptionTokenizer.train(writer.captions, run.vocab_size)
        )
        writer.finish(tokenizer, skipped=len(faults))
    log.info("%d pictures in %s, %d skipped", len(writer.captions), run.out, len(faults))
    return 0


def _versions(
    plain: PictureSet, random: PictureSet, *, crops: int, faults: list[Fault]
) -> Iterator[Versions]:
    """Each readable picture's versions: the plain one, then random crops; faults are collected."""
    for index in range(len(plain)):
        found = [plain[Draw(index=index, epoch=0)]]
        found += [random[Draw(index=index, epoch=crop)] for crop in range(1, crops)]
        good = [version for version in found if isinstance(version, Picture)]
        if len(good) < len(found):
            fault = next(version for version in found if isinstance(version, Fault))
            log.warning("skipped %s: %s", fault.key, fault.reason)
            faults.append(fault)
            continue
        try:
            caption = normalise(good[0].caption)
        except ValueError as err:
            faults.append(Fault(key=good[0].key, reason=str(err)))
            continue
        yield caption, [version.image_u8 for version in good]


def _groups(items: Iterator[Versions], size: int) -> Iterator[Sequence[Versions]]:
    group: list[Versions] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
