"""Tiny data with a known answer, shared by the tests."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedmill.pipeline.config import Config, parse
from embedmill.pipeline.config.objectives import OBJECTIVE_KEYS, readers_of
from embedmill.pipeline.config.train_layout import moved_train
from embedmill.schemas.vocab import VOCAB

DAY = 86_400
START = 1_577_836_800  # 2020-01-01T00:00:00Z


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


def config_tree(root: Path | str, log: Path | str, name: str = "tiny") -> dict[str, Any]:
    """A small fast run over a planted world's TSV, as a parsed TOML."""
    return {
        "run": {"name": name, "root": str(root), "partitions": 4},
        "events": {"paths": str(log), "time": "time", "weight": "rating"},
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


def vocabulary(
    ids: Sequence[str | None], counts: Sequence[int], live: Sequence[bool] = ()
) -> pa.Table:
    """A side of a vocabulary; every row is live unless `live` says otherwise."""
    flags = list(live) or [True] * len(ids)
    columns = [range(len(ids)), ids, counts, [int(not flag) for flag in flags], flags]
    return pa.table(dict(zip(VOCAB.names, columns, strict=True)), schema=VOCAB)


def counted(users: pa.Table, items: pa.Table) -> dict[str, int]:
    """The counters of a vocabulary's rows."""
    found = {}
    for name, table in (("users", users), ("items", items)):
        live = sum(table["live"].to_pylist())
        found |= {name: table.num_rows, f"{name}_live": live, f"{name}_shared": 0}
        found[f"{name}_retired"] = table.num_rows - live
    return found


def config(root: Path | str, log: Path | str, **sections: Mapping[str, Any]) -> Config:
    """`config_tree` with sections laid over it, checked."""
    return parse(laid(config_tree(root, log), **sections))
