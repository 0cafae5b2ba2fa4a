"""Natural English for emoji: articles, plurals, and Unicode names made into noun phrases."""

from __future__ import annotations

import re

# Nouns that take no article and are never counted: masses, plurals, one person.
_UNCOUNTED = frozenset(
    {
        "bacon", "blueberries", "books", "bread", "broccoli", "cherries", "chopsticks", "coral",
        "folded hands", "french fries", "fries", "garlic", "glasses", "gloves", "grapes",
        "headphones", "ice", "jeans", "maracas", "pancakes", "pasta", "paw prints", "popcorn",
        "ramen", "rice", "santa claus", "scissors", "shorts", "skis", "soap", "socks", "spaghetti",
        "sparkles", "sunglasses", "sushi", "theater masks", "thumbs up", "toilet paper", "wood",
        "yarn", "beans", "bubbles", "chains", "cheese", "chocolate", "clapping hands", "coffee",
        "beer", "curry rice", "dice", "eyes", "fireworks", "footprints", "houses", "lightning",
        "lungs", "milk", "money with wings", "peanuts", "salt", "thumbs down", "wine",
    }
)  # fmt: skip

_BARE_STARTS = ("kiss between", "men ", "women ", "people ", "santa claus")

_IRREGULAR = {
    "foot": "feet", "goose": "geese", "leaf": "leaves", "loaf": "loaves", "knife": "knives",
    "mouse": "mice", "ox": "oxen", "person": "people", "scarf": "scarves", "tooth": "teeth",
    "wolf": "wolves", "elf": "elves", "child": "children", "cactus": "cacti",
    "deer": "deer", "moose": "moose", "sheep": "sheep", "shrimp": "shrimp", "bison": "bison",
    "moai": "moai", "mango": "mangoes", "mosquito": "mosquitoes", "potato": "potatoes",
    "tomato": "tomatoes", "volcano": "volcanoes", "superhero": "superheroes",
}  # fmt: skip

# The noun of "face with tears of joy" stands before the first of these words.
_TAIL = re.compile(
    r" (?:with|without|of|on|in|at|over|behind|to|showing"
    r"|biking|blowing|dancing|holding|lifting|running|screaming|surfing|vomiting)\b"
)

# "tabs", but not "bus", "dress", "tennis" or "rhinoceros".
_PLURAL_ENDING = re.compile(r"(?<![sui])(?<!ero)s$")

_THE_COUNTRY = re.compile(
    r"^(united|british|isle of|central african)\b"
    r"|\b(islands|territory|territories|republic|netherlands|philippines|maldives|bahamas|gambia)$"
)

_TONE = re.compile(r" ?\b(medium-dark|medium-light|dark|light|medium) skin tone\b")
_HAIR = re.compile(r"^(man|woman|person) ((?:red|curly|white|blond) hair|bald|beard)\b")
_GROUP = re.compile(r"^(family|kiss|couple with heart) ((?:(?:man|woman|adult|child|boy|girl) ?)+)")
_AN = re.compile(r"(?!eu|ew|one\b|uni|ufo\b|us[ea]|uk)[aeiou]|hour|heir|x-ray")


def with_article(noun: str) -> str:
    """`noun` after "a", "an" or "the", or alone where English uses none ("bread")."""
    if _takes_no_article(noun):
        return noun
    if noun.startswith(("statue of liberty", "tokyo tower", "flag of ")):
        return f"the {noun}"
    return f"{'an' if _AN.match(noun) else 'a'} {noun}"


def with_adjective(adjective: str, noun: str) -> str:
    """`noun` described by `adjective`, with its article: "a small fox", "small jeans"."""
    if _takes_no_article(noun):
        return f"{adjective} {noun}"
    return f"{'an' if _AN.match(adjective) else 'a'} {adjective} {noun}"


def plural(noun: str) -> str | None:
    """The plural of `noun`; None where several of it have no natural name."""
    if noun in _UNCOUNTED or " and " in noun or noun.startswith(("statue of", "tokyo tower")):
        return None
    head, rest = _split_head(noun)
    before, _, last = head.rpartition(" ")
    return f"{before} {_plural_word(last)}{rest}".lstrip()


def _split_head(noun: str) -> tuple[str, str]:
    """The part of `noun` that ends in its main word, and what follows."""
    tail = _TAIL.search(noun)
    return (noun[: tail.start()], noun[tail.start() :]) if tail else (noun, "")


def _takes_no_article(noun: str) -> bool:
    if noun in _UNCOUNTED or noun.startswith(_BARE_STARTS):
        return True
    return _PLURAL_ENDING.search(_split_head(noun)[0]) is not None


def _plural_word(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("man"):
        return f"{word[:-3]}men"
    if word.endswith("fish"):
        return word
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou-":
        return f"{word[:-1]}ies"
    return f"{word}s"


def split_tone(unicode_name: str) -> tuple[str, str | None]:
    """A Unicode name without its skin tones, and the tones ("dark", "dark and light") or None."""
    tones = _TONE.findall(unicode_name)
    return _TONE.sub("", unicode_name), " and ".join(tones) or None


def natural_name(unicode_name: str, *, is_flag: bool) -> str:
    """A Unicode name as a speaker would say it, in lower case, before any article.

    Args:
        unicode_name: English name, lower case, with spaces, such as "man artist dark skin tone".
        is_flag: Whether it is the name of a country, region or union whose flag is drawn.
    """
    name = unicode_name.replace(" & ", " and ").replace("(", "").replace(")", "")
    if is_flag:
        return f"flag of {'the ' if _THE_COUNTRY.search(name) else ''}{name}"
    name, tone = split_tone(name)
    name = _HAIR.sub(_describe_hair, name)
    name = _GROUP.sub(_describe_group, name)
    return f"{name} with {tone} skin" if tone else name


def _describe_hair(match: re.Match[str]) -> str:
    who, what = match.groups()
    if what == "bald":
        return f"bald {who}"
    return f"{who} with {'a beard' if what == 'beard' else what}"


def _describe_group(match: re.Match[str]) -> str:
    kind, people = match.groups()
    each = [with_article(person) for person in people.split()]
    listed = f"{', '.join(each[:-1])} and {each[-1]}" if len(each) > 1 else each[0]
    return f"{kind} {'of' if kind == 'family' else 'between'} {listed}"
