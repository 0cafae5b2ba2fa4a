"""A settings tree, seen as the flat list of options that flags and config files can set.

An option is one leaf of the nested dataclasses: `TrainVae.optim.lr` is the option `optim.lr`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import textwrap
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """One leaf of a settings tree."""

    key: str
    """Dotted path from the root, as written after `--` and in files."""
    type: Any
    """Declared type."""
    default: Any
    """Value when nobody sets it; None if it is required."""
    required: bool
    """Whether somebody must set it."""
    owner: type
    """Dataclass that declares it."""

    @property
    def note(self) -> str:
        """The text written below the field, or nothing."""
        return _notes(self.owner).get(self.key.rpartition(".")[2], "")

    @property
    def kind(self) -> Any:
        """The declared type without its None."""
        return _without_none(self.type)

    @property
    def nullable(self) -> bool:
        """Whether None is a value."""
        return type(None) in get_args(self.type)

    @property
    def is_numbers(self) -> bool:
        """Whether values are any count of numbers, which may follow the flag one by one."""
        return get_origin(self.kind) is tuple and get_args(self.kind)[0] in (int, float)

    @property
    def are_whole(self) -> bool:
        """Whether such numbers are whole ones."""
        return self.is_numbers and get_args(self.kind)[0] is int

    @property
    def rule(self) -> str:
        """What a value must be, in words that follow "must be"."""
        if get_origin(self.kind) is Literal:
            words = "one of " + ", ".join(map(str, get_args(self.kind)))
        elif self.is_numbers:
            words = "numbers, such as 1 2.5 or '[1, 2.5]'"
            if self.are_whole:
                words = "whole numbers, such as 1 2 or '[1, 2]'"
        elif get_origin(self.kind) is tuple:
            words = "a list of texts such as '[a fox, a pizza]' (numbers in quotes)"
        else:
            words = {
                bool: "true or false",
                int: "a whole number",
                float: "a number",
                str: "text (in quotes if it looks like a number)",
                Path: "a path",
            }[self.kind]
        return f"{words}, or null" if self.nullable else words

    @property
    def placeholder(self) -> str:
        """What stands for a value in help."""
        if get_origin(self.kind) is Literal:
            return "{" + ",".join(map(str, get_args(self.kind))) + "}"
        if self.is_numbers:
            return "INT ..." if self.are_whole else "NUMBER ..."
        if get_origin(self.kind) is tuple:
            return "LIST"
        return {bool: "{true,false}", int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}[
            self.kind
        ]


def options(root: type, *, prefix: str = "", base: Any = None) -> tuple[Option, ...]:
    """Every option of a settings dataclass, in the order of its fields.

    Args:
        root: A dataclass whose fields are values or further dataclasses.
        prefix: Put before every key; ends in a dot unless empty.
        base: An instance of `root` whose values are the defaults; None takes those of the class.
    """
    found: list[Option] = []
    hints = get_type_hints(root)
    for field in dataclasses.fields(root):
        default, required = _default(field, base)
        kind, key = hints[field.name], prefix + field.name
        if _is_section(kind):
            found.extend(options(kind, prefix=f"{key}.", base=default))
        else:
            found.append(Option(key=key, type=kind, default=default, required=required, owner=root))
    return tuple(found)


def sections(table: Iterable[Option]) -> tuple[str, ...]:
    """Keys of the sections that hold these options, outermost first."""
    found: dict[str, None] = {}
    for option in table:
        parts = option.key.split(".")[:-1]
        found.update((".".join(parts[: depth + 1]), None) for depth in range(len(parts)))
    return tuple(found)


def build(root: type[Settings], values: Mapping[str, Any], *, prefix: str = "") -> Settings:
    """An instance of `root` from values by dotted key.

    Raises:
        ValueError: The dataclass or one of its sections refuses its values; the message starts
            with the option's dotted key.
    """
    arguments: dict[str, Any] = {}
    for name, kind in get_type_hints(root).items():
        key = prefix + name
        if _is_section(kind):
            arguments[name] = build(kind, values, prefix=f"{key}.")
        else:
            arguments[name] = values[key]
    try:
        return root(**arguments)
    except ValueError as err:
        starts_with_field = str(err).split(" ", 1)[0] in arguments
        place = prefix if starts_with_field or not prefix else f"{prefix.rstrip('.')}: "
        raise ValueError(f"{place}{err}") from err


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known dotted key that `key` most likely meant, or None if none is close.

    A slip within a right section comes first, then a key that looks alike as a whole, then one
    whose last part does, in whatever section.
    """
    keys = list(known)
    section, _, leaf = key.rpartition(".")
    by_leaf = {candidate.rpartition(".")[2]: candidate for candidate in reversed(keys)}
    neighbours = [name for name in keys if name.rpartition(".")[0] == section]
    for typed, candidates in (
        (leaf, {name.rpartition(".")[2]: name for name in neighbours}),
        (key, {} if neighbours else {name: name for name in keys}),
        (leaf, by_leaf),
    ):
        for match in difflib.get_close_matches(typed, candidates, n=1, cutoff=0.65):
            return candidates[match]
    return None


def _default(field: dataclasses.Field[Any], base: Any) -> tuple[Any, bool]:
    if base is not None:
        return getattr(base, field.name), False
    if field.default is not dataclasses.MISSING:
        return field.default, False
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory(), False
    return None, True


def _is_section(kind: Any) -> TypeGuard[type]:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    kinds: list[Any] = [kind for kind in get_args(hint) if kind is not type(None)]
    assert len(kinds) == 1, f"a setting has one type, or one type and None; got {hint}"
    return kinds[0]


@functools.cache
def _notes(owner: type) -> dict[str, str]:
    """The string literal below each field of a dataclass, by field name."""
    try:
        source = inspect.getsource(owner)
    except OSError:  # installed without sources: help then lacks the notes, nothing else
        return {}
    body = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(body, ast.ClassDef), f"{owner} is a class"
    notes: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                notes[name] = " ".join(text.split())
    return notes
