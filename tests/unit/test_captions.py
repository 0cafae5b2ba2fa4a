"""Captions to tokens and back, for any Unicode."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from dalle.captions import CaptionTokenizer
from dalle.errors import ModelFormatError
from dalle.prompts import MAX_CAPTION_CHARS, check_prompt, normalise

CAPTIONS = ["a fox on a blue background", "two foxes", "a small fox next to a pizza"] * 3
TOKENIZER = CaptionTokenizer.train(CAPTIONS, 300)

# A zoo of what broke earlier systems: joined emoji, flags, right-to-left marks, composed Hangul,
# combining marks in the wrong order, characters of four bytes.
ZOO = [
    "👩🏽‍🚀",
    "🇧🇷 flag",
    "\u200fשלום",
    "각",
    "a\u0327\u0301",
    "𝔣ox",
    "ﬀ",
    "İstanbul",
    "ΑΣ",
    "½ €",
]


def stored(**changes: object) -> Tokenizer:
    """TOKENIZER's file with top-level keys of its model replaced."""
    content = json.loads(TOKENIZER._tokenizer.to_str())
    content["model"] |= changes
    return Tokenizer.from_str(json.dumps(content))


# ---------------------------------------------------------------------------------- normalising


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A Fox", "a fox"),
        ("  a \t fox\r\n on\x0bice ", "a fox on ice"),
        ("nul\x00in\x07side", "nulinside"),
        ("next\x85line", "next line"),
        ("cafe\u0301", "caf\u00e9"),
        ("e\x00\u0301", "\u00e9"),  # the control character kept the two apart
        ("\u3000wide\u2003space\u00a0", "wide space"),
        ("\n\t\x00", ""),
    ],
)
def test_normalise_by_hand(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@given(st.text())
def test_normalised_text_is_clean_and_stays_as_it_is(text: str) -> None:
    clean = normalise(text)
    assert normalise(clean) == clean
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(character) == "Cc" for character in clean)
    assert clean == clean.strip()
    assert "  " not in clean


def test_lone_surrogate_is_named_with_its_place() -> None:
    with pytest.raises(ValueError, match=r"lone surrogate U\+D83E at character 2.*as UTF-8"):
        normalise("a \ud83e fox")


def test_prompt_is_normalised() -> None:
    assert check_prompt(" A  Fox\n") == "a fox"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "must not be empty, got ''; write what to draw"),
        (" \n\x00", "must not be empty"),
        ("x" * 100_000, "at most 2,000 characters, got 100,000; shorten it"),
        ("\udc00", "lone surrogate"),
    ],
)
def test_bad_prompts_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_prompt(prompt)


def test_prompt_of_a_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a string, got int"):
        check_prompt(7)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- encode and decode


