"""The dVAE's objective: reconstruction plus an annealed KL, as the training loop wants it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from dalle.checkpoint import load_vae, save_vae
from dalle.config import TrainVae, VaeObjectiveConfig
from dalle.data.order import Draw
from dalle.data.pictures import Fault, Picture, PictureSet, picture_sets
from dalle.errors import DataError, ModelFormatError
from dalle.folders import model_folder
from dalle.seeds import derive_seed
from dalle.sheets import picture_grid
from dalle.train.ranks import Ranks
from dalle.train.schedules import half_cosine
from dalle.train.task import Batch, Loss
from vae.fidelity import Fidelity
from vae.losses import mean_pixels, reconstruction_nll
from vae.model import DiscreteVAE
from vae.pixels import to_image_u8, to_pixels
from vae.quantize import NearestQuantizer, codebook_health

log = logging.getLogger(__name__)

EVAL_PICTURES = 256
SHEET_PICTURES = 16


class VaeTask:
    """Trains a `DiscreteVAE` on pictures; captions are not looked at."""

    name = "vae"
    unit = "images"
    units_per_sample = 1
    flops_per_sample = 0

    def __init__(self, run: TrainVae) -> None:
        """Open the data and make a model with fresh weights.

        Args:
            run: What to train, on what.

        Raises:
            DataError: The pictures cannot be read.
            ModelFormatError: The dVAE whose codes are asked for cannot be read, or has another
                encoder.
        """
        self.objective: VaeObjectiveConfig = run.objective
        tau_steps, kl_steps = run.objective.tau_steps, run.objective.kl_steps
        self.tau_steps = run.loop.steps if tau_steps is None else tau_steps
        self.kl_steps = max(run.loop.steps // 2, 1) if kl_steps is None else kl_steps
        self.batch = run.loop.batch // run.loop.accumulate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(run.loop.seed, "init"))
            model = DiscreteVAE(run.model)
        self.decoder_only = run.codes_of is not None
        """Whether encoder and codes are another dVAE's, and stay as they are."""
        if run.codes_of is not None:
            _take_codes(model, model_folder(run.codes_of))
        # Kernels see channels innermost; measured 10-20 % faster on CPU and GPU alike.
        self.model: DiscreteVAE = model.to(memory_format=torch.channels_last)
        self.train_set, heldout = picture_sets(
            run.data, run.loop.seed, random_crop="vae", captioned=False
        )
        self.heldout = _load(heldout, EVAL_PICTURES)
        self.data_fingerprint = " ".join(
            pictures.samples.fingerprint for pictures in (self.train_set, heldout)
        )
        self.counts = torch.zeros(run.model.codebook_size, dtype=torch.int64)
        """How often each code occurred since the last log line."""
        self.newest = torch.zeros_like(self.counts)
        """The same, of what this process has seen in step `counted_step` alone."""
        self.counted_step = -1
        self.chosen: list[tuple[Tensor, Tensor]] = []
        """Projected features of its micro-batches, and the codes chosen for them, if a codebook
        follows them."""

    def dataset(self) -> Dataset[Any]:
        """Training pictures."""
        return self.train_set

    @staticmethod
    def collate(samples: list[Picture | Fault]) -> Batch:
        """Readable pictures stacked as `image_u8` (b, y, x, 3), uint8; the others as faults."""
        good = [sample for sample in samples if isinstance(sample, Picture)]
        stacked = torch.stack([picture.image_u8 for picture in good]) if good else torch.empty(0)
        return Batch(
            tensors={"image_u8": stacked},
            keys=tuple(picture.key for picture in good),
            faults=tuple((s.key, s.reason) for s in samples if isinstance(s, Fault)),
        )

    def loss(self, batch: Batch, step: int, noise: torch.Generator) -> Loss:
        """ELB per pixel value, with tau and KL weight as annealed at `step`."""
        objective = self.objective
        pixels = to_pixels(batch.tensors["image_u8"]).to(memory_format=torch.channels_last)
        if self.decoder_only:
            return self._decoder_loss(pixels, step)
        tau = half_cosine(objective.tau_start, objective.tau_end, step, self.tau_steps)
        weight = half_cosine(0.0, objective.kl_weight, step, self.kl_steps)
        out = self.model(pixels, tau=tau, generator=noise)
        nll = reconstruction_nll(out.output, pixels, self.model.config.likelihood)
        # The paper divides the whole ELB by the number of pixel values; per cell and mean over
        # cells, that leaves the KL divided by 3 stride^2 (its 192 at stride 8).
        kl_share = out.quantized.kl / (3 * self.model.config.stride**2)
        value = nll + weight * kl_share + objective.commitment_weight * out.quantized.commitment
        self._count(out.quantized.tokens, step)
        if out.quantized.projected is not None:
            self.chosen.append((out.quantized.projected, out.quantized.tokens))
            metrics = {"commitment": out.quantized.commitment}
        else:
            annealed = {"tau": torch.tensor(tau), "kl_weight": torch.tensor(weight)}
            metrics = {"kl_nats_per_token": out.quantized.kl, **annealed}
        return Loss(value=value, metrics={"reconstruction": nll, **metrics})

    def _decoder_loss(self, pixels: Tensor, step: int) -> Loss:
        """The decoder's share alone: pictures through the codes that they are given."""
        with torch.no_grad():
            tokens = self.model.encode(pixels)
        output = self.model.decoder(self.model.quantizer.embed(tokens))
        nll = reconstruction_nll(output, pixels, self.model.config.likelihood)
        self._count(tokens, step)
        return Loss(value=nll, metrics={"reconstruction": nll})

    def _count(self, tokens: Tensor, step: int) -> None:
        codes = tokens.flatten()
        if step != self.counted_step:  # the one before was counted, or skipped
            self._forget()
            self.counted_step = step
        # Where the tokens are, so that a GPU need not be waited for.
        self.newest = self.newest.to(codes.device).index_add_(0, codes, torch.ones_like(codes))

    def _forget(self) -> None:
        """Drop what was seen in step `counted_step`."""
        self.newest.zero_()
        self.chosen = []

    def after_step(self, step: int, noise: torch.Generator, ranks: Ranks) -> None:
        """Let a nearest-code codebook follow the features of the whole step."""
        if step != self.counted_step:  # none of this process' pictures could be read
            self._forget()
        newest = self.newest.to(next(self.model.parameters()).device)
        ranks.add_up([newest])
        self.counts = self.counts.to(newest.device) + newest
        if self.decoder_only or not isinstance(self.model.quantizer, NearestQuantizer):
            return
        if not self.chosen:
            width = self.model.config.codebook_dim
            self.chosen = [(newest.new_zeros(0, width, 1, 1).float(), newest.new_zeros(0, 1, 1))]
        projected, tokens = (torch.cat(parts) for parts in zip(*self.chosen, strict=True))
        self.model.quantizer.after_step(projected, tokens, noise, ranks)
        self.chosen = []

    def window_metrics(self) -> dict[str, float]:
        """Codebook usage and perplexity since the last call, with a warning when they are low."""
        if not self.counts.any():  # no picture of the window could be read
            return {}
        health = codebook_health(self.counts)
        self.counts.zero_()
        if health.usage < self.objective.min_usage:
            log.warning(
                "only %.1f%% of the codebook is in use (objective.min_usage is %.1f%%); %s",
                100 * health.usage, 100 * self.objective.min_usage, self._usage_remedy(),
            )  # fmt: skip
        return {"codebook_usage": health.usage, "codebook_perplexity": health.perplexity}

    def _usage_remedy(self) -> str:
        if self.decoder_only:
            return "its codes (codes_of) stay as they are; train a dVAE on such pictures"
        if isinstance(self.model.quantizer, NearestQuantizer):
            return "early on that passes; later, lower optim.lr or model.codebook_size"
        return "raise objective.kl_weight, lower optim.lr, or try model.quantizer nearest"

    def window(self) -> dict[str, Any]:
        """How often each code occurred since the last log line."""
        return {"counts": self.counts.tolist()}

    def restore_window(self, window: Mapping[str, Any]) -> None:
        """Go on counting from what `window` returned."""
        self.counts = torch.tensor(window["counts"], dtype=torch.int64)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Reconstruction of held-out pictures through hard codes: score, PSNR, codebook health."""
        assert isinstance(model, DiscreteVAE), "the loop averages the task's own model"
        device = next(model.parameters()).device
        fidelity = Fidelity(model.config.codebook_size)
        nll = 0.0
        for chunk in self.heldout.split(self.batch):
            pixels = to_pixels(chunk.to(device))
            tokens = model.encode(pixels)
            output = model.decoder(model.quantizer.embed(tokens))
            nll += float(reconstruction_nll(output, pixels, model.config.likelihood)) * len(chunk)
            rebuilt = to_image_u8(mean_pixels(output, model.config.likelihood))
            fidelity.add(chunk.numpy(), rebuilt, tokens)
        return {
            "heldout_reconstruction": nll / fidelity.pictures,
            "heldout_psnr_db": fidelity.psnr_db,
            "heldout_codebook_usage": fidelity.codebook.usage,
            "heldout_codebook_perplexity": fidelity.codebook.perplexity,
        }

    def sample_sheet(self, model: nn.Module) -> Image.Image:
        """Held-out pictures, each above its reconstruction; an odd one is left out."""
        assert isinstance(model, DiscreteVAE), "the loop averages the task's own model"
        device = next(model.parameters()).device
        half = min(len(self.heldout), SHEET_PICTURES) // 2 or 1
        originals = self.heldout[: 2 * half]
        rebuilt = to_image_u8(model.decode(model.encode(to_pixels(originals.to(device)))))
        rows = [originals.numpy()[:half], rebuilt[:half], originals.numpy()[half:], rebuilt[half:]]
        pictures = [Image.fromarray(image) for row in rows for image in row]
        return picture_grid(pictures, columns=half)

    def publish(self, model: nn.Module, folder: Path) -> None:
        """Write the dVAE folder."""
        assert isinstance(model, DiscreteVAE), "the loop averages the task's own model"
        save_vae(folder, model)


def _take_codes(model: DiscreteVAE, folder: Path) -> None:
    """Give `model` the encoder and the codes of a trained dVAE, for good.

    Raises:
        ModelFormatError: It cannot be loaded, or its encoder is of another shape.
    """
    given = load_vae(folder)
    wanted, found = (
        dataclasses.asdict(replace(config, decoder_channels=None, decoder_blocks=None))
        for config in (model.config, given.config)
    )
    if wanted != found:
        name = next(name for name in wanted if wanted[name] != found[name])
        raise ModelFormatError(
            f"codes_of {folder} has another encoder: its model.{name} is {found[name]}, and this "
            f"run's is {wanted[name]}; make them equal, and size the decoder by "
            "model.decoder_channels and model.decoder_blocks"
        )
    for ours, theirs in ((model.encoder, given.encoder), (model.quantizer, given.quantizer)):
        ours.load_state_dict(theirs.state_dict())
        ours.requires_grad_(False)


def _load(pictures: PictureSet, limit: int) -> Tensor:
    """The first readable pictures of a set, shape (b, y, x, 3), uint8.

    Raises:
        DataError: None of them is readable.
    """
    found = [pictures[Draw(index=i, epoch=0)] for i in range(min(limit, len(pictures)))]
    for fault in found:
        if isinstance(fault, Fault):
            log.warning("skipped held-out %s: %s", fault.key, fault.reason)
    images = [picture.image_u8 for picture in found if isinstance(picture, Picture)]
    if not images:
        raise DataError(
            f"none of the {len(found)} held-out pictures can be read, so there is nothing to "
            "evaluate on; mend them, or name other ones with data.heldout"
        )
    return rearrange(images, "b y x c -> b y x c")
