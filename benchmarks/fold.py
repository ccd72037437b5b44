"""Fold-in: how good vectors are of users whom a model was not fitted to, and how fast they come.

    python benchmarks/fold.py gowalla [--objective ials] [--users 2000] [--folder DIR] [--json]

The set is trained twice: with all users, and without the train events of `--users` of them, drawn
by a hash of the id. Then these users get vectors from their train events, with the tables of the
second run fixed. Recall@20 on their test events is compared with that of the first run's vectors,
and the rows a second of the fold-in are those of all users of the set, without reading the log.
Validation events count as train events.

Prints a table; with --json one flat JSON object last: `share_of_trained.OBJECTIVE` and
`rows_per_second.OBJECTIVE`.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from harness.command_line import finish, parser_of
from harness.exported import lists, recall
from harness.sets import PublicSet, load_set

from embedmill.jobs.all import run_line
from embedmill.pipeline.config import parse
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import Terminal
from embedmill.pipeline.train.fold_in import FoldIn, KnownEvents, trained_with
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors, spec_of


def cut(public: PublicSet, folder: Path, users: int) -> tuple[dict[str, str], set[str]]:
    """Write the whole log and the one without train events of some users; returns both and them."""
    keys = public.tree()["events"]
    table = pa.csv.read_csv(public.raw(), parse_options=pa.csv.ParseOptions(delimiter="\t"))
    ids = set(table[keys["user"]].to_pylist())
    withheld = set(sorted(ids, key=lambda one: hashlib.sha256(one.encode()).digest())[:users])
    names = ["user", "item", "split"]
    table = table.select([keys[name] for name in names]).rename_columns(names)
    split = pa.array(["test" if one == "test" else "train" for one in table["split"].to_pylist()])
    table = table.set_column(2, "split", split)
    kept = [
        split == "test" or user not in withheld
        for user, split in zip(table["user"].to_pylist(), split.to_pylist(), strict=True)
    ]
    paths = {}
    for name, some in (("all", table), ("without", table.filter(pa.array(kept)))):
        paths[name] = str(folder / f"{name}.parquet")
        pq.write_table(some, paths[name])
    return paths, withheld


def exported(public: PublicSet, objective: str, folder: Path, name: str, path: str) -> Run:
    """A run up to its vectors."""
    tree = public.tree(objective if objective in public.tuned else "")
    train: dict[str, Any] = {"objective": objective, **tree["train"], "refit": False, "workers": 1}
    tree = {
        "run": {"name": f"{name}-{objective}", "root": str(folder), "partitions": 16},
        "events": {"paths": [path], "format": "parquet", "user": "user", "item": "item",
                   "split": "split"},
        "shards": {"split": "given", "valid": 0},
        "train": {**train, "launcher": "inline"},
    }  # fmt: skip
    run = Run(parse(tree))
    run_line(run, last="export", terminal=Terminal(quiet=True))
    return run


def measured(every: Run, without: Run, withheld: set[str]) -> dict[str, float]:
    """Recall of both kinds of vectors of the withheld users, and the speed of the fold-in."""
    spec = spec_of(without.artifact("export"))
    items = Vectors.of(without.artifact("export"), "items")
    config = trained_with(without.artifact("train"), without.config)
    fold_in = FoldIn.of(spec, config, Shards(without.artifact("shards")), items)
    users = Vectors.of(every.artifact("export"), "users")
    rows = np.sort(users.vocabulary.rows_of(pa.array(sorted(withheld))))
    train, test = lists(every, "train"), lists(every, "test")
    trained = recall(every, rows, users.gather(rows), train, test)

    # Rows of items differ between the runs; ids do not.
    ids = pa.array(
        Vectors.of(every.artifact("export"), "items").vocabulary.ids(
            np.arange(spec_of(every.artifact("export")).items)
        ),
        pa.string(),
    )
    other = items.vocabulary.rows_of(ids)
    train, test = ((user, other[item]) for user, item in (train, test))
    train, test = ((user[item >= 0], item[item >= 0]) for user, item in (train, test))
    at = np.searchsorted(rows, train[0])
    mine = rows[np.minimum(at, len(rows) - 1)] == train[0]
    known = KnownEvents(at[mine], train[1][mine], np.ones(int(mine.sum())))
    folded = recall(without, rows, fold_in.vectors(known, len(rows)), train, test)

    distinct, position = np.unique(train[0], return_inverse=True)
    began, cpu = time.perf_counter(), time.process_time()
    fold_in.vectors(KnownEvents(position, train[1], np.ones(len(position))), len(distinct))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "trained": trained,
        "folded": folded,
        "share_of_trained": folded / trained,
        "rows_per_second": len(distinct) / seconds,
        "rows_per_cpu_second": len(distinct) / cpu,
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("set")
    parser.add_argument("--objective", action="append", help="repeatable; default: three")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--folder", help="keeps the runs; default: a temporary one")
    args = parser.parse_args()
    public = load_set(args.set)
    flat: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="embedmill-fold-") as scratch:
        folder = Path(args.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        paths, withheld = cut(public, folder, args.users)
        for objective in args.objective or ["softmax", "ials", "spectral"]:
            every, without = (
                exported(public, objective, folder, n, paths[n]) for n in ("all", "without")
            )
            found = measured(every, without, withheld)
            flat |= {f"{name}.{objective}": round(value, 4) for name, value in found.items()}
            print(
                f"{objective}: Recall@20 of {len(withheld):,} users {found['folded']:.4f} folded "
                f"in, {found['trained']:.4f} trained ({found['share_of_trained']:.1%}); "
                f"{found['rows_per_second']:,.0f} rows a second"
            )
            sys.stdout.flush()
    finish(args, flat)


if __name__ == "__main__":
    main()
