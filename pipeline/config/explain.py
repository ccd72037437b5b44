"""What is wrong with a config, in one sentence for each key."""

from __future__ import annotations

import difflib
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from embedmill.pipeline.config.toml import TIMES
from embedmill.pipeline.config.train_layout import current_path

__all__ = ["explain"]


def explain(error: ValidationError, model: type[BaseModel], objective: str) -> list[str]:
    """Each error: the key's full path, what is wrong, what is allowed.

    Args:
        error: of validating a config.
        model: of the whole config.
        objective: the config's, in whose section keys of [train] stand.
    """
    return [_sentence(one, model, objective) for one in error.errors(include_url=False)]


def _sentence(one: ErrorDetails, model: type[BaseModel], objective: str) -> str:
    path = ".".join(current_path(tuple(map(str, one["loc"])), objective))
    value = one["input"]
    if one["type"] == "extra_forbidden":
        return f"{path}: unknown key; {_nearest(str(one['loc'][-1]), _keys(model, one['loc']))}"
    if one["type"] == "missing":
        return f"{path}: missing"
    if one["type"] == "value_error":
        text = one["msg"].removeprefix("Value error, ")
        return f"{path}.{text}" if path else text
    if one["type"] == "string_type" and isinstance(value, (int, float, *TIMES)):
        return f'{path}: a string is needed; write it in quotes: "{value}"'
    if one["type"] == "literal_error" and isinstance(value, str):
        choices = _choices(model, one["loc"])
        return f"{path}: '{value}' is not known; {_nearest(value, choices)}"
    message = one["msg"][0].lower() + one["msg"][1:]
    return f"{path}: {message}, got {value!r}"


def _nearest(name: str, allowed: list[str]) -> str:
    """The nearest of the allowed names, and all of them."""
    near = difflib.get_close_matches(name, allowed, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}allowed: {', '.join(allowed)}"


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the section that holds the key at `loc`."""
    section = _section(model, loc)
    return sorted(section.model_fields) if section else []


def _choices(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The values that the key at `loc` may have."""
    section = _section(model, loc)
    field = section.model_fields.get(str(loc[-1])) if section else None
    return [str(choice) for choice in typing.get_args(field.annotation)] if field else []


def _section(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model of the section that holds the key at `loc`."""
    section: type[BaseModel] | None = model
    for key in loc[:-1]:
        field = section.model_fields.get(str(key)) if section else None
        section = _model_of(field.annotation) if field else None
    return section


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((m for a in typing.get_args(annotation) if (m := _model_of(a))), None)
    return None
