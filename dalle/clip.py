"""CLIP: how well a picture fits a caption, by a published open_clip model or a small one of ours.

open_clip takes seconds to import, so that happens only where a model is built or loaded.

Axes: n captions, b pictures, e values of a shared vector; c channels, y x pixel rows and columns.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pad

from dalle.captions import CaptionTokenizer
from dalle.errors import ClipUnavailableError, ModelFormatError
from dalle.model_config import ClipConfig
from dalle.weights import require_finite
from vae.pixels import to_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_BATCH = 64
SCORE_DECIMALS = 6
LOCAL_DIR = "local-dir:"
SIGLIP_INITIAL_BIAS = -10.0
"""Makes nearly all pairs negatives at the start, which they are (arXiv:2303.15343, section 3)."""


class ClipScorer:
    """Pictures and captions as vectors; their product is the score.

    Args:
        model: Anything with open_clip's `encode_image` and `encode_text`.
        read_captions: Captions to token ids, shape (n, t), int64.
        read_images: Pictures to the model's input, shape (b, c, y, x).
        device: Where to compute.
        view_shift_px: How far, in pixels of the model's input, four further views are moved.
        likelihood_weight: How much the likelihood of candidates counts beside these scores, for
            whoever orders them; see `dalle.rerank.ClipRanker`.
    """

    def __init__(
        self,
        model: Any,
        *,
        read_captions: Callable[[Sequence[str]], Tensor],
        read_images: Callable[[Sequence[Image.Image]], Tensor],
        device: torch.device,
        view_shift_px: int = 0,
        likelihood_weight: float = 0.0,
    ) -> None:
        self.likelihood_weight = likelihood_weight
        self._views = views(view_shift_px)
        self._model = model.to(device).eval()
        self._read_captions = read_captions
        self._read_images = read_images
        self._device = device

    @torch.inference_mode()
    def text_features(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors of `captions`, shape (n, e), float32."""
        ids = self._read_captions(captions).to(self._device)
        features: Tensor = self._model.encode_text(ids, normalize=True).float()
        return features

    @torch.inference_mode()
    def image_features(self, images: Sequence[Image.Image]) -> Tensor:
        """Vectors of `images`, shape (b, e), float32; computed in batches.

        Of one view each they are unit vectors, of several the means of unit vectors, so that their
        product with a caption's is the mean of the cosines.
        """
        parts = []
        for start in range(0, len(images), IMAGE_BATCH):
            pixels = self._read_images(images[start : start + IMAGE_BATCH]).to(self._device)
            seen = [
                self._model.encode_image(moved(pixels, down, right), normalize=True).float()
                for down, right in self._views
            ]
            parts.append(torch.stack(seen).mean(dim=0))
        return torch.cat(parts)

    def scores(self, caption: str, images: Sequence[Image.Image]) -> list[float]:
        """Cosine of each picture and the caption, -1 to 1, higher is better; the mean of views.

        Rounded to a millionth: the place of a picture in its batch sways the digits after that, and
        equal pictures shall tie.
        """
        cosines = self.image_features(images) @ self.text_features([caption])[0]
        return [round(cosine, SCORE_DECIMALS) for cosine in cosines.tolist()]


def views(shift_px: int) -> list[tuple[int, int]]:
    """By how many pixels down and right each view of a picture is moved, the picture itself first.

    A small ViT cuts a picture into few patches, and what it makes of them depends on where they
    happen to be cut. Of 150 held-out captions x 32 candidates of the bundled model, a CLIP that was
    not trained on shifts chose 58.7 % right by five views 2 px apart, 54.0 % by one.
    """
    if not shift_px:
        return [(0, 0)]
    return [(0, 0), (-shift_px, 0), (shift_px, 0), (0, -shift_px), (0, shift_px)]


def moved(pixels: Tensor, down: int, right: int) -> Tensor:
    """Pictures (b, c, y, x) moved by whole pixels; what comes into view repeats the edge."""
    reach = max(abs(down), abs(right))
    if not reach:
        return pixels
    height, width = pixels.shape[-2:]
    wide = pad(pixels, (reach, reach, reach, reach), mode="replicate")
    top, left = reach - down, reach - right
    return wide[..., top : top + height, left : left + width]


