"""YAML as people expect it: version 1.2's core schema, safe, with no key written twice.

PyYAML reads version 1.1, where `1e-4` is text, `no` is false, `1:30` is ninety and `010` is eight.
Here a number is a number, only `true` and `false` are truth values, and everything else is text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
_NOT_FINITE = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
# Tag, pattern, and the characters a match can begin with.
_CORE_SCHEMA = (
    ("bool", r"true|True|TRUE|false|False|FALSE", ["t", "T", "f", "F"]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", f"{_NUMBER}|{_NOT_FINITE}", list("-+.0123456789")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", ["<"]),  # `<<: *defaults`, widely used though not of the core schema
)
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Safe loader that follows the core schema and refuses a key written twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is written twice", key_node.start_mark
                )
            seen.add(str(key))
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError) as err:
            # What a tag such as !!int or !!timestamp makes of a text that does not fit it.
            kind = node.tag.removeprefix(_TAG)
            raise yaml.constructor.ConstructorError(
                None, None, f"this is no {kind} that can be read", node.start_mark
            ) from err

    def construct_core_int(self, node: yaml.ScalarNode) -> int:
        digits = self.construct_scalar(node)
        return int(digits, 0) if digits[:2] in ("0o", "0x") else int(digits)


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes whatever the loader above would not read back as text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless  # lists are indented below their key
        super().increase_indent(flow, indentless=False)


for _kind, _pattern, _first in _CORE_SCHEMA:
    for _owner in (_Loader, _Dumper):
        _owner.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_core_int)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Args:
        path: A UTF-8 text file.

    Raises:
        ValueError: The file is missing, unreadable, not UTF-8, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise ValueError(f"cannot read config {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"config {path} must be UTF-8 text, but byte {err.start} is not") from err
    return parse_yaml(text, name=f"config {path}")


def parse_yaml(text: str, *, name: str) -> dict[str, Any]:
    """The mapping in YAML text; no text is an empty mapping.

    Args:
        text: What a file holds.
        name: What to call it in messages.

    Raises:
        ValueError: It is not YAML, or not a mapping.
    """
    try:
        tree = yaml.load(text, _Loader)
    except RecursionError as err:
        raise ValueError(f"{name} is nested too deeply") from err
    except yaml.YAMLError as err:
        raise ValueError(f"{name} is not valid YAML: {_first_problem(err)}") from err
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{name} must hold `key: value` lines, but holds a {type(tree).__name__}")
    return {str(key): value for key, value in tree.items()}


def dump_yaml(tree: dict[str, Any]) -> str:
    """YAML text of a tree of plain values, keys in the order of the tree."""
    return yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )


def _first_problem(err: yaml.YAMLError) -> str:
    mark = getattr(err, "problem_mark", None)
    problem = getattr(err, "problem", None) or " ".join(str(err).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
