"""TOML: reading a file, setting `section.key=value`, and writing.

The standard library reads TOML but does not write it. What `emit` writes is read back equal.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedmill.pipeline.errors import ConfigError

__all__ = ["TIMES", "emit", "parse_override", "put", "read"]

_BARE = re.compile(r"^[A-Za-z0-9_-]+$")

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}

# Types of TOML that no key has.
TIMES = (datetime.date, datetime.time)


def read(path: Path) -> dict[str, Any]:
    """The tree of a TOML file.

    Raises:
        ConfigError: there is no such file, it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(path)) from None


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """The path and the value of `section.key=value`; the value is TOML, or a bare word.

    Raises:
        ConfigError: it has no such form.
    """
    path, equals, written = text.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys) or len(keys) < 2:
        raise ConfigError(f"'{text}' is not section.key=value", where="--set")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        return keys, written.strip()  # a bare word is a string
    # A date is a string too: run.name=2026-11-22.
    return keys, written.strip() if isinstance(value, TIMES) else value


def put(tree: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    """Set the value at a path of the tree; sections that are missing are made.

    Raises:
        ConfigError: the path goes through a key that is no section.
    """
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"'{key}' in '{'.'.join(keys)}' is not a section", where="--set")
    tree[keys[-1]] = value


def emit(tree: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """The tree as TOML; keys whose value is None are left out.

    Args:
        tree: its sections.
        comments: by path ("train.dim"); each stands on a line of its own above its key.
    """
    lines: list[str] = []
    _emit(tree, "", lines, comments or {})
    return "\n".join(lines).strip() + "\n"


def _emit(
    table: Mapping[str, Any], prefix: str, lines: list[str], comments: Mapping[str, str]
) -> None:
    scalars = {k: v for k, v in table.items() if not isinstance(v, Mapping) and v is not None}
    if prefix and (scalars or not table):
        lines.append(f"\n[{prefix}]")
    for key, value in scalars.items():
        comment = comments.get(f"{prefix}.{key}")
        lines += [f"# {comment}"] if comment else []
        lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in table.items():
        if isinstance(value, Mapping):
            _emit(value, f"{prefix}.{_key(key)}" if prefix else _key(key), lines, comments)


def _key(key: str) -> str:
    return key if _BARE.match(key) else _value(key)


def _character(character: str) -> str:
    """A character of a basic string."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(map(_character, value))}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    return repr(value)
