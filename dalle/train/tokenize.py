"""`dalle tokenize`: every picture through the dVAE once, for the transformer to read."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from tqdm import tqdm

from dalle.allocator import keep_freed_memory
from dalle.captions import CaptionTokenizer
from dalle.checkpoint import load_vae
from dalle.config import Tokenize
from dalle.config.ranges import require_whole_tokens
from dalle.console import bar_disabled
from dalle.data.order import in_groups
from dalle.data.pictures import Crop, Fault, PictureSet
from dalle.data.samples import SampleSet, open_samples
from dalle.data.tokens import TokenWriter
from dalle.device import choose_device
from dalle.errors import DataError
from dalle.folders import model_folder
from dalle.prompts import normalise
from dalle.train.caption_lengths import caption_lengths, some_of
from vae.pixels import to_pixels

log = logging.getLogger(__name__)

Captioned = tuple[str, str, list[torch.Tensor]]
"""A picture's name, a normalised caption of it, and its versions, each (y, x, 3) uint8."""


def tokenize(run: Tokenize) -> int:
    """Write the token folder that `run` describes; 0 when done.

    Raises:
        DataError: The pictures cannot be read at all, or too many of them are bad.
        ModelFormatError: The dVAE cannot be loaded.
        ValueError: The out folder exists, or the dVAE's stride does not divide the pictures.
        OSError: The out folder cannot be written.
    """
    keep_freed_memory()
    device = choose_device(run.device)
    vae = load_vae(model_folder(run.vae)).to(device)
    stride = vae.config.stride
    whose = f"the stride of the dVAE in {run.vae} ({stride})"
    require_whole_tokens(run.size_px, stride, section="", whose=whose)
    tokenizer = None if run.tokenizer is None else CaptionTokenizer.load(run.tokenizer)
    samples = open_samples(run.data)
    pictures = Versions(samples, run)
    bar = tqdm(pictures, total=len(samples), desc="tokenize", unit="img", disable=bar_disabled())
    with (
        TokenWriter(run.out, vae, crops=run.crops, source=samples.fingerprint) as writer,
        torch.inference_mode(),
    ):
        for group in in_groups(bar, run.batch):
            images = torch.stack([image for _, _, versions in group for image in versions])
            grids = vae.encode(to_pixels(images.to(device))).cpu().numpy()  # b*crops h w
            for number, (name, caption, _) in enumerate(group):
                versions = grids[number * run.crops : (number + 1) * run.crops]
                writer.add(caption, versions, picture=name)
        if tokenizer is None:
            tokenizer = CaptionTokenizer.train(writer.captions, run.vocab_size)
        writer.finish(tokenizer, skipped=pictures.faults)
    log.info("%d samples in %s, %d skipped", len(writer.captions), run.out, pictures.faults)
    some = [writer.captions[index] for index in some_of(len(writer.captions))]
    lengths = caption_lengths(some, tokenizer)
    log.info(
        "captions have up to %d tokens, nine in ten at most %d; text_len says how many are learnt",
        lengths[-1], lengths[(9 * len(lengths) - 1) // 10],
    )  # fmt: skip
    return 0


class Versions:
    """Each readable picture's caption and versions: the plain one, then random crops.

    Iterating stops with a DataError as soon as more of the samples are known to be unreadable than
    the run allows.
    """

    def __init__(self, samples: SampleSet, run: Tokenize) -> None:
        indices = range(len(samples))
        self.pictures = PictureSet(
            samples, indices, image_px=run.size_px, crop="plain", seed=run.seed
        )
        random_cuts: list[tuple[Crop, int]] = [
            ("transformer", crop) for crop in range(1, run.crops)
        ]
        self.cuts: list[tuple[Crop, int]] = [("plain", 0), *random_cuts]
        self.max_bad_fraction = run.max_bad_fraction
        self.faults = 0

    def __iter__(self) -> Iterator[Captioned]:
        for index in range(len(self.pictures)):
            found = self.pictures.versions(index, self.cuts)
            if isinstance(found, Fault):
                self._skip(found)
                continue
            try:
                caption = normalise(found[0].caption)
            except ValueError as err:
                self._skip(Fault(key=found[0].key, reason=str(err)))
                continue
            name = self.pictures.samples.picture_name(index)
            yield name, caption, [version.image_u8 for version in found]

    def _skip(self, fault: Fault) -> None:
        """Count and name a picture that is left out, and stop when there are too many."""
        self.faults += 1
        log.warning("skipped %s: %s", fault.key, fault.reason)
        if self.faults > self.max_bad_fraction * len(self.pictures):
            raise DataError(
                f"at least {self.faults} of {len(self.pictures)} samples cannot be used, more than "
                f"max_bad_fraction ({self.max_bad_fraction}) allows; the last was {fault.key}: "
                f"{fault.reason}. Mend the data, or raise max_bad_fraction"
            )
