"""Vocabularies that continue each other, over logs given as pairs, and what they should hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse
from embedmill.pipeline.store.run import Run, save_config
from embedmill.schemas.events import EVENTS
from tests.support.prepare_builds import build_stage
from tests.support.worlds import config_tree, laid

Pair = tuple[str, str]
SIDES = ("users", "items")
# id → (row, count, missed, live); the key None stands for shared rows, by row
Vocabulary = dict[str, dict[str, tuple[int, int, int, bool]]]


def with_events(root: Path | str, name: str, pairs: Sequence[Pair], **sections: Any) -> Run:
    """A run whose events are these, spread over three files in the order given."""
    tree = laid(config_tree(root, "log.tsv", name), **sections)
    run = Run(parse(tree))
    save_config(run)
    out = run.writer("events")
    for part in range(3):
        mine = list(enumerate(pairs))[part::3]
        columns = {
            "user": [u for _, (u, _) in mine],
            "item": [i for _, (_, i) in mine],
            "time": [1_000_000 * n for n, _ in mine],
            "weight": [1.0] * len(mine),
            "split": pa.nulls(len(mine), pa.string()),
        }
        out.write_table(f"data/part-{part:05d}.parquet", pa.table(columns, schema=EVENTS))
    total = len(pairs)
    out.write_json("days.json", [("1970-01-01", total)])
    out.commit({"rows_in": total, "events": total, "rejected": 0, "merged": 0, "rejects_kept": 0})
    return run


def history(
    session: SparkSession, root: Path | str, logs: Sequence[Sequence[Pair]], **vocab: Any
) -> list[Run]:
    """Runs r1, r2, … over the logs, each continuing the one before."""
    runs: list[Run] = []
    for number, pairs in enumerate(logs, 1):
        before = {"previous": runs[-1].config.run.name} if runs else {}
        run = with_events(root, f"r{number}", pairs, vocab={**vocab, **before})
        build_stage(session, run, "vocab")
        runs.append(run)
    return runs


def held(run: Run) -> Vocabulary:
    """What the vocabulary of a run holds, without shared rows."""
    artifact, found = run.artifact("vocab"), {}
    for side in SIDES:
        table = artifact.read_tables(side)
        assert table["row"].to_pylist() == list(range(table.num_rows))
        columns = [table[c].to_pylist() for c in ("row", "count", "missed", "live")]
        ids = table["id"].to_pylist()
        found[side] = {
            raw: values for raw, *values in zip(ids, *columns, strict=True) if raw is not None
        }
        found[side] = {raw: tuple(values) for raw, values in found[side].items()}
        assert len(found[side]) == len([i for i in ids if i is not None])
    return found


def core(pairs: Sequence[Pair], users: int, items: int) -> list[Pair]:
    """The (users, items)-core, the slow way: one id at a time."""
    kept = list(pairs)
    while True:
        counts = [Counter(p[side] for p in kept) for side in range(2)]
        rare = [
            {i for i, n in counts[side].items() if n < least}
            for side, least in enumerate((users, items))
        ]
        if not any(rare):
            return kept
        side = 0 if rare[0] else 1
        gone = min(rare[side])
        kept = [p for p in kept if p[side] != gone]


def continued(
    before: Vocabulary, pairs: Sequence[Pair], least: tuple[int, int], retire_after: int
) -> Vocabulary:
    """What a run over `pairs` should hold, worked out id by id."""
    strong = core(pairs, *least)
    enough = [{p[side] for p in strong} for side in range(2)]
    grace = [
        {i for i, (_, _, missed, _) in before.get(name, {}).items() if missed < retire_after}
        for name in SIDES
    ]
    kept = [p for p in pairs if all(p[s] in enough[s] | grace[s] for s in range(2))]
    found: Vocabulary = {}
    for side, name in enumerate(SIDES):
        known, counts = before.get(name, {}), Counter(p[side] for p in kept)
        found[name] = {}
        for raw, (row, _, missed, _) in known.items():
            n = counts[raw]
            found[name][raw] = (row, n, 0 if raw in enough[side] else missed + 1, n > 0)
        new = sorted(enough[side] - known.keys(), key=lambda i: (-counts[i], i.encode()))
        for row, raw in enumerate(new, len(known)):
            found[name][raw] = (row, counts[raw], 0, True)
    return found


def counters(found: Mapping[str, Any]) -> dict[str, int]:
    """Live and retired rows of a vocabulary, as the stage counts them."""
    return {
        f"{name}_{state}": sum(value[3] == (state == "live") for value in found[name].values())
        for name in SIDES
        for state in ("live", "retired")
    }
