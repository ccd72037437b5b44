"""The TOML of a run whose objective and settings were found by trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedmill.pipeline.config.load import load, parse
from embedmill.pipeline.config.objectives import DEFAULT_OBJECTIVE, OBJECTIVE_KEYS, readers_of
from embedmill.pipeline.config.renames import renamed_path, renamed_tree
from embedmill.pipeline.config.toml import parse_override, put, read
from embedmill.pipeline.config.train_layout import current_path
from embedmill.pipeline.errors import ConfigError

__all__ = ["auto_tree", "tuned_tree"]

_RANKING_EVENTS = ("auto", "softmax", "bpr", "ccl", "ials", "spectral")


def auto_tree(
    path: str | Path, sets: Sequence[str] = (), given: Sequence[str] = ()
) -> dict[str, Any]:
    """The tree of a TOML with objective "auto", with what does not belong to an objective kept.

    Strings keep their variables, whose defaults are the values of this call.

    Args:
        path: a TOML file.
        sets: overrides, as of `load`.
        given: values of variables, as of `load`.

    Raises:
        ConfigError: as of `load`; or its objective learns from something else than `auto`.
    """
    config = load(path, sets, given=given)
    objective = config.train.objective
    if objective not in _RANKING_EVENTS:
        what = "ratings" if objective == "rating" else "pairs of items"
        raise ConfigError(
            f"'{objective}' learns from {what}: there is nothing to choose from, for tune compares "
            "objectives that rank items",
            where="train.objective",
            todo="Leave it out, or set it to 'auto', to rank the items of this log",
        )
    tree, _ = renamed_tree(read(Path(path)), lambda _note: None)
    for keys, value in map(parse_override, sets):
        put(tree, current_path(renamed_path(keys), objective), value)
    if config.vars:
        tree["vars"] = dict(config.vars)
    train = tree.get("train", {})
    # A closed form's epochs say nothing of the others.
    dropped = {"objective", *(["epochs"] if objective == "spectral" else [])}
    kept = {k: v for k, v in train.items() if k not in dropped and _is_kept(k, objective)}
    return {**tree, "train": {"objective": DEFAULT_OBJECTIVE, **kept}}


def tuned_tree(
    tree: Mapping[str, Any], objective: str, train: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The tree with the objective and the settings that were found.

    Args:
        tree: as of `auto_tree`.
        objective: the best one.
        train: keys of [train]: "dim", "epochs".
        settings: by field of section train: "temperature", "smoothing.weight", "ials.block_size".
    """
    keys, section = OBJECTIVE_KEYS[objective], DEFAULT_OBJECTIVE
    kept = {k: v for k, v in tree["train"].items() if k not in ("objective", section)}
    tuned = {**tree, "train": {"objective": objective, **kept, **train}}
    for field, value in settings.items():
        head, _, rest = field.partition(".")
        place = f"train.{field}" if head == keys.section else keys.path(head)
        if rest and head != keys.section:
            place = f"{place}.{rest}"
        put(tuned, tuple(place.split(".")), value)
    parse(tuned, where="the tuned config")
    return tuned


def _is_kept(key: str, objective: str) -> bool:
    """Whether a key of [train] means the same with every objective."""
    of_auto = key == DEFAULT_OBJECTIVE and objective == DEFAULT_OBJECTIVE
    return key == "weight_power" or of_auto or not readers_of(key)
