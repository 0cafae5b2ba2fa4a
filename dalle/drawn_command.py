"""`dalle data drawn`: what a model draws for captions of a data set, kept as tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from dalle.allocator import keep_freed_memory
from dalle.checkpoint import load_model
from dalle.config import DataDrawn
from dalle.console import bar_disabled
from dalle.data.order import in_groups
from dalle.data.samples import SampleSet, open_samples
from dalle.data.tokens import TokenWriter
from dalle.errors import DataError
from dalle.folders import model_folder
from dalle.pipeline import TextToImage
from dalle.prompts import check_prompt
from dalle.results import CaptionResult
from dalle.seeds import derive_seed

log = logging.getLogger(__name__)

_GROUP = 64
"""Captions with a seed of their own; otherwise every caption would meet the same noise."""


def run(settings: DataDrawn) -> int:
    """Write the token folder that `settings` describes; 0 when done.

    Raises:
        DataError: The data set cannot be read.
        ModelFormatError: There is no such model, or it is damaged.
        ValueError: The out folder exists.
        OSError: The out folder cannot be written.
    """
    keep_freed_memory()
    samples = open_samples(settings.data)
    parts = load_model(model_folder(settings.model))
    model = TextToImage(parts, device=settings.device)
    wanted = min(settings.captions or len(samples), len(samples))
    skipped = 0
    with (
        TokenWriter(
            settings.out, parts.vae, crops=settings.candidates, source=samples.fingerprint
        ) as writer,
        tqdm(total=wanted, desc="draw", unit="caption", disable=bar_disabled()) as bar,
    ):
        for number, group in enumerate(in_groups(_captions(samples, wanted), _GROUP)):
            captions = [caption for caption in group if caption is not None]
            skipped += len(group) - len(captions)
            results = model.generate_many(
                captions,
                candidates=settings.candidates,
                seed=derive_seed(settings.seed, "drawn", number),
                ranker="none",
            )
            for result in results:
                assert isinstance(result, CaptionResult), "its caption was checked"
                grids = np.stack([image.tokens for image in result.images])  # g h w
                writer.add(result.caption, grids)
            bar.update(len(group))
        writer.finish(parts.tokenizer, skipped=skipped)
    log.info("pictures of %d captions in %s", len(writer.captions), settings.out)
    return 0


def _captions(samples: SampleSet, wanted: int) -> Iterator[str | None]:
    """The first captions of a set as they are drawn; None, after a warning, for a damaged one."""
    for index in range(wanted):
        try:
            yield check_prompt(samples[index].caption)
        except (DataError, ValueError) as err:
            log.warning("skipped sample %d: %s", index, err)
            yield None
