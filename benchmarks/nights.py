"""Nights that continue: training from last night's vectors beside training anew.

    python benchmarks/nights.py SET [--nights 10] [--objective auto] [--index EPSILON] [--json]

SET is a name of `benchmarks/sets` (gowalla), or completejourney, whose weeks are the nights. A set
is dealt by a hash of user and item: the first night has all but 1 % of the train events for each
night that follows, and each of these adds its own 1 %. Test events are the set's own on every
night, a tenth by the hash where it names none. completejourney begins with all weeks before the
last ones, and its test events are random.
A tenth of the train events is for validation.

Every night is trained twice: cold, as it comes, and with `train.start` on the night before, to
whose vectors both are aligned (`export.align`). With objective "auto", the default, the cold
training of each night tries and chooses anew, and the warm one takes over what was chosen in the
first night, which both share. The cold run of a night is aligned to the cold one before. Ends with
an error where an id moved its row.

Prints a table; with --json one flat JSON object last, of the worst night each: `seconds_over_cold`
(CPU seconds of the stage train with its workers; `wall_over_cold`: wall time, on a quiet machine),
`recall_over_cold`, `jaccard@10`, `aligned_drift`, `moved_ids`, `delta_bytes` (of `embedmill delta`
with epsilon .05, over those of the export), and `cold.jaccard@10` and `cold.aligned_drift`.

With --index the warm run of a night carries its index over (`index.carry_over`, `carry_epsilon`),
and a new one is built over the same vectors: `index.recall_less` (of the new one, less that of the
carried one), `index.seconds_over_new` (CPU seconds of the stage) and `index.query_over_new`
(milliseconds of a query); `index.in_delta` is the share of items outside of the base, 1 where it
was built anew.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from harness.command_line import finish, parser_of
from harness.exported import lists, recall
from harness.sets import load_set

from embedmill.jobs.all import run_line
from embedmill.pipeline import index as index_stage
from embedmill.pipeline.config import parse
from embedmill.pipeline.cpu_time import CpuTime
from embedmill.pipeline.evaluate.drift import measure_drift
from embedmill.pipeline.formats.deltas import write_delta
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.datasets import resolve
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.terminal import Terminal
from embedmill.pipeline.views.index import StoredIndex
from embedmill.pipeline.views.vectors import Vectors, space_of
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.events import DATA
from embedmill.schemas.manifest import Manifest

DATA_STAGES = ("events", "vocab", "shards")
TEST = 0.1  # of the events are test ones where a set names none
SHARE = 0.01  # of the train events that are new on a night
MOVED = 0.05  # of the mean length: vectors that moved less are in no delta
USERS = 5000  # whose recall is measured
COLUMNS = ["user", "item", "split"]
VALID = 0.1  # of the train events, on which objective auto chooses, and the epoch is chosen
SECONDS: dict[str, float] = {}  # CPU seconds of the stage train, by folder of the run
WALL: dict[str, float] = {}  # wall seconds of it


@dataclass(frozen=True)
class Night:
    """Two runs over the same events."""

    warm: Run
    cold: Run

    def seconds_over_cold(self) -> float:
        """CPU seconds of the stage train."""
        warm, cold = (SECONDS[one.storage.root] for one in (self.warm, self.cold))
        return warm / cold

    def recall(self) -> tuple[float, float]:
        """Recall@20, warm and cold."""
        return recall_of(self.warm), recall_of(self.cold)


def recall_of(run: Run) -> float:
    """Recall@20 of some users with test events, the same in every run."""
    train, test = lists(run, "train"), lists(run, "test")
    users = Vectors.of(run.artifact("export"), "users")
    rows = np.intersect1d(train[0], test[0])
    ids = users.vocabulary.ids(rows)
    order = sorted(range(len(ids)), key=lambda at: hashlib.blake2b(ids[at].encode()).digest())
    rows = np.sort(rows[order[:USERS]])
    return recall(run, rows, users.gather(rows), train, test)


def dealt(name: str, folder: Path, nights: int) -> list[str]:
    """A Parquet file for each night, the first with all that came before; returns their paths."""
    table, night = weeks(nights) if name == "completejourney" else by_hash(name, folder, nights)
    paths = []
    for number in range(nights):
        path = folder / f"events-{number:02d}.parquet"
        pq.write_table(table.filter(pa.array(night == number)), path)
        paths.append(str(path))
    return paths


def by_hash(name: str, folder: Path, nights: int) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Events of a set, and the night of each; test events come in the first one."""
    table = events_of(name, folder)
    texts = (f"{u}\t{i}" for u, i in zip(*(table[c].to_pylist() for c in COLUMNS[:2]), strict=True))
    drawn = np.array([int.from_bytes(hashlib.blake2b(t.encode(), digest_size=6).digest(), "big")
                      for t in texts]) / 2**48  # fmt: skip
    splits = table["split"].to_pylist()
    given = any(split is not None for split in splits)
    held = np.array([split == "test" for split in splits]) if given else drawn > 1 - TEST
    night = np.where(drawn < SHARE * (nights - 1), (drawn / SHARE).astype(int) + 1, 0)
    night[held] = 0
    split = pa.array(np.where(held, "test", "train"))
    return table.set_column(2, "split", split), night


