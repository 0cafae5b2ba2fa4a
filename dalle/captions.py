"""Captions: cleaned text in, token ids out, and back.

A caption is normalised (Unicode NFC, no control characters, single spaces, lower case) and cut
into tokens by byte-level BPE, so every Unicode string has tokens and every token sequence of a
caption decodes to exactly that caption.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dalle.errors import ModelFormatError
from dalle.prompts import MAX_CAPTION_CHARS, normalise
from dalle.whole_file import write_whole

_MAX_FILE_BYTES = 16 * 1024 * 1024
_MAX_RAW_CHARS = 8 * MAX_CAPTION_CHARS  # NFC is quadratic in a run of combining marks


class CaptionTokenizer:
    """Byte-level BPE of normalised captions.

    Each word is encoded with the space before it, and a caption's first word with a space of its
    own that `decode` takes off again: a word has the same tokens wherever it stands.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Wrap a byte-level BPE `tokenizer`; use `train` or `load` to get one.

        Raises:
            ModelFormatError: The tokenizer is of another kind, or its tables contradict each other.
        """
        whole = json.loads(tokenizer.to_str())
        model = whole["model"]
        _check_model(model)
        _check_steps(whole)
        self._tokenizer = tokenizer
        self._ids: dict[str, int] = model["vocab"]
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
        byte_of = {symbol: byte for byte, symbol in enumerate(_byte_symbols())}
        self._bytes = [
            bytes(byte_of[symbol] for symbol in token)
            for token, _ in sorted(self._ids.items(), key=lambda item: item[1])
        ]

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int) -> CaptionTokenizer:
        """A tokenizer whose merges are the most frequent ones of `captions`.

        Args:
            captions: Training captions, normalised here.
            vocab_size: Entries wanted, at least 256; few captions may fill fewer.

        Returns:
            A tokenizer that knows all 256 bytes and up to `vocab_size` - 256 merges.

        Raises:
            ValueError: `vocab_size` has no room for the bytes.
        """
        if vocab_size < 256:
            raise ValueError(f"vocab_size must be at least 256 (the bytes), got {vocab_size}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=_byte_symbols(), show_progress=False
        )
        tokenizer.train_from_iterator(map(_clip, captions), trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> CaptionTokenizer:
        """The tokenizer stored in the `tokenizer.json` at `path`.

        Raises:
            ModelFormatError: The file is missing, too large, damaged or of another kind.
        """
        try:
            size = path.stat().st_size
            if size > _MAX_FILE_BYTES:
                raise ModelFormatError(
                    f"{path} is no caption tokenizer of ours: {size:,} bytes, the limit is "
                    f"{_MAX_FILE_BYTES:,}"
                )
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise ModelFormatError(f"cannot read the caption tokenizer {path}: {err}") from err
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as err:  # tokenizers raises plain Exception
            raise ModelFormatError(f"{path} is not a tokenizer.json: {err}") from err
        try:
            return cls(tokenizer)
        except ModelFormatError as err:
            raise ModelFormatError(f"{path}: {err}") from err

    def save(self, path: Path) -> None:
        """Write `tokenizer.json` to `path`, completely or not at all."""
        write_whole(path, self._tokenizer.to_str(pretty=True).encode())

    def same_as(self, other: CaptionTokenizer) -> bool:
        """Whether both cut every caption into the same tokens."""
        return self._ids == other._ids and self._ranks == other._ranks

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary; ids run from 0 to this minus 1."""
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, normalised and cut to its first `MAX_CAPTION_CHARS` characters.

        Raises:
            ValueError: `text` holds a lone surrogate.
        """
        clipped = _clip(text)
        if not clipped:
            return []
        ids: list[int] = self._tokenizer.encode(clipped, add_special_tokens=False).ids
        return ids

    def encode_dropout(self, text: str, probability: float, rng: np.random.Generator) -> list[int]:
        """Token ids of `text` when each possible merge is skipped with `probability`.

        The same caption gets different tokens each time, which regularises training. The merges
        are applied here because the library's own dropout cannot be seeded.

        Args:
            text: A caption, treated as by `encode`.
            probability: Chance that a merge is skipped at each step; 0 equals `encode`, 1 gives
                single bytes.
            rng: Source of all randomness.

        Returns:
            Token ids; they decode to the same text as those of `encode`.

        Raises:
            ValueError: `text` holds a lone surrogate.

        Source: Provilkov et al., arXiv:1910.13267, algorithm 1.
        """
        clipped = _clip(text)
        if not clipped:
            return []
        pre_tokenizer = self._tokenizer.pre_tokenizer
        assert pre_tokenizer is not None, "_check_steps saw a byte-level one"
        return [
            self._ids[symbol]
            for word, _ in pre_tokenizer.pre_tokenize_str(clipped)
            for symbol in self._merge(word, probability, rng)
        ]

    def spell(self, other: CaptionTokenizer) -> list[list[int]]:
        """For each entry of another vocabulary, in order of its ids, the tokens that spell it."""
        entries = sorted(other._ids, key=other._ids.__getitem__)
        whole = np.random.default_rng(0)  # no merge is skipped, whatever it draws
        return [[self._ids[part] for part in self._merge(entry, 0.0, whole)] for entry in entries]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; bytes that are no valid UTF-8 become U+FFFD.

        Raises:
            ValueError: An id lies outside the vocabulary, as pads do.
        """
        return self._join(ids).decode("utf-8", errors="replace").removeprefix(" ")

    def fit(self, ids: Sequence[int], text_len: int) -> tuple[list[int], bool]:
        """`ids` cut to at most `text_len` tokens, and whether anything was cut.

        The cut falls between tokens and never inside a character, so it may leave fewer tokens.
        """
        if len(ids) <= text_len:
            return list(ids), False
        kept = list(ids[:text_len])
        while kept and not _is_utf8(self._join(kept)):
            kept.pop()
        return kept, True

    def _join(self, ids: Sequence[int]) -> bytes:
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise ValueError(
                    f"a caption token must lie in 0 to {self.vocab_size - 1}, got {token}; "
                    "remove pads before decoding"
                )
        return b"".join(self._bytes[token] for token in ids)

    def _merge(self, word: str, probability: float, rng: np.random.Generator) -> list[str]:
        """Tokens of one word: the best merge that was not skipped, until none is left."""
        symbols = list(word)
        unknown = len(self._ranks)
        # Of each pair of neighbours. A word may be a whole caption, where no spaces are written.
        ranks = [self._ranks.get(pair, unknown) for pair in pairwise(symbols)]
        while ranks:
            best, where = unknown, -1
            for index, draw in enumerate(rng.random(len(ranks)).tolist()):
                if ranks[index] < best and draw >= probability:
                    best, where = ranks[index], index
            if where < 0:
                break
            symbols[where : where + 2] = [symbols[where] + symbols[where + 1]]
            del ranks[where]
            for left in range(max(0, where - 1), min(where + 1, len(ranks))):
                ranks[left] = self._ranks.get((symbols[left], symbols[left + 1]), unknown)
        return symbols


