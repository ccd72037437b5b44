"""10 M users, 1 M items, 100 M pairs: one epoch, its memory, and time per pair beside 1 M rows.

    python benchmarks/scale.py [--json] [--users 10000000] [--items 1000000] [--pairs 100000000]

Vocabulary and shards of a power law are written as artifacts, and the stage `train` runs on
them as in any run: two workers on Ray, validation, a checkpoint, published tables. The same
with a million rows and a fifth of the pairs comes first. Needs about 12 GB of disk in --folder,
deleted at the end. Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from harness.children import call, serve
from harness.command_line import add_folder, finish, parser_of
from harness.power_law import draw_rows

from embedmill.pipeline.config import parse
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run, open_run
from embedmill.schemas.shards import SHARD
from embedmill.schemas.vocab import VOCAB

_MACHINE = 24 << 30
_VOCAB = 1 << 20  # rows of a file of the vocabulary
_HELD = 0.002  # share of the pairs that is held out for validation


def written(root: str, users: int, items: int, pairs: int, args: argparse.Namespace) -> Run:
    """A run below `root` whose stages up to `shards` are there."""
    train = {"dim": args.dim, "epochs": 1, "batch_size": args.batch, "workers": args.workers}
    tree = {"run": {"name": f"rows-{users + items}", "root": root}, "train": train}
    run = Run(parse({**tree, "events": {"paths": "none", "time": "time"}}))
    run.storage.write("config.json", run.config.model_dump_json().encode())
    out = run.writer("events")
    nothing = ("rows_in", "events", "rejected", "merged", "rejects_kept")
    out.commit(dict.fromkeys(nothing, 0))
    _vocab(run, users, items, pairs)
    _shards(run, users, items, pairs)
    return run


def _vocab(run: Run, users: int, items: int, pairs: int) -> None:
    out = run.writer("vocab")
    for side, count in (("users", users), ("items", items)):
        for number, first in enumerate(range(0, count, _VOCAB)):
            row = pa.array(np.arange(first, min(count, first + _VOCAB)))
            ids = pc.binary_join_element_wise(side[0], pc.cast(row, pa.string()), "")
            ones = pa.array(np.ones(len(row), np.int64))
            never = pa.array(np.zeros(len(row), np.int32))
            live = pa.array(np.ones(len(row), bool))
            table = pa.Table.from_arrays([row, ids, ones, never, live], schema=VOCAB)
            out.write_table(f"{side}/part-{number:05d}.parquet", table)
    counters = {"events_in": pairs, "events_kept": pairs, "events_dropped": 0}
    for side, count in (("users", users), ("items", items)):
        counters |= {side: count, f"{side}_live": count}
        counters |= {f"{side}_retired": 0, f"{side}_shared": 0}
    out.commit(counters)


def _shards(run: Run, users: int, items: int, pairs: int) -> None:
    out, partitions = run.writer("shards"), run.config.run.partitions
    sizes = dict.fromkeys(("train", "valid", "test"), 0)
    for partition in range(partitions):
        source, held = np.random.default_rng((1, partition)), -(-(users - partition) // partitions)
        for split, share in (("train", 1 - _HELD), ("valid", _HELD), ("test", 0.0)):
            number = int(pairs * share) // partitions
            sizes[split] += number
            columns = [
                pa.array(partition + partitions * draw_rows(held, number, source)),
                pa.array(draw_rows(items, number, source)),
                pa.nulls(number, pa.int64()),
                pa.array(np.ones(number, np.float32)),
                pa.array(np.sort(source.integers(1 << 62, size=number))),
            ]
            table = pa.Table.from_arrays(columns, schema=SHARD)
            out.write_table(f"{split}/part-{partition:05d}.parquet", table)
    out.commit({"events_in": sum(sizes.values()), "dropped": 0, **sizes})


class Timed(Quiet):
    """A progress that remembers when how many pairs were done."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        if not self.seen or self.seen[-1][1] != done:
            self.seen.append((time.perf_counter(), done))

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def pace(self) -> float:
        """Pairs per second between the first and the last word of the steps."""
        (began, first), (ended, last) = self.seen[0], self.seen[-1]
        return (last - first) / (ended - began)


def train_stage(folder: str) -> dict[str, float]:
    """Stage `train` of the run at `folder`, as jobs/train.py runs it."""
    import embedmill.jobs.train

    run, timed, began = open_run(folder), Timed(), time.perf_counter()
    embedmill.jobs.train.build(run, run.writer("train"), timed)
    entry = run.artifact("train").read_json("history.json")[0]
    return {
        "pairs_per_second": timed.pace(), "seconds": time.perf_counter() - began,
        "loss": entry["train_loss"], "ndcg@10": entry["ndcg@10"],
    }  # fmt: skip


def measured(run: Run) -> dict[str, float]:
    """Train it under the machine's limit."""
    result = call(__file__, "train_stage", run.storage.root, limit_bytes=_MACHINE)
    return {**result.value, "peak_bytes": result.resident_bytes}


def compared(args: argparse.Namespace) -> dict[str, float]:
    """Both sizes, flat."""
    small = 1_000_000 / (args.users + args.items)
    cases = {
        "million": (int(args.users * small), int(args.items * small), args.pairs // 5),
        "scale": (args.users, args.items, args.pairs),
    }
    flat: dict[str, float] = {}
    for name, (users, items, pairs) in cases.items():
        with tempfile.TemporaryDirectory(prefix="embedmill-bench-", dir=args.folder) as root:
            began = time.perf_counter()
            run = written(root, users, items, pairs, args)
            made = time.perf_counter() - began
            found = {"users": users, "items": items, "pairs": pairs, "made": made}
            flat |= {f"{name}.{key}": v for key, v in {**found, **measured(run)}.items()}
    flat["time_per_pair_over_million"] = (
        flat["million.pairs_per_second"] / flat["scale.pairs_per_second"]
    )
    return flat


def main() -> None:
    serve({"train_stage": train_stage})
    parser = parser_of(__doc__)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=100_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16_384, help="pairs of a step")
    parser.add_argument("--workers", type=int, default=2)
    add_folder(parser)
    args = parser.parse_args()
    flat = compared(args)
    print(f"{'users':>10} {'items':>9} {'pairs':>11} {'pairs/s':>9} {'seconds':>8} {'peak GiB':>9}")
    for name in ("million", "scale"):
        at = {key: flat[f"{name}.{key}"] for key in ("users", "items", "pairs")}
        print(f"{at['users']:>10,} {at['items']:>9,} {at['pairs']:>11,} "
              f"{flat[f'{name}.pairs_per_second']:>9,.0f} {flat[f'{name}.seconds']:>8,.0f} "
              f"{flat[f'{name}.peak_bytes'] / 2**30:>9.2f}")  # fmt: skip
    print(f"time per pair over a million rows: {flat['time_per_pair_over_million']:.2f}")
    finish(args, flat)


if __name__ == "__main__":
    main()
