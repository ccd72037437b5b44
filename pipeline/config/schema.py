"""The JSON Schema of the config, by which editors complete and check a run's TOML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from embedmill.pipeline.config.index_keys import INDEX_SECTIONS, KIND_KEYS, TARGETS, refused_index
from embedmill.pipeline.config.objectives import (
    DEFAULT_OBJECTIVE,
    OBJECTIVE_KEYS,
    ObjectiveKeys,
    readers_of,
)
from embedmill.pipeline.config.renames import RENAMED
from embedmill.pipeline.config.run import Config
from embedmill.pipeline.config.train_layout import is_of_softmax

__all__ = ["json_schema"]

# Editors know this draft; nothing newer is used.
_DRAFT = "http://json-schema.org/draft-07/schema#"
_DEFINITIONS = "#/$defs/"

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The schema of a TOML that `load` reads: types, bounds, choices, defaults, descriptions.

    Section train is one of several objects, told apart by `objective`: each has the keys that its
    objective reads. Old names and places of keys are marked as deprecated.
    """
    whole = _clean(Config.model_json_schema(mode="validation"))
    definitions = whole.pop("$defs")
    train = definitions.pop("TrainConfig")
    nested = {key: definitions.pop(_name(train["properties"][key])) for key in _sections(train)}
    variants = {
        f"train.{name}": _variant(name, keys, train["properties"], nested)
        for name, keys in OBJECTIVE_KEYS.items()
    }
    definitions["TrainConfig"] = {
        "description": "Training. `objective` decides which keys there are.",
        "type": "object",
        "oneOf": [{"$ref": f"{_DEFINITIONS}{name}"} for name in variants],
    }
    index = definitions["IndexConfig"]
    index["allOf"] = _unread_index_keys(index["properties"], definitions)
    _add_old_names(definitions["SignalsConfig"], ("events", "signals"))
    return {
        "$schema": _DRAFT,
        "title": "Embedmill run",
        **whole,
        "$defs": dict(sorted({**definitions, **variants}.items())),
    }


def _sections(train: Schema) -> list[str]:
    """The keys of `TrainConfig` that are sections of objectives."""
    names = {keys.section for keys in OBJECTIVE_KEYS.values()}
    return [key for key in train["properties"] if key in names]


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).removeprefix(_DEFINITIONS)


def _variant(
    name: str, keys: ObjectiveKeys, fields: Mapping[str, Schema], nested: Mapping[str, Schema]
) -> Schema:
    """Section train with one objective.

    Args:
        name: of the objective.
        keys: which keys it reads.
        fields: schemas of the fields of `TrainConfig`.
        nested: schemas of the sections of objectives in it.
    """
    every = {**fields, **nested.get(keys.section, {}).get("properties", {})}
    every = {key: _with_default(schema, keys, key) for key, schema in every.items()}
    every["objective"] = {"const": name, "description": fields["objective"]["description"]}
    every["metric"] = {**every["metric"], "enum": ["", *keys.metrics]}
    common = [key for key in fields if key not in nested and not readers_of(key)]
    shared = [key for key in fields if key in keys.shared]
    own = _object({key: every[key] for key in keys.own})
    own["description"] = f"Keys that not every objective has, for objective '{name}'."
    _add_old_names(own, ("train", keys.section))
    section = _object({**{key: every[key] for key in (*common, *shared)}, keys.section: own})
    for key in keys.own:
        in_both = {"properties": {keys.section: {"properties": {key: False}}}}
        _add_deprecated(section, key, every[key], keys.path(key), in_both)
    implied = [key for key in (*keys.shared, *keys.own, keys.section) if is_of_softmax(key)]
    required: Schema = {"required": ["objective"]}
    if name == DEFAULT_OBJECTIVE:
        required = {}
    elif name == "softmax":  # its keys name it too
        required = {"anyOf": [{"required": [key]} for key in ("objective", *implied)]}
    return {"description": f"Training with objective '{name}'.", **section, **required}


def _add_old_names(section: Schema, path: tuple[str, ...]) -> None:
    """Add the old names of keys of the section at `path`."""
    for old, new in RENAMED.items():
        if new[:-1] == path and new[-1] in section["properties"]:
            schema, in_both = section["properties"][new[-1]], {"properties": {new[-1]: False}}
            _add_deprecated(section, old[-1], schema, ".".join(new), in_both)


def _add_deprecated(section: Schema, key: str, schema: Schema, now: str, in_both: Schema) -> None:
    """Add an old name or place of a key, which must not be given beside the new one.

    Args:
        section: gets the key.
        key: in its old place, by its old name.
        schema: of its values.
        now: its path today.
        in_both: what holds of a section that has the old key and not the new one.
    """
    value = {name: one for name, one in schema.items() if name != "default"}
    said = {"description": f"Old place or name of {now}.", "deprecated": True}
    section["properties"][key] = {**value, **said}
    section.setdefault("dependencies", {})[key] = in_both


def _unread_index_keys(
    fields: Mapping[str, Schema], definitions: Mapping[str, Schema]
) -> list[Schema]:
    """For each kind of index, with targets and without: the keys that it does not read.

    A graph for the delta of an incremental index is not taken into account.

    Args:
        fields: schemas of the keys of section index.
        definitions: schemas of its sections.
    """
    sections = {
        name: list(definitions[_name(fields[name])]["properties"]) for name in INDEX_SECTIONS
    }
    rules = []
    for kind in KIND_KEYS:
        kind_is = {"kind": {"const": kind}, "carry_over": {"const": 0}}
        condition: Schema = {"properties": kind_is}
        if kind != fields["kind"]["default"]:
            condition["required"] = ["kind"]
        with_targets = {"anyOf": [{"required": [target]} for target in TARGETS]}
        for one, target in ((condition, {}), ({**condition, **with_targets}, {TARGETS[0]: 0.9})):
            given = {"kind": kind, **target, **{k: dict.fromkeys(v) for k, v in sections.items()}}
            if refused := refused_index(given):
                rules.append({"if": one, "then": {"properties": _never(refused)}})
    return rules


def _never(paths: Iterable[str]) -> Schema:
    """Schemas by which no key of the paths is valid: "section", or "section.key"."""
    never: Schema = {}
    for section, _, key in (path.partition(".") for path in paths):
        if key:
            never.setdefault(section, {"properties": {}})["properties"][key] = False
        else:
            never[section] = False
    return never


def _with_default(schema: Schema, keys: ObjectiveKeys, key: str) -> Schema:
    return {**schema, "default": keys.defaults[key]} if key in keys.defaults else schema


def _object(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def _clean(schema: Any) -> Any:
    """Without what says nothing of a TOML: null, titles made from names, sections' defaults."""
    if isinstance(schema, list):
        return [_clean(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _clean(value) for key, value in schema.items() if not _is_noise(schema, key)}
    options = [one for one in kept.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        return {**options[0], **{key: value for key, value in kept.items() if key != "anyOf"}}
    return kept


def _is_noise(schema: Schema, key: str) -> bool:
    """Whether a keyword is dropped; a key of the config of that name has a schema as its value."""
    value = schema[key]
    if key in ("in_fingerprint", "fingerprint_name", "unread_in_fingerprint"):
        return True
    if key == "title":
        return isinstance(value, str)
    return key == "default" and (value is None or "$ref" in schema)