def each_moved(pixels: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """As `moved`, but each of b pictures by its own whole pixels, both of shape (b).

    All at once, so that a GPU need not be waited for; for one move of all, `moved` is a view.
    """
    height, width = pixels.shape[-2:]
    which = torch.arange(len(pixels), device=pixels.device)[:, None, None]  # b 1 1
    rows = torch.arange(height, device=pixels.device) - down[:, None]  # b y
    columns = torch.arange(width, device=pixels.device) - right[:, None]  # b x
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    shaken = pixels[which, :, rows[:, :, None], columns[:, None]]  # b y x c
    return rearrange(shaken, "b y x c -> b c y x").contiguous()


# ------------------------------------------------------------------------------------ our small one


def build_clip(config: ClipConfig, text_vocab: int) -> nn.Module:
    """A small CLIP with fresh weights: open_clip's ViT and text transformer.

    Args:
        config: Its shape.
        text_vocab: Entries of the caption vocabulary; the end token gets the number after them.
    """
    from open_clip import CLIP, CLIPTextCfg, CLIPVisionCfg

    model: nn.Module = CLIP(
        embed_dim=config.embed_dim,
        vision_cfg=CLIPVisionCfg(
            layers=config.image_layers,
            width=config.image_width,
            head_width=config.head_width,
            patch_size=config.patch_px,
            image_size=config.size_px,
        ),
        text_cfg=CLIPTextCfg(
            context_length=config.text_len,
            vocab_size=text_vocab + 1,
            width=config.text_width,
            heads=config.text_width // config.head_width,
            layers=config.text_layers,
            pool_type="argmax",  # reads at the highest id, which is the end token
        ),
        init_logit_bias=SIGLIP_INITIAL_BIAS if config.loss == "siglip" else None,
    )
    return model


def clip_text_ids(ids: Sequence[int], *, config: ClipConfig, text_vocab: int) -> Tensor:
    """A caption's tokens and the end token, shape (t), int64; zeros follow, which nothing reads.

    Args:
        ids: Tokens, at most `config.text_len` - 1.
        config: Gives the length.
        text_vocab: Entries of the caption vocabulary.
    """
    padded = torch.zeros(config.text_len, dtype=torch.int64)
    padded[: len(ids) + 1] = torch.tensor([*ids, text_vocab])
    return padded


def small_clip_scorer(
    model: nn.Module, config: ClipConfig, tokenizer: CaptionTokenizer, device: torch.device
) -> ClipScorer:
    """A scorer that reads captions with our tokenizer and pictures at the model's own size."""
    height, width = config.size_px
    size = (width, height)  # as Pillow has it

    def read_captions(captions: Sequence[str]) -> Tensor:
        fitted = [
            tokenizer.fit(tokenizer.encode(text), config.text_len - 1)[0] for text in captions
        ]
        return torch.stack(
            [clip_text_ids(ids, config=config, text_vocab=tokenizer.vocab_size) for ids in fitted]
        )

    def read_images(images: Sequence[Image.Image]) -> Tensor:
        sized = [
            image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
            for image in (image.convert("RGB") for image in images)
        ]
        return to_pixels(torch.from_numpy(np.stack([np.asarray(image) for image in sized])))

    return ClipScorer(
        model,
        read_captions=read_captions,
        read_images=read_images,
        device=device,
        view_shift_px=config.view_shift_px,
        likelihood_weight=config.likelihood_weight,
    )


# ------------------------------------------------------------------------------- published models


def published_clip_scorer(spec: str, device: torch.device) -> ClipScorer:
    """A scorer of one of open_clip's models.

    Args:
        spec: `ARCHITECTURE/TAG` as open_clip lists them (`ViT-B-32/laion2b_s34b_b79k`), from its
            cache or the Hub; `ARCHITECTURE/FILE` for weights in a file; or `local-dir:FOLDER`.
        device: Where to compute.

    Raises:
        ValueError: There is no such architecture, tag, file or folder.
        ClipUnavailableError: The weights are neither cached nor to be had.
        ModelFormatError: They are damaged, not finite or of another architecture.
    """
    import open_clip

    name, weights = _architecture(spec)
    is_local = weights is None or Path(weights).is_file()
    with _open_clip_errors(spec, is_local=is_local):
        model = open_clip.create_model(name, pretrained=weights, require_pretrained=True)
        tokenize = open_clip.get_tokenizer(name)
    require_finite(model.named_parameters(), f"CLIP {spec}")
    preprocessing = open_clip.get_model_preprocess_cfg(model)
    # `shortest` shows the middle of a wide picture only; a square is the same to both.
    crops = (preprocessing["resize_mode"] or "shortest") == "shortest"
    prepare = open_clip.image_transform(
        preprocessing["size"],
        is_train=False,
        mean=preprocessing["mean"],
        std=preprocessing["std"],
        interpolation=preprocessing["interpolation"],
        resize_mode="squash" if crops else preprocessing["resize_mode"],
        fill_color=preprocessing["fill_color"],
    )

    def read_images(images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([prepare(image) for image in images])

    return ClipScorer(
        model,
        read_captions=lambda captions: tokenize(list(captions)),
        read_images=read_images,
        device=device,
    )


def _architecture(spec: str) -> tuple[str, str | None]:
    """open_clip's name of the model, and the tag or file of its weights.

    Raises:
        ValueError: One of them is not known, or not there.
    """
    import open_clip

    if spec.startswith(LOCAL_DIR):
        folder = Path(spec.removeprefix(LOCAL_DIR))
        if not (folder / "open_clip_config.json").is_file():
            raise ValueError(
                f"clip {spec!r}: {folder} has no open_clip_config.json; give a folder that "
                "open_clip saved"
            )
        return spec, None
    name, _, weights = spec.partition("/")
    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, open_clip.list_models(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`open_clip.list_models()` lists them"
        raise ValueError(
            f"clip {spec!r}: {name!r} is neither a folder of ours nor one of open_clip's "
            f"architectures; {hint}"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags and not Path(weights).is_file():
        raise ValueError(
            f"clip {spec!r}: {weights!r} is neither a file nor a tag of {name}; its tags are "
            f"{', '.join(tags) or 'none'}"
        )
    return name, weights


@contextmanager
def _open_clip_errors(spec: str, *, is_local: bool) -> Iterator[None]:
    """Whatever goes wrong while open_clip loads, as one of our errors.

    Args:
        spec: What is loaded.
        is_local: Whether its weights are a file or folder here, so that nothing is fetched.

    Raises:
        ClipUnavailableError: A download failed.
        ModelFormatError: The weights do not fit.
    """
    try:
        yield
    except Exception as err:  # open_clip raises nearly anything
        cause = " ".join(str(err).split())[:300]
        if not is_local and ("download" in cause.lower() or "hub" in cause.lower()):
            raise ClipUnavailableError(
                f"CLIP {spec} is not on this machine and could not be fetched ({cause}); fetch it "
                "once while online, or give weights in a file"
            ) from err
        raise ModelFormatError(
            f"CLIP {spec} cannot be loaded: {type(err).__name__}: {cause}; the weights must be "
            "those of this architecture, undamaged"
        ) from err
