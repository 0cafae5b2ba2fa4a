"""CLIP's objective: a picture must fit its own caption better than all others of the batch.

Where a model's drawings are given, the true picture must also fit better than what was drawn for
the caption. Axes: b pairs; d drawings, of h w tokens; y x pixel rows and columns; t caption tokens;
e values of a shared vector.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid
from torch.utils.data import Dataset

from dalle.captions import CaptionTokenizer
from dalle.checkpoint import TOKENIZER_FILE, VAE_FILE, ClipParts, load_clip, load_vae, save_clip
from dalle.checksums import file_sha256
from dalle.clip import build_clip, each_moved
from dalle.config import TrainClip
from dalle.config.ranges import require_whole_tokens
from dalle.data.drawn import DrawnPictures
from dalle.data.order import Draw
from dalle.data.pictures import Fault, PictureSet, picture_sets
from dalle.data.samples import samples_together
from dalle.errors import DataError, ModelFormatError
from dalle.folders import model_folder
from dalle.seeds import derive_seed
from dalle.sheets import picture_grid
from dalle.train.caption_lengths import some_of, tell_of_cut_captions
from dalle.train.pairs import Pair, PairGroups
from dalle.train.ranks import Ranks
from dalle.train.start import said_to_differ
from dalle.train.task import Batch, Loss
from vae.model import DiscreteVAE
from vae.pixels import to_pixels

log = logging.getLogger(__name__)

EVAL_PAIRS = 1024
SHEET_CAPTIONS = 4
SHEET_BEST = 6
MAX_LOGIT_SCALE = math.log(100)
"""As in the CLIP paper (arXiv:2103.00020, section 2.5): larger ones make training unstable."""


class ClipTask:
    """Trains a small CLIP on captioned pictures."""

    name = "clip"
    unit = "images"
    flops_per_sample = 0

    def __init__(self, run: TrainClip) -> None:
        """Open the data and make a model with fresh weights.

        Args:
            run: What to train, on what.

        Raises:
            DataError: The pictures cannot be read, or are fewer than belong together.
            ModelFormatError: The tokenizer or the dVAE cannot be read, or the CLIP to start from
                does not fit.
            ValueError: The dVAE's stride does not divide the pictures, or a micro-batch has no two
                pairs to compare.
        """
        self.run = run
        # Not the dVAE's crops, which are mirrored at times: captions may name sides, and writing.
        train, heldout = picture_sets(run.data, run.loop.seed, random_crop="transformer")
        self.tokenizer = _tokenizer(run, train)
        self.vae: DiscreteVAE | None = None
        if run.vae is not None:
            self.vae = load_vae(model_folder(run.vae)).requires_grad_(False)
            require_whole_tokens(
                run.data.size_px, self.vae.config.stride,
                section="data.",
                whose=f"the stride of the dVAE in {run.vae} ({self.vae.config.stride})",
            )  # fmt: skip
        drawn = None if run.drawn is None else DrawnPictures(run.drawn, image_px=run.data.size_px)
        self.drawn_vae = None if drawn is None else drawn.vae.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(run.loop.seed, "init"))
            self.model: Any = build_clip(run.model, self.tokenizer.vocab_size)
        if run.init is not None:
            self._start_from(model_folder(run.init))
        # A random split would part what was made to be compared.
        whole = run.data.heldout is not None
        self.train_set = PairGroups(
            train, self.tokenizer,
            config=run.model,
            together=samples_together(run.data.train) if whole else 1,
            bpe_dropout=run.objective.bpe_dropout,
            drawn=drawn,
        )  # fmt: skip
        self.units_per_sample = self.train_set.together
        read = [one.samples for one in (train, heldout)] + ([drawn] if drawn else [])
        self.data_fingerprint = " ".join([one.fingerprint for one in read] + _parts_read(run))
        self.heldout_set = PairGroups(
            heldout, self.tokenizer,
            config=run.model,
            together=samples_together(run.data.heldout) if run.data.heldout else 1,
            bpe_dropout=0.0,
        )  # fmt: skip
        self._check_counts()
        self.heldout, self.heldout_captions = self._load_heldout()
        tell_of_cut_captions(
            list(_readable_captions(train, some_of(len(train)))), self.tokenizer,
            room=run.model.text_len - 1,
            setting="model.text_len",
        )  # fmt: skip

    def _check_counts(self) -> None:
        """Refuse what nothing can be compared in.

        Raises:
            DataError: A set is smaller than a group.
            ValueError: Micro-batches are of one pair.
        """
        data = self.run.data
        for groups, name, folder in (
            (self.train_set, "data.train", data.train),
            (self.heldout_set, "data.heldout", data.heldout),
        ):
            if not len(groups):
                raise DataError(
                    f"{name} {folder} has {len(groups.pictures)} pictures, of which "
                    f"{groups.together} belong together, so there is no whole group; add pictures"
                )
        loop = self.run.loop
        if loop.batch // loop.accumulate * self.train_set.together < 2:
            raise ValueError(
                "CLIP compares the pairs of a micro-batch, so there must be two at least, got "
                f"loop.batch {loop.batch} in loop.accumulate {loop.accumulate} parts; raise the "
                "one or lower the other"
            )

    def _start_from(self, folder: Path) -> None:
        """Take over the weights of a published CLIP.

        Raises:
            ModelFormatError: It cannot be loaded, or is of another shape or tokenizer.
        """
        parts = load_clip(folder)
        # How candidates are ordered later is no part of the weights.
        ours = self.run.model
        shape = replace(
            parts.config,
            view_shift_px=ours.view_shift_px,
            likelihood_weight=ours.likelihood_weight,
        )
        differing = said_to_differ(vars(shape), vars(self.run.model))
        if differing or not self.tokenizer.same_as(parts.tokenizer):
            raise ModelFormatError(
                f"init {folder} holds a CLIP of another shape or tokenizer: it has "
                f"{differing or 'other tokens'}; make them equal, and train with "
                f"--tokenizer {folder / TOKENIZER_FILE}"
            )
        self.model.load_state_dict(parts.model.state_dict())

    def _load_heldout(self) -> tuple[Batch, list[str]]:
        """The first held-out pairs, and their captions.

        Raises:
            DataError: None of them is readable.
        """
        groups = min(EVAL_PAIRS // self.heldout_set.together, len(self.heldout_set))
        # Groups with a fault are left out whole, so that partners stay beside each other.
        found = [self.heldout_set[Draw(index=i, epoch=0)] for i in range(groups)]
        for pair in (pair for group in found for pair in group):
            if isinstance(pair, Fault):
                log.warning("skipped held-out %s: %s", pair.key, pair.reason)
        whole = [group for group in found if all(isinstance(pair, Pair) for pair in group)]
        if not whole:
            raise DataError(
                f"none of the {len(found)} held-out groups can be read, so there is nothing to "
                "evaluate on; mend them, or name other ones with data.heldout"
            )
        captions = [
            pair.picture.caption for group in whole for pair in group if isinstance(pair, Pair)
        ]
        return self.collate(whole), captions

    def dataset(self) -> Dataset[Any]:
        """Groups of training pairs."""
        return self.train_set

    @staticmethod
    def collate(samples: list[list[Pair | Fault]]) -> Batch:
        """Readable pairs stacked: image_u8 (b, y, x, 3), text_ids (b, t), drawn (d, h, w) if any.

        The others are faults.
        """
        entries = [entry for group in samples for entry in group]
        pairs = [entry for entry in entries if isinstance(entry, Pair)]
        tensors = {}
        if pairs:
            tensors = {
                "image_u8": torch.stack([pair.picture.image_u8 for pair in pairs]),
                "text_ids": torch.stack([pair.text_ids for pair in pairs]),
            }
            drawn = [pair.drawn for pair in pairs if pair.drawn is not None]
            if drawn:
                tensors["drawn"] = torch.stack(drawn)
        return Batch(
            tensors=tensors,
            keys=tuple(pair.picture.key for pair in pairs),
            faults=tuple((e.key, e.reason) for e in entries if isinstance(e, Fault)),
        )

    def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
        """open_clip's loss; part of the pictures are seen through the dVAE, as candidates are."""
        del step
        pixels = to_pixels(batch.tensors["image_u8"])
        if self.vae is not None:
            chosen = torch.rand(len(pixels), generator=noise, device=pixels.device)
            seen_through = chosen < self.run.objective.through_vae
            if seen_through.any():
                pixels[seen_through] = self._through_vae(pixels[seen_through])
        if "drawn" in batch.tensors:
            pixels = torch.cat([pixels, self._drawn_pixels(batch.tensors["drawn"])])
        pixels = _shaken(pixels, self.run.objective.shift_px, noise)
        images, texts = self._features(self.model, pixels, batch.tensors["text_ids"])
        value = self._contrastive(self.model, images, texts)
        return Loss(value=value, metrics={"logit_scale": self.model.logit_scale.exp()})

    @torch.no_grad()
    def _drawn_pixels(self, grids: Tensor) -> Tensor:
        assert self.drawn_vae is not None, "only called when pictures were drawn"
        return self.drawn_vae.to(grids.device).decode(grids).float()

    @torch.no_grad()
    def _through_vae(self, pixels: Tensor) -> Tensor:
        assert self.vae is not None, "only called when there is one"
        vae = self.vae.to(pixels.device)
        return vae.decode(vae.encode(pixels)).float()

    @staticmethod
    def _features(model: Any, pixels: Tensor, text_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of pictures and captions, each of shape (b, e), float32."""
        images = model.encode_image(pixels, normalize=True).float()
        return images, model.encode_text(text_ids, normalize=True).float()

    def _contrastive(self, model: Any, images: Tensor, texts: Tensor) -> Tensor:
        """The loss of b captions, their b pictures, and pictures after those that fit none."""
        from open_clip.loss import ClipLoss, SigLipLoss

        true, drawn = images.split([len(texts), len(images) - len(texts)])
        # Cosines in 16 bits would tie just where the hard negatives are.
        with torch.autocast(images.device.type, enabled=False):
            scale = model.logit_scale.exp()
            if self.run.model.loss == "siglip":
                value: Tensor = SigLipLoss()(true, texts, scale, model.logit_bias)
                if len(drawn):
                    logits = scale * drawn @ texts.T + model.logit_bias
                    value = value - logsigmoid(-logits).sum() / len(texts)
            elif len(drawn):
                own = torch.arange(len(texts), device=texts.device)
                to_texts = cross_entropy(scale * true @ texts.T, own)
                to_images = cross_entropy(scale * texts @ images.T, own)
                value = (to_texts + to_images) / 2
            else:
                value = ClipLoss()(true, texts, scale)
        return value

    def after_step(self, step: int, noise: torch.Generator, ranks: Ranks) -> None:
        """Keep the logit scale within bounds."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def window_metrics(self) -> dict[str, float]:
        """Nothing beyond the loss."""
        return {}

    def window(self) -> dict[str, Any]:
        """Nothing is gathered here."""
        return {}

    def restore_window(self, window: Mapping[str, Any]) -> None:
        """Nothing to go on from."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Held-out retrieval both ways, and how often a picture is told from its hard negative."""
        images, texts = self._heldout_features(model)
        cosines = _cosines(images, texts)  # b b
        metrics = {
            "heldout_image_to_text_r1": self._recall(cosines),
            "heldout_text_to_image_r1": self._recall(cosines.T),
        }
        if self.heldout_set.together > 1:
            metrics["heldout_contrast"] = _contrast_accuracy(cosines, self.heldout_set.together)
        return metrics

    def _heldout_features(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Vectors of the held-out pictures, seen through the dVAE if there is one, and captions."""
        device = next(model.parameters()).device
        batch = self.heldout.to(device)
        parts = []
        for image_u8, text_ids in zip(
            batch.tensors["image_u8"].split(256), batch.tensors["text_ids"].split(256), strict=True
        ):
            pixels = to_pixels(image_u8)
            if self.vae is not None:
                pixels = self._through_vae(pixels)
            parts.append(self._features(model, pixels, text_ids))
        return torch.cat([images for images, _ in parts]), torch.cat([texts for _, texts in parts])

    def _recall(self, scores: Tensor) -> float:
        """How often the best column of a row has the row's caption, in whatever sample."""
        best: list[int] = scores.argmax(dim=1).tolist()
        captions = self.heldout_captions
        hits = [captions[row] == captions[column] for row, column in enumerate(best)]
        return sum(hits) / len(hits)

    def sample_sheet(self, model: nn.Module) -> Image.Image:
        """For a few held-out captions, the held-out pictures that fit best, with their scores."""
        images, texts = self._heldout_features(model)
        chosen = torch.linspace(0, len(texts) - 1, SHEET_CAPTIONS).long()
        cosines, best = _cosines(texts[chosen], images).topk(min(SHEET_BEST, len(images)), dim=1)
        pictures = [
            Image.fromarray(self.heldout.tensors["image_u8"][index].numpy())
            for index in rearrange(best, "n g -> (n g)").tolist()
        ]
        labels = [
            f"{self.heldout_captions[row]}\n{cosine:.3f}"
            for row, line in zip(chosen.tolist(), cosines.tolist(), strict=True)
            for cosine in line
        ]
        return picture_grid(pictures, columns=best.shape[1], labels=labels)

    def publish(self, model: nn.Module, folder: Path) -> None:
        """Write the CLIP folder."""
        parts = ClipParts(model=model, config=self.run.model, tokenizer=self.tokenizer)
        save_clip(folder, parts, dtype=self.run.publish_dtype)


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """Of every row of one with every row of the other; in 16 bits the close ones would tie."""
    with torch.autocast(first.device.type, enabled=False):
        return first @ second.T


def _parts_read(run: TrainClip) -> list[str]:
    """Hashes of the tokenizer and the dVAE that were named, if any: others make other weights."""
    files = [] if run.tokenizer is None else [run.tokenizer]
    if run.vae is not None:
        files.append(model_folder(run.vae) / VAE_FILE)
    return [file_sha256(file) for file in files]


def _shaken(pixels: Tensor, shift_px: int, noise: torch.Generator) -> Tensor:
    """Pictures, shape (b, c, y, x), each moved by up to `shift_px` pixels either way."""
    if not shift_px:
        return pixels
    shifts = torch.randint(
        -shift_px, shift_px + 1, (len(pixels), 2), generator=noise, device=pixels.device
    )
    return each_moved(pixels, shifts[:, 0], shifts[:, 1])


def _contrast_accuracy(cosines: Tensor, together: int) -> float:
    """How often, within its group, a picture fits its own caption best and the caption it."""
    starts = range(0, len(cosines), together)
    blocks = torch.stack(
        [cosines[start : start + together, start : start + together] for start in starts]
    )  # groups together together
    wanted = torch.arange(together, device=cosines.device)
    hits = torch.stack([blocks.argmax(dim=2) == wanted, blocks.argmax(dim=1) == wanted])
    accuracy: float = hits.float().mean().item()
    return accuracy


def _tokenizer(run: TrainClip, pictures: PictureSet) -> CaptionTokenizer:
    """The tokenizer asked for, or a new one of the training captions.

    Raises:
        ModelFormatError: The one asked for cannot be read.
    """
    if run.tokenizer is not None:
        return CaptionTokenizer.load(run.tokenizer)
    log.info("reading the captions of %d pictures for a vocabulary", len(pictures))
    every = range(len(pictures))
    return CaptionTokenizer.train(_readable_captions(pictures, every), run.vocab_size)


def _readable_captions(pictures: PictureSet, places: Sequence[int]) -> Iterator[str]:
    """Some captions of a set; unreadable ones are met again, and counted, in training."""
    for place in places:
        try:
            yield pictures.samples[pictures.indices[place]].caption
        except DataError as err:
            log.debug("no caption: %s", err)
