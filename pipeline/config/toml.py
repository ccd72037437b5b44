"""TOML: reading a tree, laying `section.key=value` over it, printing it.

The standard library reads TOML and does not write it; what is written here is read back equal.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedmill.pipeline.errors import ConfigError

__all__ = ["TIMES", "emit", "lay", "read"]

_BARE = re.compile(r"^[A-Za-z0-9_-]+$")

# TOML has them; no key takes them.
TIMES = (datetime.date, datetime.time)


def read(path: Path) -> dict[str, Any]:
    """The tree of a TOML file; raises ConfigError where there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(path)) from None


def lay(tree: dict[str, Any], one: str) -> None:
    """Put one `section.key=value` into the tree; the value is TOML or a bare word."""
    path, equals, text = one.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) < 2:
        raise ConfigError(f"'{one}' is not section.key=value", where="--set")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    if isinstance(value, TIMES):
        value = text.strip()  # and so is a date: run.name=2026-11-22
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"'{key}' in '{path}' is not a section", where="--set")
    tree[keys[-1]] = value


def emit(tree: Mapping[str, Any]) -> str:
    """The tree as TOML; what is None is left out."""
    lines: list[str] = []
    _emit(tree, "", lines)
    return "\n".join(lines).strip() + "\n"


def _emit(table: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    scalars = {k: v for k, v in table.items() if not isinstance(v, Mapping) and v is not None}
    if prefix and (scalars or not table):
        lines.append(f"\n[{prefix}]")
    lines += [f"{_key(k)} = {_value(v)}" for k, v in scalars.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            _emit(value, f"{prefix}.{_key(key)}" if prefix else _key(key), lines)


def _key(key: str) -> str:
    return key if _BARE.match(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = "".join(
            c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value
        )
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    return repr(value)
