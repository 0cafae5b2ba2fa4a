"""Whatever a browser or a program sends: settings in range, or a fault that names the field."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle.config import SamplingConfig
from dalle.page.faults import PageFault
from dalle.page.limits import Limits
from dalle.page.settings import RANKERS, DrawSettings, check_caption, draw_settings
from dalle.request import DrawOptions, check_request, split_options
from dalle.rerank import RankerName

LIMITS = Limits()
MODEL = SamplingConfig(temperature=0.8, top_k=None, top_p=0.85, guidance_scale=1.5)


def asked(**values: Any) -> DrawSettings:
    values.setdefault("caption", "a fox")
    return draw_settings(LIMITS, default=MODEL, codebook_size=32, grid=(4, 4), **values)


def test_what_is_left_out_is_the_models_and_the_pages_choice() -> None:
    settings = asked()
    assert settings.sampling == MODEL
    assert (settings.candidates, settings.keep, settings.seed) == (16, 4, 0)
    assert settings == asked(candidates=None, keep=None, seed=None, top_k=None, ranker=None)
    small = draw_settings(
        Limits(candidates=3), default=MODEL, codebook_size=32, grid=(4, 4), caption="a fox"
    )
    assert (small.candidates, small.keep) == (3, 3), "no more than the page allows"
    assert asked(candidates=2).keep == 2


def test_numbers_come_as_sliders_and_json_send_them() -> None:
    settings = asked(candidates=8.0, keep=2.0, seed=-7.0, top_k=16.0, temperature=1, keep_rows=2.0)
    assert (settings.candidates, settings.keep, settings.seed) == (8, 2, -7)
    assert settings.sampling == SamplingConfig(
        temperature=1.0, top_k=16, top_p=0.85, guidance_scale=1.5
    )
    assert all(type(value) is int for value in (settings.candidates, settings.seed))
    assert (settings.keep_rows, type(settings.keep_rows)) == (2, int)
    assert asked(top_k=0).sampling.top_k is None
    assert asked(keep_rows=0.25).keep_rows == 0.25


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"candidates": 10**6}, "candidates must be a whole number between 1 and 64, got 1000000"),
        ({"candidates": 0}, "candidates must be a whole number between 1 and 64, got 0"),
        ({"candidates": 2.5}, r"candidates must be a whole number .*, got 2\.5"),
        ({"candidates": math.nan}, "candidates must be a whole number .*, got nan"),
        ({"candidates": math.inf}, "candidates must be a whole number .*, got inf"),
        ({"candidates": "8"}, "candidates must be a whole number .*, got '8'"),
        ({"candidates": True}, "candidates must be a whole number .*, got True"),
        ({"candidates": 4, "keep": 5}, "keep must be a whole number between 1 and 4, got 5"),
        ({"seed": math.nan}, "seed must be a whole number, got nan"),
        ({"seed": 1 << 63}, r"seed must be a whole number below 2\^63 in size, got 922337"),
        ({"seed": 10**5000}, r"below 2\^63 in size, got a far larger number"),
        ({"seed": [1]}, r"seed must be a whole number, got \[1\]"),
        ({"temperature": -0.1}, "temperature must be between 0 .* and 100, got -0.1"),
        ({"temperature": math.nan}, "temperature must be between 0 .* and 100, got nan"),
        ({"temperature": math.inf}, "temperature must be between 0 .* and 100, got inf"),
        ({"temperature": 10**400}, "temperature must be a smaller number, got a far larger"),
        ({"temperature": "1"}, "temperature must be a number, got '1'"),
        ({"top_k": 33}, "top_k must be a whole number between 0 and 32, got 33"),
        ({"top_k": -1}, "top_k must be a whole number between 0 and 32, got -1"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
        ({"guidance_scale": 1e9}, "guidance_scale must be between 0 and 100"),
        ({"ranker": "best"}, "ranker must be one of clip, likelihood, none, got 'best'"),
        ({"ranker": ["clip"]}, "ranker must be one of"),
        ({"image": "a.png", "layout": "below"}, "layout must be one of top-half, place-on-top"),
        ({"image": "a.png", "crop": 7}, "crop must be one of center, top, pad, got 7"),
        ({"keep_rows": 4}, "keep_rows must be a fraction .* from 0 to 3, got 4"),
        ({"keep_rows": -1}, "keep_rows must be"),
        ({"keep_rows": math.nan}, "keep_rows must be .*, got nan"),
        ({"keep_rows": "half"}, "keep_rows must be a number, got 'half'"),
        ({"region": [0, 0, 1, 1]}, "region is the whole picture"),
        ({"region": [0, 0, 2, 1]}, "each from 0 to 1"),
        ({"region": [0, 0, 1, 10**400]}, "each from 0 to 1"),
        ({"region": [0, "a", 1, 1]}, "region must be a list of four numbers, left, top, right"),
        ({"region": "left"}, "region must be four numbers, got 'left'"),
        ({"region": [0, 0, 0.5, 1], "keep_rows": 2}, "leave keep_rows and the layout out"),
        ({"region": [0, 0, 0.5, 1], "layout": "place-on-top"}, "leave keep_rows and the layout"),
        ({"image": "a.png", "vary": "b.png"}, "one picture to go on from, not two"),
        ({"image": 3}, "image must be a picture's file, got 3"),
        ({"image": "/"}, "image must be a picture's file"),
        ({"caption": None}, "a caption must be text, got nothing; write what to draw"),
        ({"caption": {"a": 1}}, "a caption must be text"),
        ({"caption": " \n"}, "a caption must not be empty"),
        ({"caption": "x" * 1001}, "at most 1,000 characters, got 1,001; shorten it"),
        ({"caption": "a \ud800 fox"}, r"lone surrogate U\+D800"),
        ({"seed": "x" * 500}, "got 'x{59}…$"),
    ],
)
def test_what_is_out_of_range_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PageFault, match=message):
        asked(**values)


JUNK: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none()),
)  # fmt: skip
FIELDS = (
    "caption", "candidates", "keep", "seed", "temperature", "top_k", "top_p", "guidance_scale",
    "ranker", "image", "vary", "keep_rows", "layout", "crop", "region",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), JUNK))
def test_whatever_is_sent_is_drawable_or_refused(values: dict[str, Any]) -> None:
    """The pipeline's own door must never be the one that refuses."""
    try:
        settings = draw_settings(LIMITS, default=MODEL, codebook_size=32, grid=(4, 4), **values)
    except PageFault:
        return
    options = settings.options()
    candidates, keep, seed = (options.pop(name) for name in ("candidates", "keep", "seed"))
    options.pop("ranker", None)
    sampling, _ = split_options(DrawOptions(**options))  # type: ignore[typeddict-item]
    request = check_request(candidates, keep, seed=seed, default=SamplingConfig(), options=sampling)
    assert request.sampling == settings.sampling
    assert request.candidates <= LIMITS.candidates


