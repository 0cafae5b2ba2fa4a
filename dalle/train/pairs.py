"""Pictures with their captions, in the groups in which CLIP compares them.

Axes: t caption tokens; h w grid rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from dalle.captions import CaptionTokenizer
from dalle.clip import clip_text_ids
from dalle.data.drawn import DrawnPictures
from dalle.data.order import Draw
from dalle.data.pictures import Fault, Picture, PictureSet
from dalle.errors import DataError
from dalle.model_config import ClipConfig
from dalle.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One sample: a picture and its caption's tokens."""

    picture: Picture
    text_ids: Tensor
    """Shape (t), int64, the end token included."""
    drawn: Tensor | None = None
    """What a model drew for the caption: its token grid, shape (h, w), int64."""


class PairGroups(Dataset[list[Pair | Fault]]):
    """Pictures with their captions, in groups that were made to differ in one thing only."""

    def __init__(
        self,
        pictures: PictureSet,
        tokenizer: CaptionTokenizer,
        *,
        config: ClipConfig,
        together: int,
        bpe_dropout: float,
        drawn: DrawnPictures | None = None,
    ) -> None:
        """Groups of `pictures`.

        Args:
            pictures: In an order in which what belongs together stands together.
            tokenizer: Cuts captions into tokens.
            config: Gives the text length.
            together: Pictures in a group.
            bpe_dropout: Probability that a merge is skipped.
            drawn: Pictures that a model drew for some of the captions.
        """
        self.pictures = pictures
        self.tokenizer = tokenizer
        self.config = config
        self.together = together
        self.bpe_dropout = bpe_dropout
        self.drawn = drawn

    def __len__(self) -> int:
        return len(self.pictures) // self.together

    def __getitem__(self, draw: Draw) -> list[Pair | Fault]:
        first = draw.index * self.together
        return [
            self._pair(Draw(index=index, epoch=draw.epoch))
            for index in range(first, first + self.together)
        ]

    def _pair(self, draw: Draw) -> Pair | Fault:
        picture = self.pictures[draw]
        if isinstance(picture, Fault):
            return picture
        seed = derive_seed(self.pictures.seed, "caption", draw.epoch, draw.index)
        rng = np.random.default_rng(seed)
        try:
            ids = self.tokenizer.encode_dropout(picture.caption, self.bpe_dropout, rng)
            drawn = self.drawn.for_caption(picture.caption, rng) if self.drawn else None
        except (ValueError, DataError) as err:
            return Fault(key=picture.key, reason=str(err))
        fitted, _ = self.tokenizer.fit(ids, self.config.text_len - 1)
        vocab = self.tokenizer.vocab_size
        text_ids = clip_text_ids(fitted, config=self.config, text_vocab=vocab)
        return Pair(picture=picture, text_ids=text_ids, drawn=drawn)