def events_of(name: str, folder: Path) -> pa.Table:
    """User, item and split of all events of a set, as the stage reads them; split may be null."""
    public = load_set(name)
    own = {"paths": [str(public.raw())]}
    run = Run(
        parse(
            {
                "run": {"name": "set", "root": str(folder), "partitions": 16},
                "events": {**public.tree()["events"], **own},
                "shards": public.tree().get("shards", {}),
            }
        )
    )
    run_line(run, last="events", terminal=Terminal(quiet=True))
    return run.artifact("events").read_tables(DATA.folder, COLUMNS)


def weeks(nights: int) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Purchases of completejourney, the last weeks a night each; a tenth of the pairs are test."""
    columns = ["household_id", "product_id", "week"]
    table = pq.read_table(resolve("dataset:completejourney/transactions.parquet"), columns=columns)
    table = table.group_by(columns[:2]).aggregate([("week", "min")])
    texts = (f"{u}\t{i}" for u, i in zip(*(table[c].to_pylist() for c in columns[:2]), strict=True))
    held = np.array([hashlib.blake2b(t.encode(), digest_size=2).digest()[0] < 26 for t in texts])
    week = table["week_min"].to_numpy()
    night = np.maximum(week - (int(week.max()) - nights + 1), 0)
    night[held] = 0
    ids = [pc.cast(table[name], pa.string()) for name in columns[:2]]
    split = pa.array(np.where(held, "test", "train"))
    return pa.table(dict(zip(COLUMNS, [*ids, split], strict=True))), night


def built(
    folder: Path,
    name: str,
    paths: list[str],
    train: dict[str, Any],
    before: tuple[str, str],
    index: dict[str, Any] | None = None,
    beside: Run | None = None,
) -> Run:
    """A run up to its vectors, or to its index.

    Args:
        folder: its own root is below.
        name: its own.
        paths: of its log.
        train: section train.
        before: the run whose rows it keeps, and the one that it is aligned to.
        index: section index.
        beside: a run over the same events and rows, whose data stages it takes over.
    """
    root = folder / name.partition("-")[0]
    if beside is not None:
        for stage in DATA_STAGES:
            shutil.copytree(beside.storage.local_path(stage), root / name / stage)
    tree = {
        "run": {"name": name, "root": str(root), "partitions": 16},
        "events": {"paths": paths, "format": "parquet", "user": "user", "item": "item",
                   "split": "split", "merge_by": "pair"},
        "vocab": {"previous": before[0]},
        "shards": {"split": "given", "valid": VALID},
        "train": train,
        "export": {"align": before[1]},
    }  # fmt: skip
    if index:
        tree["index"] = index if before[0] else {**index, "carry_over": 0}
    run, quiet = Run(parse(tree)), Terminal(quiet=True)
    run_line(run, last="shards", terminal=quiet)
    began, cpu = time.perf_counter(), CpuTime()
    run_line(run, first="train", last="train", terminal=quiet)
    SECONDS[run.storage.root] = cpu.measured()["cpu_seconds"]
    WALL[run.storage.root] = time.perf_counter() - began
    run_line(run, first="export", last="export", terminal=quiet)
    if index:
        began = time.process_time()
        run_line(run, first="index", last="index", terminal=quiet)
        SECONDS[run.storage.url("index")] = time.process_time() - began
    return run


def beside_new(run: Run) -> dict[str, float]:
    """The carried index of a run beside a new one over the same vectors."""
    config = run.config.index.model_copy(update={"carry_over": 0.0, "carry_epsilon": 0.0})
    fresh = Run(run.config.model_copy(update={"index": config}))
    with tempfile.TemporaryDirectory(prefix="embedmill-index-") as scratch:
        writer = Writer("index", Storage(scratch), "", {}, [], {})
        began = time.process_time()
        index_stage.build(fresh, writer, Quiet())
        seconds = time.process_time() - began
        new = StoredIndex(Artifact.of("index", Storage(scratch), _manifest(Storage(scratch))))
        carried = StoredIndex(run.artifact("index"))
        spec = carried.spec.incremental
        return {
            "index.recall_less": float(new.recall.recall) - float(carried.recall.recall),
            "index.seconds_over_new": SECONDS[run.storage.url("index")] / seconds,
            "index.query_over_new": _milliseconds(carried) / _milliseconds(new),
            "index.in_delta": spec.in_delta / carried.spec.items if spec else 1.0,
        }


def _manifest(storage: Storage) -> Manifest:
    found = read_manifest(storage)
    assert found is not None
    return found


def _milliseconds(index: StoredIndex) -> float:
    assert index.latency is not None
    return next(float(one.ms_per_query) for one in index.latency.curve if one.chosen)


def share_of_delta(now: Run, before: Run) -> float:
    """Bytes of a delta, of vectors that moved by `MOVED`, over the export's; 1 in two spaces."""
    if space_of(now.artifact("export")) != space_of(before.artifact("export")):
        return 1.0
    with tempfile.TemporaryDirectory(prefix="embedmill-delta-") as folder:
        write_delta(now, before, [], folder, epsilon=MOVED)
        delta = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    files = now.artifact("export").manifest.files
    return delta / sum(one.bytes for one in files if one.path.endswith(".parquet"))


