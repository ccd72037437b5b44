"""Runs up to `train` that are written from arrays, without Spark or training.

Legend: N rows of a table, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedmill.jobs import export as export_job
from embedmill.jobs import index as index_job
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run, save_config
from embedmill.schemas.vocab import ROWS_PER_FILE
from tests.support.artifacts import (
    Floats,
    Splits,
    arrays_of,
    vocabulary,
    write_events,
    write_shards,
    write_train,
    write_vocab,
)
from tests.support.worlds import Pairs, PlantedWorld, config

__all__ = ["StoredRun", "clusters", "finished", "planted", "store", "titled"]


@dataclass
class StoredRun:
    """What the artifacts of a run say: raw ids, events by split as rows, tables of the model."""

    users: list[str]
    items: list[Any]
    splits: Mapping[str, Pairs]
    user_ND: Floats
    item_ND: Floats
    model: Mapping[str, Any] = field(default_factory=dict)
    user_bias: Floats | None = None
    item_bias: Floats | None = None
    titles: list[str] = field(default_factory=list)
    categories: list[list[str]] = field(default_factory=list)
    retired: frozenset[str | None] = frozenset()  # None for rows without an id
    vocab_rows: int = ROWS_PER_FILE  # of a file
    continues: str = ""  # folder of the run whose rows it keeps

    def store(self, root: Path | str, **sections: Any) -> Run:
        """Write events, vocab, shards and train."""
        run = Run(config(root, "log.tsv", **sections))
        splits = {split: arrays_of(pairs) for split, pairs in self.splits.items()}
        total = sum(len(pairs) for pairs in self.splits.values())
        categories = self.categories or [[]] * len(self.items)
        meta = {"item": self.items, "title": self.titles, "categories": categories}
        write_events(run, total, items=meta if self.titles else None)
        users, items = self._side(0, self.users), self._side(1, self.items)
        write_vocab(run, users, items, total, base=self.continues, file_rows=self.vocab_rows)
        write_shards(run, splits)
        biases = {"users": self.user_bias, "items": self.item_bias}
        given = {name: bias for name, bias in biases.items() if bias is not None}
        write_train(run, {"users": self.user_ND, "items": self.item_ND}, self.model, given)
        return run

    def _side(self, column: int, ids: Sequence[str | None]) -> Any:
        """The vocabulary of the users (column 0 of an event) or of the items (1)."""
        counts = [0] * len(ids)
        for pairs in self.splits.values():
            for pair in pairs:
                counts[int(pair[column])] += 1
        return vocabulary(ids, counts, [one not in self.retired for one in ids])


def clusters(
    users: int = 40, items: int = 30, clusters: int = 5, dim: int = 8, seed: int = 3
) -> StoredRun:
    """A planted world whose users train on items of their own cluster, and its vectors."""
    world = PlantedWorld(users, items, clusters, seed=seed)
    user_ND, item_ND = world.vectors(dim, 0.05)
    return StoredRun(
        users=[f"u{u}" for u in range(users)],
        items=[f"i{i}" for i in range(items)],
        splits=world.home_splits(),
        user_ND=user_ND,
        item_ND=item_ND,
    )


def titled() -> StoredRun:
    """The same with titles, categories that need quoting, and item i7 retired; by inner product."""
    return replace(
        clusters(users=40, items=30),
        titles=[f"Title {i}" for i in range(30)],
        categories=[["odd", 'a "b", \\c'] if i % 2 else [] for i in range(30)],
        retired=frozenset({"i7"}),
        model={"similarity": "dot"},
    )


def finished(contents: StoredRun, root: Path | str, **sections: Any) -> Run:
    """The run with its export and its index."""
    run = contents.store(root, **sections)
    for stage, job in (("export", export_job), ("index", index_job)):
        job.build(run, run.writer(stage), Quiet())
    save_config(run)
    return run


def store(run: Run, users: int, items: int, splits: Splits) -> Run:
    """Write the artifacts that training reads; every id counts as one event."""
    total = sum(len(columns[0]) for columns in splits.values())
    write_events(run, total)
    sides = (
        vocabulary([f"{side}{row}" for row in range(count)], [1] * count)
        for side, count in (("u", users), ("i", items))
    )
    write_vocab(run, *sides, total)
    write_shards(run, splits)
    return run


def planted(root: Path | str, world: PlantedWorld | None = None, **sections: Any) -> Run:
    """A run whose shards hold a planted world; each user's last two events are held out."""
    world = world or PlantedWorld()
    splits = {name: arrays_of(pairs) for name, pairs in world.last_splits().items()}
    return store(Run(config(root, "log.tsv", **sections)), world.users, world.items, splits)
