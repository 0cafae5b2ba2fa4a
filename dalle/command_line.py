"""The words typed after a verb, sorted into files, flags and words that belong to no flag.

Nothing is converted here; unknown flags and missing values are refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from dalle.folders import at_home
from dalle.options import Option, nearest, sections


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandLine:
    """What was typed, before any value is understood."""

    files: tuple[Path, ...]
    flags: Mapping[str, str]
    positionals: tuple[str, ...]
    wants_help: bool
    wants_config: bool


def split(
    argv: Sequence[str], table: Sequence[Option], *, prog: str, positional: str | None
) -> CommandLine:
    """The sorted words of a command line.

    A dash and an underscore mean the same in a flag's name, and a true/false flag alone means
    true. Everything after `--` belongs to no flag.

    Args:
        argv: Everything after the verb.
        table: The options that exist.
        prog: The command as typed, for remedies.
        positional: Name of the words that belong to no flag; None refuses them.

    Raises:
        ValueError: A flag is unknown or lacks its value, or a word is not expected.
    """
    by_key = {option.key: option for option in table}
    files: list[Path] = []
    flags: dict[str, str] = {}
    words: list[str] = []
    asked: set[str] = set()
    rest = _Words(argv)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if word == "--":
            words.extend(rest)
        elif word in ("-h", "--help", "--print_config", "--print-config"):
            asked.add(key)
        elif not word.startswith("--"):
            _refuse_short_flag(word, positional=positional)
            words.append(word)
        elif key == "config":
            files.append(at_home(value if equals else rest.value_of("--config", "a path")))
        elif key in by_key:
            flags[key] = value if equals else rest.value_of_option(by_key[key])
        else:
            _refuse_flag(key, table, prog=prog)
    if words and positional is None:
        raise ValueError(f"unexpected word {words[0]!r}; settings are given as --key value")
    return CommandLine(
        files=tuple(files),
        flags=flags,
        positionals=tuple(words),
        wants_help=bool(asked & {"help", "_h"}),
        wants_config="print_config" in asked,
    )


_TRUTHS = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
"""As YAML spells them."""


class _Words:
    """The words of a command line, taken one by one."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._left = list(argv)

    def __iter__(self) -> Iterator[str]:
        while self._left:
            yield self._left.pop(0)

    def value_of(self, flag: str, rule: str) -> str:
        """The word after a flag that must have a value."""
        if not self._left or self._left[0].startswith("--"):
            raise ValueError(f"{flag} needs a value, {rule}: {flag} VALUE")
        return self._left.pop(0)

    def value_of_option(self, option: Option) -> str:
        """The value of an option; a truth value may be left out and is then true.

        Numbers of a list may follow one by one.
        """
        if option.is_numbers:
            numbers = [self.value_of(f"--{option.key}", option.rule)]
            while self._left and _is_number(self._left[0]):
                numbers.append(self._left.pop(0))
            one_by_one = all(map(_is_number, numbers))
            return f"[{', '.join(numbers)}]" if one_by_one else numbers[0]
        if option.kind is not bool:
            return self.value_of(f"--{option.key}", option.rule)
        return self._left.pop(0) if self._left and self._left[0] in _TRUTHS else "true"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _refuse_short_flag(word: str, *, positional: str | None) -> None:
    if re.match(r"-[A-Za-z]", word):
        remedy = f"; put {positional} that begin with a dash after --" if positional else ""
        raise ValueError(f"unknown flag {word}, flags begin with two dashes{remedy}")


def _refuse_flag(key: str, table: Sequence[Option], *, prog: str) -> NoReturn:
    if key in sections(table):
        inner = next(option.key for option in table if option.key.startswith(f"{key}."))
        raise ValueError(f"--{key} is a section; set one of its keys, such as --{inner} VALUE")
    known = [option.key for option in table] + ["config", "print_config", "help"]
    match = nearest(key, known)
    remedy = f"did you mean --{match}?" if match else f"see `{prog} --help`"
    raise ValueError(f"unknown flag --{key}; {remedy}")
