"""The text that `--help` prints: every option with its note, its kind of value and its default."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import get_origin

from dalle.options import Option

_EPILOG = (
    "Flags override files, and a later --config overrides an earlier one. Dashes and underscores "
    "mean the same in a flag; a true/false flag alone means true. A LIST is written '[a, b]', and "
    "NUMBER ... takes any count of numbers, as does INT ... of whole ones."
)


def help_text(root: type, table: Sequence[Option], *, prog: str, positional: str | None) -> str:
    """Help of a verb.

    Args:
        root: The verb's settings; the first line of its docstring reads "`command`: what it does".
        table: Every option of `root`.
        prog: The command as typed.
        positional: Name of the words that belong to no flag, if the verb takes any.
    """
    summary = _first_line(root).partition(": ")[2]
    words = "".join(f" {_word(option)}" for option in table if option.key == positional)
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"%(prog)s{words} [--config FILE] [--section.key VALUE ...]",
        description=summary[:1].upper() + summary[1:],
        epilog=_EPILOG,
        add_help=False,
    )
    general = parser.add_argument_group("options")
    general.add_argument("--help", action="store_true", help="Print this and exit.")
    general.add_argument("--config", metavar="FILE", help="Read settings from a YAML file.")
    general.add_argument(
        "--print_config", action="store_true", help="Print the settings as YAML and exit."
    )
    groups = {"": general}
    for option in table:
        section = option.key.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section, _first_line(option.owner))
        if option.key == positional:
            groups[section].add_argument(positional, nargs="*", help=_note(option))
        else:
            groups[section].add_argument(
                f"--{option.key}", metavar=option.placeholder, help=_note(option)
            )
    return parser.format_help()


def _word(option: Option) -> str:
    """How a word without a flag stands in the usage line."""
    name = option.key.upper()
    if get_origin(option.kind) is tuple:
        return f"{name}..."
    return name if option.required else f"[{name}]"


def _first_line(owner: type) -> str:
    return (owner.__doc__ or "").partition("\n")[0]


def _note(option: Option) -> str:
    # As it is typed: Python's None is null in a flag and in YAML.
    words = re.sub(r"\bNone\b", "null", option.note)
    note = f"{words} ({'required' if option.required else _default(option)})"
    return note.replace("%", "%%")  # argparse would format it


def _default(option: Option) -> str:
    default = option.default
    if default is None:
        return "default: null"
    if isinstance(default, bool):
        return f"default: {str(default).lower()}"
    if isinstance(default, tuple):
        return f"default: {', '.join(map(str, default)) or 'none'}"
    return f"default: {default}"
