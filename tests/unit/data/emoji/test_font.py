from __future__ import annotations

from pathlib import Path

import pytest

from dalle.data.emoji import font as font_module
from dalle.data.emoji.font import EmojiFont, find_font
from dalle.errors import FontError


def test_a_missing_font_is_one_line_that_names_the_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(font_module, "PLACES", ())
    monkeypatch.setenv("PATH", "")  # no fontconfig either
    with pytest.raises(FontError) as caught:
        find_font()
    text = str(caught.value)
    assert "\n" not in text
    for remedy in ("fonts-noto-color-emoji", "google-noto-color-emoji-fonts", "macOS", "--font"):
        assert remedy in text


def test_a_named_file_must_exist_and_be_a_font(tmp_path: Path) -> None:
    with pytest.raises(FontError, match=r"nowhere\.ttf does not exist"):
        find_font(tmp_path / "nowhere.ttf")
    (tmp_path / "a.ttf").write_bytes(b"no font")
    with pytest.raises(FontError, match=r"a\.ttf cannot be opened as a bitmap emoji font"):
        find_font(tmp_path / "a.ttf")


def test_only_single_drawings_count(font: EmojiFont) -> None:
    assert font.draws("\U0001f98a")  # fox
    assert font.draws("\U0001f468\U0001f3fd\u200d\U0001f680")  # man astronaut, medium skin
    assert not font.draws("\U0001f98a\U0001f98a")  # two drawings
    assert not font.draws("\U0001f98a\u200d\U0001f355")  # a joined fox and pizza: no such emoji
    assert not font.draws("\U0001fb00")  # a code point that is no emoji
    assert not font.draws("A")


def test_drawings_are_cut_to_what_is_visible(font: EmojiFont) -> None:
    raster = font.raster("\U0001f98a")
    assert raster.mode == "RGBA"
    assert raster.getchannel("A").getbbox() == (0, 0, *raster.size)
    assert max(raster.size) > 60


def test_a_font_is_opened_once_until_its_file_changes(font: EmojiFont, tmp_path: Path) -> None:
    """Each judge once drew every emoji for itself."""
    copy = tmp_path / font.path.name
    copy.write_bytes(font.path.read_bytes())
    first = find_font(copy)
    assert find_font(copy) is first
    copy.write_bytes(font.path.read_bytes() + b"\0")
    assert find_font(copy) is not first
    copy.unlink()
    with pytest.raises(FontError, match="does not exist"):
        find_font(copy)
