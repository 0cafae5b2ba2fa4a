"""The captions of transforms against the length that the bundled model reads."""

from __future__ import annotations

import pytest

from dalle.captions import CaptionTokenizer
from dalle.data.emoji.subjects import core_names
from dalle.folders import model_folder
from dalle.schema import read_object
from dalle.transforms import TRANSFORMS, transform_caption


@pytest.mark.parametrize("transform", [one.name for one in TRANSFORMS])
def test_no_transform_of_a_known_subject_is_cut(transform: str) -> None:
    """The paper's "2 panel image of ..." needs over 32 tokens for one subject in five."""
    folder = model_folder("emoji")
    tokenizer = CaptionTokenizer.load(folder / "tokenizer.json")
    sequence = read_object(folder / "config.json")["sequence"]
    assert isinstance(sequence, dict)
    captions = [transform_caption(transform, name) for name in (*core_names(), None)]
    longest = max(captions, key=lambda caption: len(tokenizer.encode(caption)))
    assert len(tokenizer.encode(longest)) <= sequence["text_len"], longest
