from __future__ import annotations

import pytest

from dalle.data.emoji.names import natural_name, plural, split_tone, with_adjective, with_article


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("fox", "a fox"),
        ("owl", "an owl"),
        ("hourglass", "an hourglass"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("ufo", "a ufo"),
        ("x-ray", "an x-ray"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("onion", "an onion"),
        ("euro banknote", "a euro banknote"),
        ("ewe", "a ewe"),
        ("bread", "bread"),
        ("french fries", "french fries"),
        ("santa claus", "santa claus"),
        ("revolving hearts", "revolving hearts"),
        ("pinched fingers with dark skin", "pinched fingers with dark skin"),
        ("face with horns", "a face with horns"),
        ("rhinoceros", "a rhinoceros"),
        ("cactus", "a cactus"),
        ("compass", "a compass"),
        ("statue of liberty", "the statue of liberty"),
        ("flag of france", "the flag of france"),
    ],
)
def test_articles(noun: str, expected: str) -> None:
    assert with_article(noun) == expected


def test_the_article_follows_the_adjective() -> None:
    assert with_adjective("orange", "fox") == "an orange fox"
    assert with_adjective("small", "owl") == "a small owl"
    assert with_adjective("small", "jeans") == "small jeans"


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("fox", "foxes"),
        ("cherry blossom", "cherry blossoms"),
        ("strawberry", "strawberries"),
        ("monkey", "monkeys"),
        ("computer mouse", "computer mice"),
        ("fallen leaf", "fallen leaves"),
        ("tooth", "teeth"),
        ("toothbrush", "toothbrushes"),
        ("snowman", "snowmen"),
        ("jellyfish", "jellyfish"),
        ("yo-yo", "yo-yos"),
        ("watch", "watches"),
        ("pot of food", "pots of food"),
        ("face with tears of joy", "faces with tears of joy"),
        ("face screaming in fear", "faces screaming in fear"),
        ("loudly crying face", "loudly crying faces"),
        ("sun behind cloud", "suns behind cloud"),
        ("person running", "people running"),
        ("curling stone", "curling stones"),
        ("office building", "office buildings"),
        ("scissors", None),
        ("bow and arrow", None),
        ("statue of liberty", None),
    ],
)
def test_plurals(noun: str, expected: str | None) -> None:
    assert plural(noun) == expected


@pytest.mark.parametrize(
    ("unicode_name", "is_flag", "expected"),
    [
        ("fox", False, "fox"),
        ("man artist medium-dark skin tone", False, "man artist with medium-dark skin"),
        (
            "women holding hands dark skin tone light skin tone",
            False,
            "women holding hands with dark and light skin",
        ),
        ("woman red hair", False, "woman with red hair"),
        ("man bald", False, "bald man"),
        ("person beard light skin tone", False, "person with a beard with light skin"),
        ("family man woman boy", False, "family of a man, a woman and a boy"),
        ("kiss woman man", False, "kiss between a woman and a man"),
        ("a button (blood type)", False, "a button blood type"),
        ("trinidad & tobago", True, "flag of trinidad and tobago"),
        ("georgia", True, "flag of georgia"),
        ("philippines", True, "flag of the philippines"),
        ("christmas island", True, "flag of christmas island"),
        ("cook islands", True, "flag of the cook islands"),
    ],
)
def test_natural_names(unicode_name: str, is_flag: bool, expected: str) -> None:
    assert natural_name(unicode_name, is_flag=is_flag) == expected


def test_tones_are_taken_off_whole() -> None:
    """A reader of "medium-dark" that sees "dark" first would leave "medium-" behind."""
    assert split_tone("cook medium-dark skin tone") == ("cook", "medium-dark")
    assert split_tone("handshake light skin tone medium skin tone") == (
        "handshake",
        "light and medium",
    )
    assert split_tone("cook") == ("cook", None)
