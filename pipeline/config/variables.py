"""Variables of a config: `{ds}` in its strings, with values from the table [vars] or from outside.

A value comes from `--var ds=2026-11-22`, else from the environment (`EMBEDMILL_VAR_DS`), else from
[vars]. `{ds}` is replaced in every string of the config, and that is all: there are no
expressions. Braces around anything else than the name of a variable stay as they are, so that
globs (`{01,02}`) and templates over columns (`{title}`) mean what they always meant.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embedmill.pipeline.errors import ConfigError

__all__ = ["ENVIRONMENT", "as_text", "bind", "parse_var", "substitute"]

ENVIRONMENT = "EMBEDMILL_VAR_"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Here a word in braces means something else: a column, a class of characters.
_OTHER_BRACES = {"events.filter", "events.items.title"}
# Without any variable, only these refuse a word in braces: files may be named like that.
_NEVER_BRACES = {"run.name", "events.date_from", "events.date_to"}


def parse_var(text: str) -> tuple[str, str]:
    """Name and value of `NAME=VALUE`.

    Raises:
        ConfigError: it has no such form.
    """
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{text}' is not NAME=VALUE with a name of letters, digits and _",
            where="--var",
            todo="Write it as --var ds=2026-11-22",
        )
    return name, value


def as_text(value: Any) -> Any:
    """The text of a variable's value: a string, a whole number or a date; others as they are."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else value


def bind(
    tree: Mapping[str, Any], given: Sequence[str], environ: Mapping[str, str], where: str
) -> dict[str, str]:
    """The value of each variable of a config.

    Args:
        tree: the sections; [vars] has the defaults.
        given: `NAME=VALUE` of the command line.
        environ: the environment; it gives values only to variables that [vars] declares or that
            a string of the tree uses.
        where: names the config in errors.

    Raises:
        ConfigError: a given variable is neither declared nor used.
    """
    declared = tree.get("vars", {})
    if not isinstance(declared, Mapping):
        return {}  # refused when the config is checked
    used = {name for _, text in _strings(tree, "") for name in _USE.findall(text)}
    values = {str(name): as_text(value) for name, value in declared.items()}
    for name in declared.keys() | used:
        if (value := environ.get(f"{ENVIRONMENT}{str(name).upper()}")) is not None:
            values[str(name)] = value
    for name, value in map(parse_var, given):
        if name not in declared and name not in used:
            raise ConfigError(_unused(name, sorted(map(str, declared))), where=where)
        values[name] = value
    return values


def substitute(tree: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The tree with the values of variables in its strings.

    Returns:
        the tree, and a sentence for each string that uses a variable without a value. Only where
        the config has variables is a word in braces taken for one.
    """
    problems = []
    for path, text in _strings(tree, ""):
        is_checked = path not in _OTHER_BRACES if values else path in _NEVER_BRACES
        lacking = [name for name in _USE.findall(text) if name not in values]
        if is_checked and lacking:
            problems.append(_without_value(path, lacking[0], values))
    problems += [
        f"vars.{name}: '{value}' holds {{{other}}}, and the values of variables are not replaced"
        for name, value in values.items()
        for other in _USE.findall(str(value))
        if other in values and other != name
    ]
    return _replaced(tree, {name: str(value) for name, value in values.items()}), problems


def _replaced(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _USE.sub(lambda use: values.get(use[1], use[0]), value)
    if isinstance(value, Mapping):
        return {key: one if key == "vars" else _replaced(one, values) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(one, values) for one in value]
    return value


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """All strings of a tree with the paths of their keys, those of [vars] left out."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if path or key != "vars":
                yield from _strings(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one, path)


def _unused(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    declared = f"; declared: {', '.join(known)}" if known else ""
    return f"--var {name}: no string uses {{{name}}}, and [vars] has none{hint or declared}"


def _without_value(path: str, name: str, values: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(values), 1)
    hint = f"did you mean {{{near[0]}}}? " if near else ""
    return (
        f"{path}: {{{name}}} has no value; {hint}give it by --var {name}=..., by "
        f"{ENVIRONMENT}{name.upper()}, or a default in [vars]"
    )
