"""Public sets, a TOML file each: the log, its split, settings chosen on validation, published rows.

    kind = "ranking"                   # or "ratings"
    file = "gowalla/checkins.tsv.gz"   # below EMBEDMILL_DATA, a path, or dataset:NAME/FILE
    metrics = ["recall@20", "ndcg@20"] # columns of the table; these are the defaults of a ranking
    folds = ["1", "2", "3", "4", "5"]  # each is the test part once; a number: lines take turns

    [events]  [vocab]  [shards]  [evaluate]   # sections of every run, as in a config

    [[tuned]]                          # settings chosen on validation, one table an objective
    [tuned.train]
    objective = "softmax"

    [published."LightGCN"]             # a row of others
    "recall@20" = 0.183

    [peers.implicit]                   # settings of a peer, chosen on validation
    alpha = 10
    regularization = 5.0

The files are `benchmarks/sets/NAME.toml`; a path to any other works as well.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedmill.pipeline.config.toml import emit
from embedmill.pipeline.store.datasets import PREFIX, resolve
from harness.public_sets import path_of

__all__ = ["FOLDER", "PublicSet", "load_set", "set_names", "write_config"]

FOLDER = Path(__file__).parents[1] / "sets"

Row = dict[str, float]
Tree = dict[str, Any]

_METRICS = {"ranking": ("recall@20", "ndcg@20"), "ratings": ("rmse",)}
_SECTIONS = ("run", "events", "vocab", "shards", "train", "export", "index", "evaluate")
_KEYS = ("kind", "file", "metrics", "folds", "tuned", "published", "peers", *_SECTIONS)
_DEFAULTS: Tree = {
    "run": {"partitions": 16},
    "evaluate": {"ks": [20, 100]},
    "train": {"refit": True},
}


@dataclass(frozen=True)
class PublicSet:
    """A set, as its file says.

    Attributes:
        name: stem of the file.
        kind: "ranking" or "ratings".
        file: the raw log, as the file has it; see `raw`.
        folder: of the set's file.
        metrics: columns of the table.
        folds: values of `events.split`, each the test part once; none for a single run.
        take_turns: line n of the log is in fold n modulo their number, plus 1.
        sections: of every run.
        tuned: further sections by objective, the first the one that is run by default.
        published: rows of others.
        peers: settings of the peers of `time_to_quality.py`, by name.
    """

    name: str
    kind: str
    file: str
    folder: Path
    metrics: tuple[str, ...]
    folds: tuple[str, ...]
    take_turns: bool
    sections: Tree
    tuned: dict[str, Tree]
    published: dict[str, Row]
    peers: dict[str, Tree]

    def raw(self) -> Path:
        """The raw log: of a package, a path, beside the set's file, or below EMBEDMILL_DATA."""
        if self.file.startswith(PREFIX):
            return Path(resolve(self.file))
        beside = self.folder / self.file
        return beside if beside.is_file() else path_of(self.file)

    def tree(self, objective: str = "") -> Tree:
        """Sections of a run with the settings tuned for an objective; without one the defaults.

        The path of the log and the folder of the run are not among them. The defaults choose on
        validation: a set without such a part gets a tenth of its train events for it.
        """
        tree = _merged(_DEFAULTS, self.sections)
        if not objective and tree.get("shards", {}).get("valid") == 0:
            tree = _merged(tree, {"shards": {"valid": 0.1}})
        if self.kind == "ratings":
            tree = _merged({"train": {"objective": "rating"}}, tree)
        return _merged(tree, self.tuned[objective] if objective else {})


def set_names() -> list[str]:
    """The sets that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_set(name: str) -> PublicSet:
    """A set by its name, or by the path of its file; ends the process where there is none."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        sys.exit(f"no set '{name}': a path to a TOML, or one of {', '.join(set_names())}")
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    if unknown := sorted(set(tree) - set(_KEYS)):
        sys.exit(f"{path}: unknown {', '.join(unknown)}; allowed: {', '.join(_KEYS)}")
    if tree.get("kind") not in _METRICS or "file" not in tree:
        sys.exit(f"{path}: needs file, and kind as one of {', '.join(_METRICS)}")
    folds = tree.get("folds", ())
    return PublicSet(
        name=path.stem,
        kind=tree["kind"],
        file=tree["file"],
        folder=path.parent,
        metrics=tuple(tree.get("metrics", _METRICS[tree["kind"]])),
        folds=tuple(map(str, range(1, folds + 1) if isinstance(folds, int) else folds)),
        take_turns=isinstance(folds, int),
        sections={key: tree[key] for key in _SECTIONS if key in tree},
        tuned={one["train"]["objective"]: one for one in tree.get("tuned", ())},
        published=tree.get("published", {}),
        peers=tree.get("peers", {}),
    )


def write_config(path: Path, tree: Mapping[str, Any], raw: Path, name: str) -> None:
    """Write a run's TOML beside its folder.

    Args:
        path: of the TOML; the run's root is its folder.
        tree: sections, as `PublicSet.tree` gives them.
        raw: the log.
        name: of the run.
    """
    own = {"run": {"name": name, "root": str(path.parent)}, "events": {"paths": str(raw)}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(emit(_merged(tree, own)), encoding="utf-8")


def _merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`tree` with the keys of `over` in place of its own, table by table."""
    out = dict(tree)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merged(out[key], value) if both else value
    return out
