"""JSON objects from outside as config dataclasses: nothing unknown, missing or of a wrong type."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_JSON_BYTES = 1 << 20

Config = TypeVar("Config", bound="DataclassInstance")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is too large, not JSON in UTF-8, or not an object.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise ValueError(f"{path} is not JSON: {err}") from err
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(tree).__name__}")
    return tree


def build_config(schema: type[Config], values: object, *, where: str) -> Config:
    """`values` as an instance of the dataclass `schema`.

    Every field must be given: a default that was meant for new models would describe an old one
    wrongly. Left out may be what was `later` added to the format (so its metadata say), with a
    default that describes the models before it.

    Args:
        schema: A dataclass with fields of plain types, literals, lists and unions of these.
        values: What JSON held; an object, if all is well.
        where: Names the place in messages.

    Raises:
        ValueError: A key is unknown, missing or of the wrong type, or `schema` refuses its value.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is missing or not an object")
    hints = get_type_hints(schema)
    if unknown := sorted(values.keys() - hints.keys()):
        raise ValueError(f"{where} has unknown keys: {', '.join(unknown)}")
    later = {one.name for one in fields(schema) if one.metadata.get("later")}
    if missing := sorted(hints.keys() - values.keys() - later):
        raise ValueError(f"{where} lacks the keys {', '.join(missing)}")
    for key, value in values.items():
        if not _fits(value, hints[key]):
            raise ValueError(f"{where}.{key} must be {_described(hints[key])}, got {value!r:.60}")
    given = {key: tuple(one) if isinstance(one, list) else one for key, one in values.items()}
    try:
        return schema(**given)
    except ValueError as err:
        raise ValueError(f"{where}: {err}") from err


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value has the type a config field declares."""
    if _is_union(hint):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:  # of any length, of one kind
        kind = get_args(hint)[0]
        return isinstance(value, list | tuple) and all(_fits(one, kind) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _described(hint: Any) -> str:
    """A type in JSON's words."""
    if _is_union(hint):
        return " or ".join(_described(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(json.dumps(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list, each {_described(get_args(hint)[0])}"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    return "null" if hint is types.NoneType else names[hint]


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)
