"""Captions that a model would write itself: the text half of the joint sequence, drawn.

The model has learnt how the captions of its training go on, so it can finish one, or say what may
be asked of it. Axes: g captions, i tokens so far, t caption positions, v caption vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dalle.captions import CaptionTokenizer
from dalle.config import SamplingConfig, check_suggestions
from dalle.prompts import check_prompt, normalise
from dalle.sampling import draw, gumbel_noise
from dalle.seeds import generator
from dalle.transformer import JointTransformer

_TRIES = 4
"""Captions drawn, at most, for each that is asked for: some come twice."""


class CaptionSampler:
    """Draws captions; keeps nothing between calls."""

    def __init__(
        self, transformer: JointTransformer, tokenizer: CaptionTokenizer, device: torch.device
    ) -> None:
        """Draw with a model that is on `device`."""
        self._transformer = transformer
        self._tokenizer = tokenizer
        self._device = device

    @torch.inference_mode()
    def suggest(
        self,
        begin: str = "",
        *,
        count: int = 8,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 0.95,
    ) -> list[str]:
        """Captions that begin so, each another, in the order in which they were drawn.

        Args:
            begin: First words; empty leaves all to the model. It goes on with another word, or
                with letters that the last one may have.
            count: How many, 1 to `MAX_CANDIDATES`; fewer come where the model repeats itself.
            seed: A caption depends on `begin`, this and the settings, not on how many are drawn.
            temperature: 0 (greedy, which has one caption to give) to 100, divides the logits.
            top_p: Keep the fewest tokens that hold this mass, over 0 and at most 1.

        Raises:
            TypeError: `begin` is not a string.
            ValueError: A setting is out of range, or `begin` leaves no room in a caption.
        """
        if not isinstance(begin, str):
            raise TypeError(f"begin must be a string, got {type(begin).__name__}")
        sampling = check_suggestions(count=count, seed=seed, temperature=temperature, top_p=top_p)
        begun = self._tokenizer.encode(check_prompt(begin)) if begin.strip() else []
        room = self._transformer.sequence.text_len
        if len(begun) >= room:
            raise ValueError(
                f"begin has {len(begun)} tokens, and this model's captions have at most {room}; "
                "shorten it"
            )
        found: dict[str, None] = {}
        for start in range(0, _TRIES * count, count):
            for ids in self._drawn(begun, range(start, start + count), seed, sampling):
                text = normalise(self._tokenizer.decode(ids))  # as it is read when it is drawn
                if text and "\ufffd" not in text:
                    found.setdefault(text)
            if len(found) >= count or temperature == 0:
                break
        return list(found)[:count]

    def _drawn(
        self, begun: Sequence[int], indices: range, seed: int, sampling: SamplingConfig
    ) -> list[list[int]]:
        """The tokens of captions `indices`, those they begin with included."""
        transformer = self._transformer
        end = transformer.sequence.text_vocab  # the class after the vocabulary ends a caption
        streams = [generator(seed, "caption", index, device=self._device) for index in indices]
        captions = [list(begun) for _ in indices]
        unended = list(range(len(indices)))
        while unended and len(captions[unended[0]]) < transformer.sequence.text_len:
            ids = torch.tensor([captions[one] for one in unended], dtype=torch.int64)  # g i
            logits = transformer.caption_logits(ids.to(self._device))  # g v
            noise = gumbel_noise((logits.shape[-1],), [streams[one] for one in unended])
            chosen = draw(logits, noise, sampling).tolist()
            going_on = [pair for pair in zip(unended, chosen, strict=True) if pair[1] != end]
            for one, token in going_on:
                captions[one].append(token)
            unended = [one for one, _ in going_on]
        return captions
