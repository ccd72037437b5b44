"""A config for a log that has none: what was found out, and what is unsure, as a TOML."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.inspection.roles import ColumnSample, assign_roles
from embedmill.pipeline.prepare.inspection.sample import LogSample, read_sample
from embedmill.pipeline.prepare.inspection.time_units import TimeStyle, time_style

__all__ = ["Draft", "draft_config", "to_toml"]

_DATABASE_NULLS = ("\\N", "NULL")
_NULL_SPELLINGS = ("\\N", "NULL", "null", "None", "NaN", "nan", "NA", "N/A", "")
_ZONE = re.compile(r"(?:Z|UTC|GMT|[+-][0-9]{2}:?(?:[0-9]{2})?|\]|[A-Za-z]/[A-Za-z0-9_+/-]+)$")
_MADE_UP = {"user": "user_id", "item": "item_id", "time": "time", "weight": "rating"}
_SHOWN = 3  # values of a column in a comment
_SHOWN_BYTES = 24
_REFIT = "once more with the validation events, when all is chosen"
_ENOUGH_EVENTS = 3  # of a user: one to train on, one to validate, one to test


@dataclass(frozen=True)
class Draft:
    """A config for a log.

    Attributes:
        sections: of the TOML, by name.
        notes: by "section.key", a comment beside it.
        unsure: by "section.key", why the key may be wrong.
    """

    sections: dict[str, dict[str, Any]]
    notes: dict[str, str]
    unsure: dict[str, str]


def draft_config(paths: Sequence[str], encoding: str = "") -> Draft:
    """Look at a log and draft a config for it.

    Args:
        paths: files, folders, globs or URLs of the log.
        encoding: of its text; empty: by its bytes.

    Raises:
        InputError: a path names nothing, no format is recognised, or no two columns are there.
    """
    sample = read_sample(paths, encoding)
    styles = {name: time_style(_present(values)) for name, values in sample.columns.items()}
    nulls = _null_values(sample)
    columns = [
        ColumnSample(name, _without(values, nulls), sample.rows, styles[name].share)
        for name, values in sample.columns.items()
    ]
    roles, unsure = assign_roles(columns)
    if not {"user", "item"} <= set(roles):
        raise InputError(
            f"has no two columns that may be a user and an item; it has {list(sample.columns)}",
            where=", ".join(paths),
        )
    events: dict[str, Any] = {"paths": list(paths) if len(paths) > 1 else paths[0], **sample.keys}
    if nulls:
        events["null_values"] = nulls
        unsure["null_values"] = "these stand where ids or other values should"
    if "columns" in events:
        roles = _name_columns(events, roles)
    events |= {role: roles[role] for role in ("user", "item", "time") if role in roles}
    if "time" in roles:
        found = _found_name(events, sample, roles["time"])
        events |= _time_keys(styles[found], _present(sample.columns[found]))
        unsure |= _time_doubts(styles[found], events)
    events |= {"weight": roles["weight"]} if "weight" in roles else {}
    explode = _explode(sample, roles)
    if explode:
        events["explode"] = explode
    notes = {
        role: _about(sample, _found_name(events, sample, name)) for role, name in roles.items()
    }
    shards, why = _split(sample, events)
    sections = {
        "run": {"name": _run_name(paths[0])},
        "events": events,
        "shards": shards,
        "train": {"refit": True},
    }
    about = {"shards.split": why, "train.refit": _REFIT}
    return Draft(
        sections,
        {**{f"events.{k}": v for k, v in notes.items()}, **about},
        {f"events.{k}": v for k, v in {**sample.notes, **unsure}.items()},
    )


def _present(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None and value not in _NULL_SPELLINGS]


def _without(values: Sequence[Any], nulls: Sequence[str]) -> list[Any]:
    return [value for value in values if value is not None and value not in nulls]


def _null_values(sample: LogSample) -> list[str]:
    """Spellings of null that databases write, among the values."""
    found = Counter(
        value
        for values in sample.columns.values()
        for value in values
        if isinstance(value, str) and value in _DATABASE_NULLS
    )
    return [*sorted(found), ""] if found else []


def _name_columns(events: dict[str, Any], roles: Mapping[str, str]) -> dict[str, str]:
    """Give the columns of a log without header the usual names; returns the roles by them."""
    names = {column: _MADE_UP[role] for role, column in roles.items()}
    events["columns"] = [names.get(column, column) for column in events["columns"]]
    return {role: names[column] for role, column in roles.items()}


def _found_name(events: Mapping[str, Any], sample: LogSample, name: str) -> str:
    """The name by which the sample has a column."""
    if "columns" not in events:
        return name
    return str(sample.keys["columns"][events["columns"].index(name)])


def _time_keys(style: TimeStyle, values: Sequence[Any]) -> dict[str, Any]:
    keys: dict[str, Any] = {"time_unit": style.unit}
    if style.patterns:
        keys["time_patterns"] = list(style.patterns)
    if style.unit in ("iso", "pattern", "auto") and not all(_has_zone(value) for value in values):
        keys["time_zone"] = "UTC"
    return keys


def _has_zone(value: Any) -> bool:
    """Whether a time needs no zone: it has one, or counts from 1970."""
    if isinstance(value, datetime):
        return value.tzinfo is not None
    text = str(value)
    return text.isdigit() or _ZONE.search(text) is not None


def _time_doubts(style: TimeStyle, events: Mapping[str, Any]) -> dict[str, str]:
    doubts = {"time_patterns": style.unsure} if style.unsure else {}
    if style.share < 0.99:
        doubts["time_unit"] = f"{style.share:.0%} of the values are times from 1990 to next year"
    if "time_zone" in events:
        doubts["time_zone"] = "the times name no zone"
    return doubts


def _explode(sample: LogSample, roles: Mapping[str, str]) -> str:
    """The list whose elements have the item."""
    path = next((p for p in sample.lists if roles.get("item", "").startswith(f"{p}.")), "")
    return path


def _about(sample: LogSample, name: str) -> str:
    """What a column has, for a comment."""
    values = [value for value in sample.columns[name] if value is not None]
    distinct = list(dict.fromkeys(str(value) for value in values))
    shown = ", ".join(
        json.dumps(_shortened(text), ensure_ascii=False) for text in distinct[:_SHOWN]
    )
    more = ", ..." if len(distinct) > _SHOWN else ""
    return f"{len(distinct):,} in {sample.rows:,} rows: {shown}{more}"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_BYTES else f"{text[:_SHOWN_BYTES]}…"


def _split(sample: LogSample, events: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A split that leaves events to train on, validate and test, and why it is this one."""
    if "time" not in events:
        return {"split": "random", "valid": 0.1, "test": 0.1}, "the log has no times"
    user = _found_name(events, sample, events["user"])
    counts = Counter(str(value) for value in sample.columns[user])
    enough = sum(count >= _ENOUGH_EVENTS for count in counts.values())
    if sample.whole and enough * 2 < len(counts):
        return {"split": "random", "valid": 0.1, "test": 0.1}, "most users have one or two events"
    return {"split": "last", "valid": 1, "test": 1}, "each user's last event is test"


def _run_name(path: str) -> str:
    """A name for the run, of that of the log."""
    parts = [part for part in re.split(r"[/\\]", path) if part and not re.search(r"[*?{\[]", part)]
    stem = parts[-1].split(".")[0] if parts else ""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "my-log"


def to_toml(draft: Draft) -> str:
    """The draft as TOML, with what is unsure as comments."""
    lines = ["# Drafted from the log by `embedmill init`. Lines marked `unsure` need your eyes;"]
    lines += ["# `embedmill profile` shows what this config makes of the log.", ""]
    for section, keys in draft.sections.items():
        lines.append(f"[{section}]")
        for key, value in keys.items():
            name = f"{section}.{key}"
            if name in draft.unsure:
                lines.append(f"# unsure: {draft.unsure[name]}")
            note = draft.notes.get(name, "")
            lines.append(f"{key} = {_value(value)}" + (f"  # {note}" if note else ""))
        lines.append("")
    lines += ["[vocab]", "# min_user_count = 5  # users and items with fewer events are dropped"]
    return "\n".join([*lines, "# min_item_count = 5", ""])


def _value(value: Any) -> str:
    """A value of the TOML; its strings are those of JSON, with DEL escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
