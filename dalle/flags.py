"""Settings of a verb, read from `--config FILE.yaml` and `--section.key value` flags.

One dataclass tree is the Python API, the schema of the files and the list of flags. jsonargparse
turns text into typed values; around it this file makes sure that every mistake is answered by one
line that names the flag or file, the value, the rule and the remedy.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar, get_origin, runtime_checkable

import jsonargparse

from dalle.command_line import split
from dalle.flag_help import help_text
from dalle.folders import at_home
from dalle.options import Option, build, nearest, options, sections
from dalle.yaml_file import dump_yaml, read_yaml

Settings = TypeVar("Settings")

_LONGEST_SHOWN = 60


@runtime_checkable
class _ChecksTyped(Protocol):
    """Settings of which some exclude each other, whatever their values are.

    Values alone do not tell a flag that repeats the default from one that nobody typed.
    """

    def check_typed(self, names: Set[str]) -> None:
        """Refuse the command line if the flags called `names` do not go together.

        Raises:
            ValueError: They do not.
        """


def parse(
    root: type[Settings], argv: Sequence[str], *, prog: str, positional: str | None = None
) -> Settings:
    """Settings made from a command line.

    Args:
        root: The verb's dataclass in `dalle.config`.
        argv: Everything after the verb.
        prog: The command as typed, for help and remedies: `dalle train vae`.
        positional: Field that takes the words which belong to no flag, or the one such word if it
            is no tuple; None refuses such words.

    Raises:
        ValueError: A flag, file or value is wrong; one line saying what, value, rule and remedy.
        SystemExit: `--help` or `--print_config` was asked for and has been printed (status 0).
    """
    table = options(root)
    typed = split(argv, table, prog=prog, positional=positional)
    if typed.wants_help:
        _answer(help_text(root, table, prog=prog, positional=positional))
    flags, words = dict(typed.flags), typed.positionals
    takes_many = any(
        option.key == positional and get_origin(option.kind) is tuple for option in table
    )
    if positional is not None and words and not takes_many:
        if len(words) > 1:
            raise ValueError(
                f"{prog} takes one {positional}, got {len(words)}: {' '.join(words)}; call it once "
                "for each"
            )
        flags[positional] = words[0]
    values = _values(table, typed.files, flags)
    if positional is not None and words and takes_many:
        values[positional] = words
    if typed.wants_config:
        _answer(dump_yaml(_tree(table, values)))
    _require(table, values)
    settings = build(root, values)
    if isinstance(settings, _ChecksTyped):
        settings.check_typed(flags.keys())
    return settings


def load(root: type[Settings], path: Path) -> Settings:
    """Settings read from one YAML file, such as the resolved config of a run folder.

    Raises:
        ValueError: The file cannot be read, or a key or value is wrong.
    """
    table = options(root)
    values = _values(table, (path,), {})
    _require(table, values)
    return build(root, values)


def dump(settings: Any) -> str:
    """YAML of a settings instance, in the order of its fields; `load` reads it back unchanged."""
    return dump_yaml(_plain(settings))


# ------------------------------------------------------------------------------------- the values


def _values(
    table: Sequence[Option], files: Sequence[Path], flags: Mapping[str, str]
) -> dict[str, Any]:
    """Typed values by dotted key, defaults included."""
    written: dict[str, Any] = {}
    places: dict[str, str] = {}
    for path in files:
        found = _flatten(read_yaml(path), table, path=path)
        written |= found
        places |= {key: f"{path}: {key}" for key in found}
    parser = _parser(table)
    with _explained(table, written, places):
        values = parser.parse_object(written)
    with _explained(table, flags, places := places | {key: f"--{key}" for key in flags}):
        values = parser.parse_args([f"--{key}={text}" for key, text in flags.items()], values)
    by_key = dict(vars(values.as_flat()))
    typed = {**written, **flags}
    for option in table:
        if option.key in typed:
            _check(option, by_key[option.key], typed[option.key], place=places[option.key])
    return {
        key: at_home(value) if isinstance(value, Path) else value for key, value in by_key.items()
    }


def _parser(table: Sequence[Option]) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        exit_on_error=False, allow_abbrev=False, add_help=False, default_env=False
    )
    for option in table:
        parser.add_argument(f"--{option.key}", type=option.type, default=option.default)
    return parser


def _flatten(
    tree: Mapping[Any, Any], table: Sequence[Option], *, path: Path, prefix: str = ""
) -> dict[str, Any]:
    """Values of a file by dotted key; every key is one that exists."""
    keys, inner = [option.key for option in table], sections(table)
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in keys:
            found[key] = value
        elif key not in inner:
            match = nearest(key, [*keys, *(name for name in inner if f"{name}." != prefix)])
            remedy = f"did you mean {match}?" if match else f"known: {_siblings(prefix, keys)}"
            raise ValueError(f"{path}: unknown key {key}; {remedy}")
        elif isinstance(value, Mapping):
            found |= _flatten(value, table, path=path, prefix=f"{key}.")
        elif value is not None:
            raise ValueError(
                f"{path}: {key} is a section, got {_shown(value)}; write its keys indented below"
            )
    return found


def _siblings(prefix: str, keys: Sequence[str]) -> str:
    names = [key.removeprefix(prefix).split(".")[0] for key in keys if key.startswith(prefix)]
    return ", ".join(dict.fromkeys(names))


@contextlib.contextmanager
def _explained(
    table: Sequence[Option], typed: Mapping[str, Any], places: Mapping[str, str]
) -> Iterator[None]:
    """Says in our words what jsonargparse finds wrong with the values `typed`."""
    try:
        yield
    except argparse.ArgumentError as err:
        named = re.match(r'Parser key "([^"]+)"', err.message)
        for option in table:
            if named and option.key == named[1] and option.key in typed:
                raise _mistake(option, typed[option.key], place=places[option.key]) from err
        raise ValueError(" ".join(err.message.split())) from err


def _check(option: Option, value: Any, typed: Any, *, place: str) -> None:
    """Refuse what jsonargparse lets through: null, an empty path, a number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place} must be a finite number, got {_shown(typed)}")
    if (value is None and not option.nullable) or (option.kind is Path and typed == ""):
        raise _mistake(option, typed, place=place)


def _mistake(option: Option, typed: Any, *, place: str) -> ValueError:
    return ValueError(f"{place} must be {option.rule}, got {_shown(typed)}")


def _require(table: Sequence[Option], values: Mapping[str, Any]) -> None:
    missing = [option for option in table if option.required and values.get(option.key) is None]
    if missing:
        flags = ", ".join(f"--{option.key} {option.placeholder}" for option in missing)
        raise ValueError(f"missing {flags}; give it as a flag or in a file named by --config")


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


# --------------------------------------------------------------------------------------- printing


def _answer(text: str) -> NoReturn:
    sys.stdout.write(text)
    raise SystemExit(0)


def _tree(table: Sequence[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as nested mappings."""
    tree: dict[str, Any] = {}
    for option in table:
        *parents, leaf = option.key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _plain(values[option.key])
    return tree


def _plain(value: Any) -> Any:
    """The value in YAML's own kinds: sections as mappings, paths as text, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
