"""The joint transformer's objective over a token folder, as the training loop wants it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from dalle.captions import CaptionTokenizer
from dalle.card import model_card
from dalle.checkpoint import ModelParts, save_model
from dalle.config import TrainTransformer, TransformerObjectiveConfig
from dalle.data.order import Draw
from dalle.data.pictures import split_indices
from dalle.data.tokens import TokenFolder
from dalle.errors import DataError
from dalle.flops import Shape, training_flops
from dalle.model_config import SequenceConfig
from dalle.prompts import normalise
from dalle.sampling import sample_tokens
from dalle.seeds import derive_seed
from dalle.sequence import fit_caption, joint_loss, null_caption, text_targets
from dalle.sheets import picture_grid
from dalle.train.caption_lengths import some_of, tell_of_cut_captions
from dalle.train.low_rank import merged, train_low_rank
from dalle.train.ranks import Ranks
from dalle.train.start import start_from
from dalle.train.task import Batch, Loss
from dalle.transformer import JointTransformer
from vae.pixels import to_image_u8

EVAL_SEQUENCES = 512
SHEET_CANDIDATES = 4
SHEET_CAPTIONS = 4
"""Held-out captions that are drawn where no others were asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequences:
    """One sample: a padded caption, whether it counts, and image tokens."""

    key: str
    text_ids: Tensor
    """Shape (t), int64."""
    scored: bool
    """False where the caption was dropped."""
    image_tokens: Tensor
    """Shape (m), int64, raster order; what is to be predicted."""
    read_tokens: Tensor
    """`image_tokens` as the model reads them, some replaced by noise; shape (m), int64."""


class SequenceSet(Dataset[Sequences]):
    """Joint sequences of a token folder, with the dropouts of training if `objective` is given."""

    def __init__(
        self,
        folder: TokenFolder,
        indices: Sequence[int],
        config: SequenceConfig,
        *,
        tokenizer: CaptionTokenizer,
        seed: int,
        objective: TransformerObjectiveConfig | None,
    ) -> None:
        """Sequences of the pictures `indices` of `folder`.

        Args:
            folder: Captions and image tokens.
            indices: Which of its pictures belong to the set.
            config: Lengths of the sequence.
            tokenizer: The model's; a held-out folder's own one may differ.
            seed: Seed of every dropout, and of the choice among a picture's versions.
            objective: Rates of the dropouts; None for whole captions and plain pictures.
        """
        self.folder = folder
        self.indices = indices
        self.config = config
        self.tokenizer = tokenizer
        self.seed = seed
        self.objective = objective

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, draw: Draw) -> Sequences:
        index = self.indices[draw.index]
        caption = self.folder.caption(index)
        if self.objective is None:
            dropped = False
            ids = self.tokenizer.encode(caption)
            read = tokens = self._tokens(index, crop=0)
        else:
            rng = np.random.default_rng(derive_seed(self.seed, "caption", draw.epoch, index))
            crop = int(rng.integers(self.folder.meta.crops))
            dropped = bool(rng.random() < self.objective.caption_dropout)
            ids = self.tokenizer.encode_dropout(caption, self.objective.bpe_dropout, rng)
            tokens = self._tokens(index, crop)
            read = _with_noise(tokens, self.objective.image_noise, self.config.image_vocab, rng)
        text_ids, _ = fit_caption(ids, self.tokenizer, self.config)
        return Sequences(
            key=f"{self.folder.folder}[{index}]",
            text_ids=null_caption(self.config) if dropped else text_ids,
            scored=not dropped,
            image_tokens=torch.from_numpy(tokens),
            read_tokens=torch.from_numpy(read),
        )

    def _tokens(self, index: int, crop: int) -> np.ndarray:
        return rearrange(self.folder.grid(index, crop), "h w -> (h w)")


def _with_noise(
    tokens: np.ndarray, probability: float, vocabulary: int, rng: np.random.Generator
) -> np.ndarray:
    """`tokens`, shape (m), each replaced with `probability` by one drawn from all."""
    if probability == 0:
        return tokens
    replaced = rng.random(len(tokens)) < probability
    return np.where(replaced, rng.integers(vocabulary, size=len(tokens)), tokens)


