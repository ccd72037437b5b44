"""Section train as it stands in the TOML, and as `TrainConfig` holds it.

In the TOML an objective has its own section, [train.softmax] with `temperature` in it.
`TrainConfig` has one field for each key, whichever objective reads it: its names are those
that fingerprints of runs are made of, and those of an objective that does not read a key
keep its default. Older configs have all keys in [train]; they are read too.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from embedmill.pipeline.config.objectives import (
    DEFAULT_OBJECTIVE,
    OBJECTIVE_KEYS,
    ObjectiveKeys,
    readers_of,
)

__all__ = [
    "current_path",
    "flat_train",
    "is_of_softmax",
    "is_read",
    "moved_train",
    "objective_of",
    "sectioned_train",
]

# Sections that `TrainConfig` has as models of their own.
_NESTED: dict[str, tuple[str, ...]] = {
    "auto": ("budget", "trial_events"),
    "ccl": ("margin", "negative_weight"),
    "item2vec": ("negatives_per_pair", "history"),
    "ials": (
        "regularization",
        "regularization_power",
        "unobserved_weight",
        "block_size",
        "cg_steps",
    ),
    "spectral": ("user_power", "item_power", "popularity_power", "ridge", "passes", "start_passes"),
}


def objective_of(train: Any) -> str | None:
    """The objective of a section train; None where it names one that does not exist.

    One that names none is of objective "auto"; or "softmax", the default of earlier versions, if
    it has a key that softmax reads and auto does not.
    """
    if not isinstance(train, Mapping):
        return DEFAULT_OBJECTIVE
    name = train.get("objective", DEFAULT_OBJECTIVE)
    if "objective" not in train and any(map(is_of_softmax, train)):
        return "softmax"
    return name if isinstance(name, str) and name in OBJECTIVE_KEYS else None


def is_of_softmax(key: object) -> bool:
    """Whether `key` of [train], or a section, is read by softmax and not by auto."""
    softmax, auto = OBJECTIVE_KEYS["softmax"], OBJECTIVE_KEYS[DEFAULT_OBJECTIVE]
    name = str(key)
    return name == softmax.section or (softmax.reads(name) and not auto.reads(name))


def current_path(path: tuple[str, ...], objective: str) -> tuple[str, ...]:
    """Where a key stands today that may be given in its old place in [train]."""
    keys = OBJECTIVE_KEYS[objective]
    if len(path) > 1 and path[0] == "train" and path[1] in keys.own and path[1] != keys.section:
        return ("train", keys.section, *path[1:])
    return path


def moved_train(
    train: Mapping[str, Any], objective: str, note: Callable[[str], None]
) -> dict[str, Any]:
    """Section train with the objective's own keys in its own section.

    Args:
        train: the section; it may have them in their old places, beside `objective`.
        objective: its objective.
        note: called with a sentence for each key that is moved.
    """
    keys, kept = OBJECTIVE_KEYS[objective], dict(train)
    own = kept.get(keys.section, {})
    if not isinstance(own, Mapping):
        return kept  # refused by `flat_train`
    moved = [key for key in kept if key in keys.own and key not in own]
    for key in moved:
        for old, new in _moves(key, kept[key], keys):
            note(f"{old} is now {new}")
        own = {**own, key: kept.pop(key)}
    return {**kept, keys.section: own} if moved else kept


def flat_train(
    train: Mapping[str, Any], objective: str, common: Collection[str], *, stored: bool
) -> tuple[dict[str, Any], list[str]]:
    """Section train of a TOML as the fields of `TrainConfig`.

    Args:
        train: the section, as of `moved_train`.
        objective: its objective.
        common: keys of [train] that every objective reads.
        stored: the config was stored with a run: keys that the objective does not read are
            left out instead of refused.

    Returns:
        the fields, and a sentence for each key that is refused.
    """
    keys, problems = OBJECTIVE_KEYS[objective], list[str]()
    flat: dict[str, Any] = {}
    own = train.get(keys.section, {})
    if not isinstance(own, Mapping):
        return flat, [f"train.{keys.section}: a section is needed, got {own!r}"]
    for key, value in train.items():
        if key in common or key in keys.shared:
            flat[key] = value
        elif key in keys.own:
            problems.append(f"train.{key}: given twice, also as {keys.path(key)}")
        elif key != keys.section and not (stored and readers_of(key)):
            problems.append(_refusal(f"train.{key}", key, objective, (*common, *keys.shared)))
    for key, value in own.items():
        if key in keys.own:
            _put(flat, keys, key, value)
        elif not (stored and readers_of(key)):
            problems.append(_refusal(f"train.{keys.section}.{key}", key, objective, keys.own))
    if _smooths_nothing(flat, keys):
        flat.pop("smoothing")
        if not stored:
            problems.append(
                f"{keys.path('smoothing')}: read only with similarity = 'cosine'; leave it out"
            )
    return flat, problems


def sectioned_train(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `TrainConfig` as section train of a TOML: what its objective reads."""
    keys = OBJECTIVE_KEYS[str(flat["objective"])]
    nested = {name: flat[name] for name in _NESTED}
    own = {
        key: nested[keys.section][key] if key in _NESTED.get(keys.section, ()) else flat[key]
        for key in keys.own
    }
    if own.get("similarity") == "dot" and own.get("smoothing", {}).get("weight"):
        del own["smoothing"]  # read with cosine only; the weight is the default
    kept = {
        key: value
        for key, value in flat.items()
        if key not in nested and (key in keys.shared or not readers_of(key))
    }
    return {**kept, keys.section: own}


