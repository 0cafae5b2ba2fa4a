from __future__ import annotations

from collections import Counter

from dalle.data.emoji.palette import COLOUR_WORDS
from dalle.data.emoji.subjects import Subject


def test_every_name_and_alias_names_one_subject(
    core: dict[str, Subject], everything: tuple[Subject, ...]
) -> None:
    for subjects in (core.values(), everything):
        names = Counter(name for s in subjects for name in (s.name, *s.aliases))
        assert [name for name, count in names.items() if count > 1] == []
        assert all(name == name.lower().strip() for name in names)


def test_core_is_what_its_file_lists(core: dict[str, Subject]) -> None:
    assert 300 <= len(core) <= 400
    assert core["fox"].glyph == "\U0001f98a"
    assert core["automobile"].aliases == ("car",)
    assert (core["padlock"].unicode_name, core["padlock"].aliases) == ("locked", ("lock",))
    assert core["mouse"].plural == "mice"
    assert core["fox"].group == "animals"
    glyphs = {subject.glyph for subject in core.values()}
    assert not any("\U0001f1e6" <= point <= "\U0001f1ff" for glyph in glyphs for point in glyph)
    assert not any("\U0001f3fb" <= point <= "\U0001f3ff" for glyph in glyphs for point in glyph)


def test_all_holds_core_flags_and_tones(
    core: dict[str, Subject], everything: tuple[Subject, ...]
) -> None:
    subjects = {subject.name: subject for subject in everything}
    assert core.items() <= subjects.items()
    assert subjects["flag of georgia"].unicode_name == "georgia"
    artist = subjects["man artist with dark skin"]
    assert (artist.profession, artist.tone) == ("man artist", "dark")
    assert subjects["man artist"].tone is None
    assert len(subjects) > 3000


def test_no_alias_holds_a_colour_that_paint_could_contradict(core: dict[str, Subject]) -> None:
    """ "a blue brown bear" was once a caption."""
    for subject in core.values():
        if COLOUR_WORDS.isdisjoint(subject.name.split()):
            for alias in subject.aliases:
                assert COLOUR_WORDS.isdisjoint(alias.split()), alias
