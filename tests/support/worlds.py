"""Tiny data with a known answer, shared by the tests.

Legend: N rows of a table, D coordinates.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.config import Config, parse
from embedmill.pipeline.config.objectives import OBJECTIVE_KEYS, readers_of
from embedmill.pipeline.config.train_layout import moved_train

DAY = 86_400
START = 1_577_836_800  # 2020-01-01T00:00:00Z
Floats = npt.NDArray[np.float32]
Pairs = list[tuple[int, int, float]]  # row of the user, row of the item, weight


@dataclass(frozen=True)
class PlantedWorld:
    """Users and items in clusters; a user's events stay in its cluster but for a few.

    User u is `u<u>` in cluster u mod clusters; item i is `i<i>` in cluster i mod clusters. An
    item's neighbours are its cluster, a user's recommendations too.
    """

    users: int = 60
    items: int = 40
    clusters: int = 4
    events_per_user: int = 8
    stray: float = 0.05
    seed: int = 7

    def events(self) -> list[tuple[str, str, int, float]]:
        """(user, item, seconds, weight), in the order of a log; pairs are distinct."""
        draw = random.Random(self.seed)
        found = []
        for user in range(self.users):
            home = [i for i in range(self.items) if i % self.clusters == user % self.clusters]
            chosen: set[int] = set()
            while len(chosen) < min(self.events_per_user, len(home)):
                anywhere = draw.random() < self.stray
                chosen.add(draw.randrange(self.items) if anywhere else draw.choice(home))
            for item in sorted(chosen):
                when = START + draw.randrange(300 * DAY)
                same = item % self.clusters == user % self.clusters
                weight = 5.0 - draw.random() if same else 1.0 + draw.random()
                found.append((f"u{user}", f"i{item}", when, round(weight, 2)))
        draw.shuffle(found)
        return found

    def last_splits(self) -> dict[str, Pairs]:
        """`events` by rows: each user's first event in the log is in test, its second in valid."""
        splits: dict[str, Pairs] = {"train": [], "valid": [], "test": []}
        seen: dict[int, int] = {}
        for user, item, _, weight in self.events():
            row = int(user[1:])
            seen[row] = seen.get(row, 0) + 1
            name = {1: "test", 2: "valid"}.get(seen[row], "train")
            splits[name].append((row, int(item[1:]), weight))
        return splits

    def home_splits(self) -> dict[str, Pairs]:
        """Events with items of the user's own cluster alone, whatever `events` are.

        Of the items of its cluster a user has the first in valid, the second in test, the others
        but the last in train.
        """
        splits: dict[str, Pairs] = {"train": [], "valid": [], "test": []}
        for user in range(self.users):
            home = [(user, i, 1.0) for i in range(user % self.clusters, self.items, self.clusters)]
            splits["valid"] += home[:1]
            splits["test"] += home[1:2]
            splits["train"] += home[2:-1]
        return splits

    def vectors(self, dim: int, noise: float) -> tuple[Floats, Floats]:
        """Vectors of users and of items, float32 [N, D], near the centre of their cluster.

        Centres are orthogonal and of length one; more clusters than coordinates share them.
        """
        draw = np.random.default_rng(self.seed)
        centre = np.linalg.qr(draw.standard_normal((dim, dim)))[0][: self.clusters]
        user_ND, item_ND = (
            centre.astype(np.float32)[np.arange(rows) % self.clusters % dim]
            for rows in (self.users, self.items)
        )
        user_ND = user_ND + noise * draw.standard_normal(user_ND.shape)
        item_ND = item_ND + noise * draw.standard_normal(item_ND.shape)
        return user_ND.astype(np.float32), item_ND.astype(np.float32)

    def write(self, path: Path) -> Path:
        """The log as TSV with a header."""
        lines = ["user_id\titem_id\ttime\trating"]
        lines += [f"{u}\t{i}\t{t}\t{w}" for u, i, t, w in self.events()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def write_items(self, path: Path) -> Path:
        """Item metadata as TSV: id, title, genres."""
        lines = ["item_id\ttitle\tgenres"]
        lines += [f"i{i}\tItem {i}\tcluster-{i % self.clusters}|all" for i in range(self.items)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


def config_tree(root: Path | str, log: Any, name: str = "tiny") -> dict[str, Any]:
    """A small fast run over a log with the columns of a planted world's, as a parsed TOML."""
    paths = log if isinstance(log, list) else str(log)
    return {
        "run": {"name": name, "root": str(root), "partitions": 4},
        "events": {
            "paths": paths,
            "time": "time",
            "weight": "rating",
        },
        "shards": {"split": "last", "valid": 1, "test": 1},
        "train": {
            "dim": 8,
            "epochs": 3,
            "batch_size": 64,
            "negatives": 16,
            "workers": 1,
            "launcher": "inline",
        },
        "index": {"queries": 50},
        "evaluate": {"ks": [5, 10]},
    }


def laid(tree: Mapping[str, Any], **sections: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with keys of sections laid over it.

    With another objective, keys of the tree's [train] that it does not read are left out.
    """
    merged = {name: {**tree.get(name, {}), **dict(keys)} for name, keys in sections.items()}
    if "train" in sections:
        merged["train"] = _train(tree.get("train", {}), sections["train"])
    return {**tree, **merged}


def _train(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    objective = changes.get("objective", base.get("objective", "softmax"))
    if objective not in OBJECTIVE_KEYS:
        return {**base, **changes}
    keys = OBJECTIVE_KEYS[objective]
    read = {
        k: v for k, v in base.items() if not readers_of(k) or keys.reads(k) or k == keys.section
    }
    sections = [moved_train(one, objective, lambda _: None) for one in (read, changes)]
    own = {k: v for one in sections for k, v in one.get(keys.section, {}).items()}
    return {**sections[0], **sections[1], **({keys.section: own} if own else {})}


def config(root: Path | str, log: Path | str, **sections: Mapping[str, Any]) -> Config:
    """`config_tree` with sections laid over it, checked."""
    return parse(laid(config_tree(root, log), **sections))
