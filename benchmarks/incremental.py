"""An index that is carried over, beside the same built anew: recall, speed, seconds.

    python benchmarks/incremental.py [--set glove] [--kind hnsw] [--rows N] [--changed 0.05]
        [--removed 0.05] [--new 0.05] [--rounds 5] [--json]

The base is built over a set's vectors but a share that is new later; then a share of them gets
the vectors of others that were never in it, and another share is removed. Both indexes then hold
the same items and answer the same queries, in turns, on two threads. Seconds are those of the
delta and of the whole new build. Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness.command_line import finish, parser_of
from indexes.process import Exact
from indexes.vectors import SETS, Source

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import INDEXES
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.incremental.base_layout import Layout, plan_layout
from embedmill.pipeline.index.incremental.carry_over import build_delta
from embedmill.pipeline.index.incremental.incremental_index import IncrementalIndex
from embedmill.pipeline.index.searchable import Floats, Searchable

THREADS = 2


def nights(vector_ND: Floats, args: argparse.Namespace) -> tuple[Floats, Floats, Layout]:
    """Vectors of the base, those of the live items, and where each item is."""
    draw = np.random.default_rng(1)
    shuffled_ND = vector_ND[draw.permutation(len(vector_ND))]
    counts = {name: int(len(vector_ND) * getattr(args, name)) for name in ("changed", "new")}
    items = len(vector_ND) - counts["changed"]
    before = items - counts["new"]
    changed, removed = np.split(
        draw.permutation(before)[: counts["changed"] + int(before * args.removed)],
        [counts["changed"]],
    )
    new_RD = shuffled_ND[:items].copy()
    new_RD[changed] = shuffled_ND[items:]
    same_R, live = np.ones(before, bool), np.ones(items, bool)
    live[removed] = False
    same_R[changed] = same_R[removed] = False
    row_N = np.flatnonzero(live)
    layout = plan_layout(row_N, np.arange(before), same_R, np.arange(before))
    return shuffled_ND[:before], new_RD[row_N], layout


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Build base, delta and the new index; ask both in turns."""
    found = SETS[args.set].load(Source("", Path()))
    old_PD, item_ND, layout = nights(found.vector_ND[: args.rows or None], args)
    kind, config = INDEXES[args.kind], IndexConfig(kind=args.kind)
    plan = kind.plan(len(item_ND), item_ND.shape[1], config)
    with faiss_threads(THREADS):
        base = kind.build(old_PD, kind.plan(len(old_PD), old_PD.shape[1], config), 1)
        began = time.perf_counter()
        _, delta = build_delta(item_ND[layout.delta_M], config, 1)
        incremental = IncrementalIndex(base, delta, layout)
        seconds = {"incremental": time.perf_counter() - began}
        began = time.perf_counter()
        sides: dict[str, Searchable] = {
            "incremental": incremental,
            "anew": kind.build(item_ND, plan, 1),
        }
        seconds["anew"] = time.perf_counter() - began
        exact = Exact.of(item_ND, found.test_BD, 10)
        taken: dict[str, list[float]] = {name: [] for name in sides}
        rows = {}
        for _ in range(args.rounds):
            for name, index in sides.items():
                began = time.perf_counter()
                _, rows[name] = index.search(found.test_BD, 10)
                taken[name].append(len(found.test_BD) / (time.perf_counter() - began))
    flat: dict[str, Any] = dict(layout.counters())
    for name in sides:
        flat[f"{name}.recall"] = round(exact.recall(rows[name]), 4)
        flat[f"{name}.qps"] = round(statistics.median(taken[name]), 1)
        flat[f"{name}.build_seconds"] = round(seconds[name], 3)
    ratios = [a / b for a, b in zip(taken["incremental"], taken["anew"], strict=True)]
    flat["qps_over_anew"] = round(statistics.median(ratios), 3)
    flat["build_over_anew"] = round(seconds["incremental"] / seconds["anew"], 4)
    flat["recall_below_anew"] = round(flat["anew.recall"] - flat["incremental.recall"], 4)
    return flat


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=sorted(set(SETS) - {"gowalla"}), default="glove")
    parser.add_argument("--kind", choices=sorted(INDEXES), default="hnsw")
    parser.add_argument("--rows", type=int, default=0, help="the first so many vectors alone")
    for name in ("changed", "removed", "new"):
        parser.add_argument(f"--{name}", type=float, default=0.05, help="share of the items")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    flat = measure(args)
    names = ("kept", "changed", "new", "removed")
    print(f"{args.set}, {args.kind}: " + ", ".join(f"{flat[n]:,} {n}" for n in names))
    print(f"{'':<9}{'recall@10':>11}{'qps':>10}{'build s':>10}")
    for side in ("incremental", "anew"):
        row = [flat[f"{side}.{name}"] for name in ("recall", "qps", "build_seconds")]
        print(f"{side:<9}{row[0]:>11.4f}{row[1]:>10,.0f}{row[2]:>10.2f}")
    print(f"carried over: {flat['qps_over_anew']} x qps, {flat['build_over_anew']} x build time, "
          f"{flat['recall_below_anew']} less recall")  # fmt: skip
    finish(args, flat)


if __name__ == "__main__":
    main()
