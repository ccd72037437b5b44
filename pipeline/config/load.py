"""From a TOML file to a checked config."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embedmill.pipeline.config.explain import explain
from embedmill.pipeline.config.index_keys import read_index, refused_index
from embedmill.pipeline.config.objectives import DEFAULT_OBJECTIVE, OBJECTIVE_KEYS, readers_of
from embedmill.pipeline.config.renames import renamed_path, renamed_tree
from embedmill.pipeline.config.run import Config
from embedmill.pipeline.config.toml import parse_override, put, read
from embedmill.pipeline.config.train import TrainConfig
from embedmill.pipeline.config.train_layout import (
    current_path,
    flat_train,
    moved_train,
    objective_of,
)
from embedmill.pipeline.config.variables import bind, substitute
from embedmill.pipeline.errors import ConfigError

__all__ = ["load", "parse"]

# Keys of [train] that every objective reads.
_COMMON = [
    name
    for name in TrainConfig.model_fields
    if not readers_of(name) and name not in {keys.section for keys in OBJECTIVE_KEYS.values()}
]


def _ignore(_note: str) -> None:
    """Drop a note."""


def _once(note: Callable[[str], None]) -> Callable[[str], None]:
    """`note`, which gets each sentence once."""
    noted: set[str] = set()

    def first(sentence: str) -> None:
        if sentence not in noted:
            noted.add(sentence)
            note(sentence)

    return first


def load(
    path: str | Path,
    sets: Sequence[str] = (),
    note: Callable[[str], None] = _ignore,
    given: Sequence[str] = (),
) -> Config:
    """The config at `path`, with each `section.key=value` of `sets` in place of the file's value.

    Variables have the values of `given`, of the environment, or of [vars]: see `variables`.

    Args:
        path: a TOML file.
        sets: overrides; a value is TOML, or a bare word for a string.
        note: called with a sentence for each key that has another name or place by now.
        given: values of variables, each as `NAME=VALUE`.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a key that the objective or the kind
            of index does not read, a value out of bounds, a variable that is not used or has no
            value.
    """
    note = _once(note)
    tree, problems = renamed_tree(read(Path(path)), note)
    if problems:
        raise ConfigError("; ".join(problems), where=str(path))
    overrides = [parse_override(text) for text in sets]
    tree, overrides = _bound(tree, overrides, given, str(path))
    train = tree.get("train", {})
    if isinstance(train, Mapping):
        train = {**train, **{keys[1]: value for keys, value in overrides if keys[0] == "train"}}
    objective = objective_of(train)
    if objective and isinstance(tree.get("train"), Mapping):
        tree["train"] = moved_train(tree["train"], objective, note)
    for keys, value in overrides:
        place = renamed_path(keys)
        place = current_path(place, objective) if objective else place
        if place != keys:
            note(f"{'.'.join(keys)} is now {'.'.join(place)}")
        put(tree, place, value)
    return parse(tree, where=str(path), note=note)


def _bound(
    tree: dict[str, Any],
    overrides: list[tuple[tuple[str, ...], Any]],
    given: Sequence[str],
    where: str,
) -> tuple[dict[str, Any], list[tuple[tuple[str, ...], Any]]]:
    """The tree and the overrides with the values of variables, which [vars] has from then on.

    Args:
        tree: of the file.
        overrides: paths and values.
        given: `NAME=VALUE` of the command line.
        where: names the config in errors.
    """
    for keys, value in overrides:
        if keys[0] == "vars":
            put(tree, keys, value)
    others = [(keys, value) for keys, value in overrides if keys[0] != "vars"]
    laid = {"tree": tree, "sets": {".".join(keys): value for keys, value in others}}
    values = bind({"vars": tree.get("vars", {}), **laid}, given, os.environ, where)
    if not values:
        return tree, others
    tree = {**substitute(tree, values)[0], "vars": values}
    return tree, [(keys, substitute({"value": v}, values)[0]["value"]) for keys, v in others]


def parse(
    tree: Mapping[str, Any],
    where: str = "config",
    note: Callable[[str], None] = _ignore,
    *,
    stored: bool = False,
) -> Config:
    """The config of a parsed TOML.

    Args:
        tree: the sections.
        where: names the config in errors.
        note: called with a sentence for each key that has another name or place by now.
        stored: the tree is the `config.json` of a run. Older versions stored keys that the
            objective or the kind of index does not read as well; these are left out instead of
            refused.

    Raises:
        ConfigError: as of `load`.
    """
    tree, problems = renamed_tree(tree, note)
    values = tree.get("vars", {})
    if isinstance(values, Mapping) and not stored:
        tree, lacking = substitute(tree, values)
        if lacking:
            raise ConfigError("; ".join([*problems, *lacking]), where=where)
    train = tree.get("train", {})
    objective = objective_of(train)
    if isinstance(train, Mapping):
        if objective is None:  # nothing can be said of the other keys
            flat: dict[str, Any] = {"objective": train["objective"]}
        else:
            train = moved_train(train, objective, note)
            train = {**train, "objective": objective}
            flat, refused = flat_train(train, objective, _COMMON, stored=stored)
            problems += refused
        tree = {**tree, "train": flat}
    if isinstance(index := tree.get("index"), Mapping):
        if not stored:
            problems += [f"index.{key}: {reason}" for key, reason in refused_index(index).items()]
        tree = {**tree, "index": read_index(index)}
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        problems += explain(error, Config, objective or DEFAULT_OBJECTIVE)
    if problems:
        raise ConfigError("; ".join(problems), where=where)
    return config