def _clip(text: str) -> str:
    """`text` normalised and bounded, so that no caption can cost more than a little time."""
    return normalise(text[:_MAX_RAW_CHARS])[:MAX_CAPTION_CHARS].rstrip()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _byte_symbols() -> list[str]:
    """The printable character that byte-level BPE writes for each byte, by byte value.

    Bytes that are printable Latin-1 characters stand for themselves; the others are written with
    the characters from U+0100 on, in order (the convention of GPT-2's vocabulary files).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _check_steps(tokenizer: Mapping[str, Any]) -> None:
    """Raise ModelFormatError if text is to be changed, cut, padded or split in another way."""
    before = tokenizer.get("pre_tokenizer")
    if not isinstance(before, dict) or before.get("type") != "ByteLevel":
        raise ModelFormatError(f"the tokenizer must split text by bytes, got {before!r:.60}")
    if not (before.get("add_prefix_space") and before.get("use_regex", True)):
        raise ModelFormatError("the tokenizer must put a space before each word, got one without")
    for step in ("normalizer", "truncation", "padding", "added_tokens"):
        if tokenizer.get(step):
            raise ModelFormatError(
                f"the tokenizer has {step} of its own, which captions are not read with; remove it"
            )


def _check_model(model: dict[str, object]) -> None:
    """Raise ModelFormatError unless `model` is a deterministic byte-level BPE of whole ids."""
    vocab, merges = model.get("vocab"), model.get("merges")
    if model.get("type") != "BPE" or not isinstance(vocab, dict) or not isinstance(merges, list):
        raise ModelFormatError(f"the tokenizer must be a BPE, got {model.get('type')!r}")
    if model.get("dropout"):
        raise ModelFormatError(
            f"the tokenizer stores dropout {model['dropout']}, so it would be random; remove it"
        )
    symbols = set(_byte_symbols())
    if missing := symbols - vocab.keys():
        raise ModelFormatError(f"the tokenizer must know all 256 bytes, {len(missing)} are missing")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ModelFormatError("the tokenizer's ids must run from 0 without a gap")
    if not set("".join(vocab)) <= symbols:
        raise ModelFormatError("the tokenizer must be byte-level, got symbols that are no bytes")
