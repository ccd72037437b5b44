"""A config as flat fields, for fingerprints, and as TOML, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from embedmill.pipeline.config.descriptions import descriptions
from embedmill.pipeline.config.index_keys import read_index
from embedmill.pipeline.config.renames import renamed_path
from embedmill.pipeline.config.run import Config
from embedmill.pipeline.config.toml import emit, put
from embedmill.pipeline.config.train import TrainConfig
from embedmill.pipeline.config.train_layout import is_read, objective_of

__all__ = ["read_fields", "stage_fields", "to_toml"]


def stage_fields(config: Config, keys: Sequence[str]) -> dict[str, Any]:
    """Flat fields ("train.dim": 64) that go into the fingerprint of a stage.

    Fields have the names that they had when fingerprints began, wherever the key stands in the
    TOML by now: `train.temperature`, not `train.softmax.temperature`. Thus a run that was built
    from an older config stays up to date.

    Args:
        config: of the run.
        keys: sections and fields below which all fields are taken ("run.seed", "train").

    Returns:
        by sorted name; without fields that are marked `NOT_IN_FINGERPRINT`, and those marked
        `FINGERPRINT_IF_CHANGED` that have their default.
    """
    flat = dict(_flatten(config, ""))
    return {
        path: value
        for path, value in sorted(flat.items())
        if any(path == key or path.startswith(f"{key}.") for key in keys)
    }


def read_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the fields of a stage that its objective and its kind of index read.

    Manifests of older versions hold other fields too, with values that had no effect.

    Args:
        fields: as of `stage_fields`.
    """
    return {path: value for path, value in fields.items() if not _is_unread(path, fields)}


def _is_unread(path: str, fields: Mapping[str, Any]) -> bool:
    section, *below = renamed_path(tuple(path.split(".")))
    if section == "train":
        objective = objective_of({"objective": fields.get("train.objective")})
        similarity = str(fields.get("train.similarity"))
        return objective is not None and not is_read(tuple(below), objective, similarity)
    if section == "index":
        index: dict[str, Any] = {}
        for key in (key for key in fields if key.startswith("index.")):
            put(index, tuple(key.split(".")[1:]), fields[key])
        kept: Any = read_index(index)
        for key in below:
            if key not in kept:
                return True
            kept = kept[key]
    return False


def to_toml(config: Config, *, described: bool = False) -> str:
    """The resolved run as TOML: every key that is read, which `load` reads back as an equal config.

    Keys that are not given and have no default are left out. With `described`, the meaning of
    each key stands above it as a comment.
    """
    return emit(config.model_dump(mode="python"), descriptions(config) if described else None)


def _flatten(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in type(model).model_fields.items():
        extra = field.json_schema_extra
        hints = extra if isinstance(extra, dict) else {}
        marked = hints.get("in_fingerprint")
        if marked is False or (marked == "if read" and not _is_read(model, name)):
            continue
        if marked == "if changed" and getattr(model, name) == field.default:
            continue
        value, name = getattr(model, name), str(hints.get("fingerprint_name", name))
        if isinstance(value, BaseModel):
            unread = hints.get("unread_in_fingerprint")
            if isinstance(unread, dict) and not _is_read(model, name):
                value = value.model_copy(update=unread)
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _as_json(value)


def _is_read(model: BaseModel, name: str) -> bool:
    """Whether the objective of section train reads a key or has its section."""
    return isinstance(model, TrainConfig) and (model.keys.section == name or model.keys.reads(name))


def _as_json(value: Any) -> Any:
    """A value as JSON gives it back: fields are compared with those of a manifest."""
    if isinstance(value, Mapping):
        return {key: _as_json(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