def is_read(path: tuple[str, ...], objective: str, similarity: str) -> bool:
    """Whether an objective reads a field of `TrainConfig`.

    Args:
        path: below [train], by today's names: ("temperature",), ("ials", "block_size").
        objective: one of `OBJECTIVE_KEYS`.
        similarity: how users and items are compared; smoothing is read with "cosine" only.
    """
    keys = OBJECTIVE_KEYS[objective]
    key = path[-1] if path[0] in _NESTED else path[0]
    if key == "smoothing" and similarity != "cosine":
        return False
    return keys.reads(key) or not readers_of(key)


def _put(flat: dict[str, Any], keys: ObjectiveKeys, key: str, value: Any) -> None:
    """Set the field of an objective's own key."""
    if key in _NESTED.get(keys.section, ()):
        flat.setdefault(keys.section, {})[key] = value
    else:
        flat[key] = value


def _smooths_nothing(flat: Mapping[str, Any], keys: ObjectiveKeys) -> bool:
    """Whether smoothing is given that is not read, for vectors are not of length one."""
    similarity = flat.get("similarity", keys.defaults.get("similarity"))
    if similarity != "dot" or "smoothing" not in flat:
        return False
    smoothing = flat["smoothing"]
    return not (isinstance(smoothing, Mapping) and smoothing.get("weight") == 0)


def _moves(key: str, value: Any, keys: ObjectiveKeys) -> list[tuple[str, str]]:
    """Old and new place of a key, or of all keys of a subsection."""
    if isinstance(value, Mapping):
        return [(f"train.{key}.{one}", f"{keys.path(key)}.{one}") for one in value]
    return [(f"train.{key}", keys.path(key))]


def _refusal(path: str, key: str, objective: str, allowed: Collection[str]) -> str:
    """Why a key of [train] or of the objective's own section is refused."""
    if readers := readers_of(key):
        return f"{path}: not read by objective '{objective}', only by {', '.join(readers)}"
    keys = OBJECTIVE_KEYS[objective]
    here = {name: name for name in allowed}
    elsewhere = {name: keys.path(name) for name in (*keys.own, *keys.shared) if name not in here}
    if objective == DEFAULT_OBJECTIVE:  # a key of softmax is enough to name it
        softmax = OBJECTIVE_KEYS["softmax"]
        elsewhere = {**{name: softmax.path(name) for name in softmax.own}, **elsewhere}
    near = difflib.get_close_matches(key, [*here, *elsewhere], 1)
    hint = f"did you mean '{ {**here, **elsewhere}[near[0]] }'? " if near else ""
    return f"{path}: unknown key; {hint}allowed: {', '.join(sorted(allowed))}"