class TransformerTask:
    """Trains a `JointTransformer` on a token folder."""

    name = "transformer"
    unit = "tokens"

    def __init__(self, run: TrainTransformer) -> None:
        """Open the tokens and make a model with fresh weights.

        Args:
            run: What to train, on what.

        Raises:
            DataError: The tokens cannot be read, or held-out ones are of another kind.
            ModelFormatError: The folder's dVAE or tokenizer cannot be read, or the model to start
                from does not fit.
        """
        folder = TokenFolder(run.tokens)
        self.run = run
        self.batch = run.loop.batch // run.loop.accumulate
        self.tokenizer = folder.tokenizer()
        self.vae = folder.vae()
        self.sequence = run.sequence(
            text_vocab=self.tokenizer.vocab_size,
            grid=(folder.meta.grid_h, folder.meta.grid_w),
            image_vocab=folder.meta.codebook_size,
        )
        self.units_per_sample = self.sequence.total_len
        self.flops_per_sample = training_flops(
            Shape(sequence=self.sequence, config=run.model), batch=1
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(run.loop.seed, "init"))
            self.model: JointTransformer = JointTransformer(self.sequence, run.model)
            self.model.recompute = run.recompute
            same_words = run.init is None or start_from(
                run.init, self.model, vae=self.vae, tokenizer=self.tokenizer, tokens=run.tokens
            )
            if run.lora_rank is not None:
                train_low_rank(self.model, run.lora_rank, words=not same_words)
        self.train_set, heldout = self._sequence_sets(folder)
        self.data_fingerprint = f"{folder.fingerprint} {heldout.folder.fingerprint}"
        tell_of_cut_captions(
            [folder.caption(self.train_set.indices[at]) for at in some_of(len(self.train_set))],
            self.tokenizer,
            room=run.text_len,
            setting="text_len",
        )
        self.sheet_captions = run.sample_captions or tuple(
            heldout.folder.caption(index) for index in heldout.indices[:SHEET_CAPTIONS]
        )
        self.heldout = self.collate(
            [heldout[Draw(index=i, epoch=0)] for i in range(min(EVAL_SEQUENCES, len(heldout)))]
        )

    def _sequence_sets(self, folder: TokenFolder) -> tuple[SequenceSet, SequenceSet]:
        run = self.run
        heldout_folder = folder
        if run.heldout_tokens is None:
            train, heldout = split_indices(
                folder.picture_numbers(),
                heldout_fraction=run.heldout_fraction,
                seed=run.loop.seed,
            )
        else:
            heldout_folder = TokenFolder(run.heldout_tokens)
            _same_kind(folder, heldout_folder)
            train, heldout = list(range(len(folder))), list(range(len(heldout_folder)))
        common: Any = {"tokenizer": self.tokenizer, "seed": run.loop.seed}
        return (
            SequenceSet(folder, train, self.sequence, objective=run.objective, **common),
            SequenceSet(heldout_folder, heldout, self.sequence, objective=None, **common),
        )

    def dataset(self) -> Dataset[Any]:
        """Training sequences."""
        return self.train_set

    @staticmethod
    def collate(samples: list[Sequences]) -> Batch:
        """Sequences stacked: text_ids (b, t), image_tokens and read_tokens (b, m), scored (b)."""
        return Batch(
            tensors={
                "text_ids": torch.stack([sample.text_ids for sample in samples]),
                "image_tokens": torch.stack([sample.image_tokens for sample in samples]),
                "read_tokens": torch.stack([sample.read_tokens for sample in samples]),
                "scored": torch.tensor([sample.scored for sample in samples]),
            },
            keys=tuple(sample.key for sample in samples),
        )

    def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
        """Weighted text and image cross-entropy; all chance was drawn with the samples."""
        del step, noise
        return self._loss(self.model, batch.tensors)

    def _loss(self, model: JointTransformer, tensors: Mapping[str, Tensor]) -> Loss:
        logits = model.raw_logits(tensors["text_ids"], tensors["read_tokens"])
        result = joint_loss(
            logits.text,
            logits.image,
            text_ids=tensors["text_ids"],
            image_tokens=tensors["image_tokens"],
            text_weight=self.run.objective.text_weight,
            scored_text=tensors["scored"],
        )
        metrics = {"text_loss": result.text_loss, "image_loss": result.image_loss}
        return Loss(value=result.loss, metrics=metrics)

    def after_step(self, step: int, noise: torch.Generator, ranks: Ranks) -> None:
        """Nothing: the optimizer did it all."""

    def window_metrics(self) -> dict[str, float]:
        """Nothing beyond the losses."""
        return {}

    def window(self) -> dict[str, Any]:
        """Nothing is gathered here."""
        return {}

    def restore_window(self, window: Mapping[str, Any]) -> None:
        """Nothing to go on from."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Held-out text and image loss apart, nats per token."""
        assert isinstance(model, JointTransformer), "the loop averages the task's own model"
        model = merged(model)
        device = next(model.parameters()).device
        sums = {"heldout_text_loss": 0.0, "heldout_image_loss": 0.0}
        tokens = dict.fromkeys(sums, 0)
        for start in range(0, len(self.heldout.keys), self.batch):
            part = slice(start, start + self.batch)
            chunk = {name: tensor[part].to(device) for name, tensor in self.heldout.tensors.items()}
            metrics = self._loss(model, chunk).metrics
            targets = text_targets(chunk["text_ids"], self.sequence.text_vocab)
            # Chunks hold different numbers of caption tokens, over which each loss is a mean.
            for name, count in (
                ("text_loss", int((targets >= 0).sum())),
                ("image_loss", chunk["image_tokens"].numel()),
            ):
                sums[f"heldout_{name}"] += float(metrics[name].detach()) * count
                tokens[f"heldout_{name}"] += count
        return {name: total / tokens[name] for name, total in sums.items()}

    def sample_sheet(self, model: nn.Module) -> Image.Image:
        """A row of pictures for each of the run's sample captions."""
        assert isinstance(model, JointTransformer), "the loop averages the task's own model"
        model = merged(model)
        device = next(model.parameters()).device
        captions = [normalise(caption) for caption in self.sheet_captions]
        text_ids = torch.stack(
            [
                fit_caption(self.tokenizer.encode(text), self.tokenizer, self.sequence)[0]
                for text in captions
            ]
        )
        *_, drawn = sample_tokens(
            model, text_ids.to(device), candidates=range(SHEET_CANDIDATES),
            seed=self.run.loop.seed, sampling=self.run.sampling,
        )  # fmt: skip
        grids = rearrange(drawn.tokens, "c g (h w) -> (c g) h w", h=self.sequence.grid_h)
        images = to_image_u8(self.vae.to(device).decode(grids))
        labels = [text for text in captions for _ in range(SHEET_CANDIDATES)]
        return picture_grid(
            [Image.fromarray(image) for image in images], columns=SHEET_CANDIDATES, labels=labels
        )

    def publish(self, model: nn.Module, folder: Path) -> None:
        """Write the full model folder, with a card made from the run."""
        assert isinstance(model, JointTransformer), "the loop averages the task's own model"
        model = merged(model)
        parts = ModelParts(
            vae=self.vae.cpu(),
            transformer=model,
            tokenizer=self.tokenizer,
            sampling=self.run.sampling,
            fingerprint="",
        )
        save_model(folder, parts, card=model_card(parts, self.run), dtype=self.run.publish_dtype)


def _same_kind(train: TokenFolder, heldout: TokenFolder) -> None:
    """Refuse held-out tokens of another dVAE or grid.

    Raises:
        DataError: They are.
    """
    for name in ("grid_h", "grid_w", "codebook_size", "vae"):
        ours, theirs = getattr(train.meta, name), getattr(heldout.meta, name)
        if ours != theirs:
            raise DataError(
                f"{heldout.folder} has {name} {theirs}, but {train.folder} has {ours}; "
                "tokenize both with the same dVAE at the same size"
            )