def test_without_a_caption_a_picture_is_gone_on_from() -> None:
    assert asked(caption="  ", image="/tmp/upload/7/fox.png").caption is None
    assert asked(caption=None, vary=Path("/tmp/own.png")).caption is None
    assert asked(caption="a fox", image="x/fox.png").caption == "a fox"


def test_a_given_picture_is_named_without_the_servers_folders() -> None:
    settings = asked(image="/tmp/upload/7/fox.png")
    assert settings.image == "fox.png"
    assert settings.options()["layout"] == "top-half"
    assert "layout" not in asked(vary="fox.png").options()


def test_a_region_takes_the_place_of_rows() -> None:
    options = asked(image="fox.png", region=[0, 0, 0.5, 1]).options()
    assert options["region"] == (0.0, 0.0, 0.5, 1.0)
    assert "keep_rows" not in options
    assert "region" not in asked(vary="fox.png", region=[0, 0, 0.5, 1]).options()


def test_captions_stay_as_they_were_written() -> None:
    assert check_caption("  A <b>Fox</b> ", LIMITS) == "  A <b>Fox</b> "
    assert check_caption("x" * 1000, LIMITS) == "x" * 1000


def test_every_ranker_can_be_asked_for() -> None:
    assert set(RANKERS) == set(get_args(RankerName))
