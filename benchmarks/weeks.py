"""Ids that never move: ten weekly runs over a grocer's receipts, each continuing the one before.

    python benchmarks/weeks.py [--json] [--weeks 10] [--window 0] [--retire-after 3]

The log is the data set `completejourney`, cut into a file per week. As a nightly run over a
growing log does, run k reads weeks 1 to k; with --window n it reads the last n weeks, so that
households and products fade out and come back. It ends with an error unless

* no id ever changed its row, and no row was ever given to two ids;
* ids that have their minimum count, and with a growing log all ids and their counts, are in
  every run those of a run over the same weeks that continues nothing.

Prints a table; with --json one flat JSON object last. Runs in a temporary folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from harness.command_line import finish, parser_of
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.prepare import events, vocab
from embedmill.pipeline.prepare.engine.connection import open_session
from embedmill.pipeline.prepare.vocabulary import base_vocabulary
from embedmill.pipeline.store.datasets import resolve
from embedmill.pipeline.store.run import Run

SIDES = ("users", "items")
LEAST = {"min_user_count": 5, "min_item_count": 3}  # met by some in the first week already


@dataclass(frozen=True)
class Week:
    """A run: its vocabulary, what one that continues nothing has, and seconds of either."""

    number: int
    run: Run
    alone: Run
    seconds: float
    seconds_alone: float


def cut(folder: Path, weeks: int) -> list[str]:
    """A Parquet file per week; returns their paths."""
    columns = ["household_id", "product_id", "transaction_timestamp", "week"]
    table = pq.read_table(resolve("dataset:completejourney/transactions.parquet"), columns=columns)
    paths = []
    for week in range(1, weeks + 1):
        path = folder / f"week-{week:02d}.parquet"
        pq.write_table(table.filter(pc.equal(table["week"], week)), path)
        paths.append(str(path))
    return paths


def built(session: SparkSession, root: Path, name: str, paths: Sequence[str], **keys: Any) -> Run:
    """A run up to its vocabulary."""
    tree = {
        "run": {"name": name, "root": str(root)},
        "events": {
            "paths": list(paths),
            "format": "parquet",
            "user": "household_id",
            "item": "product_id",
            "time": "transaction_timestamp",
            "merge_weight": "count",
        },
        "vocab": {**LEAST, **keys},
    }
    run = Run(parse(tree))
    out = run.writer("events", events.source_stamps(run))
    events.build(session, run, out, Quiet())
    out = run.writer("vocab", base_vocabulary.source_stamps(run))
    vocab.build(session, run, out, Quiet())
    return run


def weekly(session: SparkSession, folder: Path, args: argparse.Namespace) -> list[Week]:
    """A run a week, and beside each one over the same weeks that continues nothing."""
    paths, found = cut(folder, args.weeks), []
    rule: dict[str, Any] = {"retire_after": args.retire_after}
    for number in range(1, args.weeks + 1):
        read = paths[max(0, number - args.window) if args.window else 0 : number]
        began = time.perf_counter()
        run = built(session, folder / "weekly", f"week-{number:02d}", read, **rule)
        middle = time.perf_counter()
        alone = built(session, folder / "alone", f"week-{number:02d}", read)
        ended = time.perf_counter()
        found.append(Week(number, run, alone, middle - began, ended - middle))
        rule["previous"] = run.config.run.name
    return found


def ids_of(run: Run, side: str) -> dict[str, tuple[int, int, int]]:
    """id → (row, count, missed)."""
    table = run.artifact("vocab").read_tables(side, ["id", "row", "count", "missed"])
    return dict(zip(table["id"].to_pylist(), _rows(table), strict=True))


def _rows(table: pa.Table) -> list[tuple[int, int, int]]:
    return list(zip(*(table[c].to_pylist() for c in ("row", "count", "missed")), strict=True))


def judged(weeks: Sequence[Week], *, growing: bool) -> dict[str, int]:
    """What must be zero: ids that moved, rows given twice, ids and counts that differ."""
    wrong = dict.fromkeys(("moved", "given_twice", "lost", "other_ids", "other_counts"), 0)
    for side in SIDES:
        row_of: dict[str, int] = {}
        owner: dict[int, str] = {}
        for week in weeks:
            ids, alone = ids_of(week.run, side), ids_of(week.alone, side)
            wrong["moved"] += sum(row_of.setdefault(i, v[0]) != v[0] for i, v in ids.items())
            wrong["given_twice"] += sum(owner.setdefault(v[0], i) != i for i, v in ids.items())
            wrong["lost"] += len(row_of.keys() - ids.keys())
            enough = {i for i, (_, _, missed) in ids.items() if not missed}
            wrong["other_ids"] += len(enough ^ alone.keys())
            if growing:
                wrong["other_ids"] += len(ids.keys() ^ alone.keys())
                wrong["other_counts"] += sum(ids[i][1] != v[1] for i, v in alone.items())
    return wrong


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--weeks", type=int, default=10)
    parser.add_argument("--window", type=int, default=0, help="weeks a run reads; 0: all so far")
    parser.add_argument("--retire-after", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedmill-weeks-") as folder:
        with open_session("sail") as session:
            weeks = weekly(session, Path(folder), args)
        wrong = judged(weeks, growing=not args.window)
        flat = printed(weeks, wrong)
    finish(args, flat)
    if any(wrong.values()):
        sys.exit(f"ids moved, or others were found: {wrong}")


def printed(weeks: Sequence[Week], wrong: dict[str, int]) -> dict[str, float]:
    """The table; returns the figures of the last week."""
    print("week     events |  users   new back retired |   items    new back retired")
    for week in weeks:
        c = week.run.artifact("vocab").counters
        cells = [f"{week.number:4} {c['events_kept']:10,}"]
        for side, width in (("users", 6), ("items", 7)):
            shown = (c[f"{side}_{k}"] for k in ("live", "new", "back", "retired"))
            live, new, back, retired = shown
            cells.append(f"{live:{width},} {new:{width - 1},} {back:4,} {retired:7,}")
        print(" | ".join(cells))
    last = weeks[-1].run.artifact("vocab").counters
    flat: dict[str, float] = {name: last[name] for name in ("events_kept", "users", "items")}
    flat |= wrong
    flat["seconds_over_alone"] = round(
        sum(w.seconds for w in weeks) / sum(w.seconds_alone for w in weeks), 3
    )
    print(" · ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in wrong.items()))
    print(f"time of all runs over those that continue nothing: {flat['seconds_over_alone']:.2f}")
    return flat


if __name__ == "__main__":
    main()