@given(st.text(max_size=200))
def test_any_text_survives_a_round_trip(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == normalise(text)


@pytest.mark.parametrize("text", ZOO)
def test_the_zoo_survives_a_round_trip(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == normalise(text)


def test_a_word_has_the_same_tokens_at_the_start_and_inside() -> None:
    assert TOKENIZER.encode("a fox") == TOKENIZER.encode("a") + TOKENIZER.encode("fox")


def test_training_merges_frequent_words_into_one_token() -> None:
    assert len(TOKENIZER.encode("fox")) == 1
    assert len(TOKENIZER.encode("xof")) == 4, "an unseen word is its bytes and the space before"


def test_training_twice_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("first", "second"):
        CaptionTokenizer.train(CAPTIONS, 300).save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_vocabulary_holds_the_bytes_and_no_more_than_asked() -> None:
    assert CaptionTokenizer.train([], 300).vocab_size == 256
    assert CaptionTokenizer.train(CAPTIONS, 260).vocab_size == 260
    with pytest.raises(ValueError, match="at least 256"):
        CaptionTokenizer.train(CAPTIONS, 255)


def test_an_endless_caption_is_bounded_before_it_is_encoded() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("x" * 1_000_000)) == "x" * MAX_CAPTION_CHARS


def test_empty_captions_have_no_tokens() -> None:
    assert TOKENIZER.encode(" \n") == []
    assert TOKENIZER.encode_dropout("", 0.5, np.random.default_rng(0)) == []
    assert TOKENIZER.decode([]) == ""


def test_decoding_a_pad_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie in 0 to \d+, got 300; remove pads"):
        TOKENIZER.decode([1, 300])


# ---------------------------------------------------------------------------------------- dropout


@given(st.text(max_size=60) | st.sampled_from(CAPTIONS + ZOO), st.integers(0, 2**32))
def test_no_dropout_equals_encode(text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert TOKENIZER.encode_dropout(text, 0.0, rng) == TOKENIZER.encode(text)


@given(st.text(max_size=60) | st.sampled_from(CAPTIONS), st.floats(0, 1), st.integers(0, 2**32))
@settings(max_examples=50)
def test_dropout_never_changes_the_text(text: str, probability: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = TOKENIZER.encode_dropout(text, probability, rng)
    assert TOKENIZER.decode(ids) == normalise(text)


def test_full_dropout_gives_bytes() -> None:
    ids = TOKENIZER.encode_dropout("fox é", 1.0, np.random.default_rng(0))
    assert len(ids) == len(" fox é".encode())


def test_dropout_follows_its_generator() -> None:
    def several(seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [TOKENIZER.encode_dropout(CAPTIONS[0], 0.3, rng) for _ in range(8)]

    assert several(0) == several(0)
    assert several(0) != several(1)
    assert len({tuple(ids) for ids in several(0)}) > 1


def merged_plainly(word: str, probability: float, rng: np.random.Generator) -> list[str]:
    """Algorithm 1 of the paper as it is written: every pair is looked at before every merge."""
    symbols, ranks = list(word), TOKENIZER._ranks
    while len(symbols) > 1:
        draws = rng.random(len(symbols) - 1)
        pairs = [*zip(symbols, symbols[1:], draws, strict=False)]
        possible = [
            (ranks[left, right], place)
            for place, (left, right, draw) in enumerate(pairs)
            if (left, right) in ranks and draw >= probability
        ]
        if not possible:
            break
        _, place = min(possible)
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    return symbols


@given(st.text("Ġaefhnorstux", max_size=40), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 99))
def test_merges_are_those_of_the_paper(word: str, probability: float, seed: int) -> None:
    fast, plain = (np.random.default_rng(seed) for _ in range(2))
    assert TOKENIZER._merge(word, probability, fast) == merged_plainly(word, probability, plain)


def test_dropout_skips_a_merge_as_often_as_asked() -> None:
    """`" a"` is one merge, so it stays apart with exactly the given probability.

    Bounds are six deviations of 4,000 draws, passed by chance once in 5e8 seeds.
    """
    assert len(TOKENIZER.encode("a")) == 1
    rng = np.random.default_rng(0)
    apart = sum(len(TOKENIZER.encode_dropout("a", 0.25, rng)) == 2 for _ in range(4000))
    assert apart == pytest.approx(1000, abs=6 * (4000 * 0.25 * 0.75) ** 0.5)


# ------------------------------------------------------------------------------------ fit to length


def test_fit_leaves_short_captions_and_counts_cuts() -> None:
    ids = TOKENIZER.encode("a small fox")
    assert TOKENIZER.fit(ids, len(ids)) == (ids, False)
    assert TOKENIZER.fit(ids, 1) == (ids[:1], True)


def test_fit_never_cuts_inside_a_character() -> None:
    ids = TOKENIZER.encode("a 🦊")  # " a", then a space and the four bytes of the face
    assert len(ids) == 6
    for text_len in (2, 3, 4, 5):
        assert TOKENIZER.fit(ids, text_len) == (ids[:2], True)
    assert TOKENIZER.fit(ids, 6) == (ids, False)


@given(st.text(max_size=40), st.integers(1, 12))
def test_fit_keeps_a_prefix_of_the_text(text: str, text_len: int) -> None:
    kept, _ = TOKENIZER.fit(TOKENIZER.encode(text), text_len)
    assert len(kept) <= text_len
    assert normalise(text).startswith(TOKENIZER.decode(kept))


# ------------------------------------------------------------------------------------------- files


def test_saved_tokenizer_loads_equal_and_without_dropout(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    loaded = CaptionTokenizer.load(path)
    assert loaded.vocab_size == TOKENIZER.vocab_size
    for caption in CAPTIONS + ZOO:
        assert loaded.encode(caption) == TOKENIZER.encode(caption)
    assert json.loads(path.read_text())["model"]["dropout"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the caption tokenizer"),
        (b"\xff\xfe", "cannot read the caption tokenizer"),
        (b"{}", "is not a tokenizer.json"),
        (b" " * (17 * 1024 * 1024), r"17,825,792 bytes, the limit is 16,777,216"),
        (Tokenizer(models.WordLevel({"fox": 0}, unk_token="fox")).to_str().encode(), "be a BPE"),
        (Tokenizer(models.BPE()).to_str().encode(), "all 256 bytes, 256 are missing"),
        (stored(dropout=0.1).to_str().encode(), "stores dropout 0.1"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=message) as caught:
        CaptionTokenizer.load(path)
    assert str(path) in str(caught.value)


def test_ids_with_a_gap_are_refused() -> None:
    vocab = dict(TOKENIZER._ids)
    vocab[max(vocab, key=vocab.__getitem__)] += 1
    with pytest.raises(ModelFormatError, match="without a gap"):
        CaptionTokenizer(stored(vocab=vocab))


def test_symbols_that_are_no_bytes_are_refused() -> None:
    vocab = {**TOKENIZER._ids, "狐": TOKENIZER.vocab_size}
    with pytest.raises(ModelFormatError, match="must be byte-level"):
        CaptionTokenizer(stored(vocab=vocab))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"pre_tokenizer": None}, "must split text by bytes, got None"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "must split text by bytes"),
        (
            {
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": True,
                }
            },
            "a space before each word",
        ),
        ({"normalizer": {"type": "Lowercase"}}, "has normalizer of its own"),
        (
            {
                "truncation": {
                    "direction": "Right",
                    "max_length": 2,
                    "strategy": "LongestFirst",
                    "stride": 0,
                }
            },
            "has truncation of its own",
        ),
    ],
)
def test_steps_that_would_change_a_caption_are_refused(
    step: dict[str, object], message: str
) -> None:
    """One that turned foxes into cats was once taken for ours."""
    content = json.loads(TOKENIZER._tokenizer.to_str()) | step
    with pytest.raises(ModelFormatError, match=message):
        CaptionTokenizer(Tokenizer.from_str(json.dumps(content)))