def moved(before: Run, now: Run) -> int:
    """Ids on another row than the night before."""
    count = 0
    for side in ("users", "items"):
        one, other = (Vocabulary.of(run.artifact("vocab"), side) for run in (before, now))
        ids = one.ids(np.arange(one.count))
        count += int((other.rows_of(pa.array(ids, pa.string())) != np.arange(one.count)).sum())
    return count


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("set")
    parser.add_argument("--nights", type=int, default=10, help="beside the first one")
    parser.add_argument("--objective", default="auto")
    parser.add_argument("--start-epochs", type=int, default=0, help="default: the objective's")
    parser.add_argument("--start-passes", type=int, default=0, help="of spectral; default: its own")
    parser.add_argument("--replay", type=float, default=None, help="train.replay; default: its own")
    parser.add_argument("--dim", type=int, default=0, help="default: the objective's")
    parser.add_argument("--index", type=float, default=None, metavar="EPSILON")
    args = parser.parse_args()
    index = None
    if args.index is not None:
        index = {"kind": "hnsw", "carry_over": 0.5, "carry_epsilon": args.index}
    train: dict[str, Any] = {"objective": args.objective}
    train |= {"dim": args.dim} if args.dim else {}
    shorter = {"start_epochs": args.start_epochs} if args.start_epochs else {}
    shorter |= {} if args.replay is None else {"replay": args.replay}
    train |= {"spectral": {"start_passes": args.start_passes}} if args.start_passes else {}
    with tempfile.TemporaryDirectory(prefix="embedmill-nights-") as scratch:
        folder = Path(scratch)
        paths = dealt(args.set, folder, args.nights + 1)
        first = built(
            folder, "warm-00", paths[:1], {**train, "start": "published"}, ("", ""), index
        )
        last, rows = Night(first, first), list[dict[str, float]]()
        for number in range(1, args.nights + 1):
            read, before = paths[: number + 1], last.warm.storage.root
            warm = {**train, "start": before, **shorter}
            own = built(folder, f"warm-{number:02d}", read, warm, (before, before), index)
            other = (before, last.cold.storage.root)
            runs = (own, built(folder, f"cold-{number:02d}", read, train, other, beside=own))
            rows.append(compared(number, last, Night(*runs)))
            last = Night(*runs)
        flat = worst(rows)
    print(f"worst: {flat}")
    finish(args, flat)
    if flat["moved_ids"]:
        sys.exit("ids moved their rows")


def compared(number: int, before: Night, night: Night) -> dict[str, float]:
    """The figures of a night, printed as a line of the table."""
    warm, cold = night.recall()
    drift = {
        kind: measure_drift(
            getattr(night, kind).artifact("export"), getattr(before, kind).artifact("export"), 1
        )
        for kind in ("warm", "cold")
    }
    row = {
        "seconds_over_cold": night.seconds_over_cold(),
        "wall_over_cold": WALL[night.warm.storage.root] / WALL[night.cold.storage.root],
        "recall_over_cold": warm / cold,
        "jaccard@10": float(drift["warm"].jaccard or 0),
        "aligned_drift": float(drift["warm"].distance or 0),
        "moved_ids": moved(before.warm, night.warm),
        "delta_bytes": share_of_delta(night.warm, before.warm),
        "cold.jaccard@10": float(drift["cold"].jaccard or 0),
        "cold.aligned_drift": float(drift["cold"].distance or 0),
    }
    if (night.warm.storage.url("index")) in SECONDS:
        row |= beside_new(night.warm)
    facts = " · ".join(f"{name} {value:.3f}" for name, value in row.items())
    print(f"night {number}: Recall@20 {warm:.4f} warm, {cold:.4f} cold · {facts}")
    sys.stdout.flush()
    return row


def worst(rows: list[dict[str, float]]) -> dict[str, float]:
    """The worst figure of all nights."""
    best = ("recall_over_cold", "jaccard@10", "cold.jaccard@10")
    choose = {name: min if name in best else max for name in rows[0]}
    return {name: round(choose[name](row[name] for row in rows), 4) for name in rows[0]}


if __name__ == "__main__":
    main()
