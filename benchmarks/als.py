"""Implicit ALS on Gowalla: ours beside `implicit` and Spark MLlib.

    python benchmarks/als.py [--dim D] [--iterations N] [--our-iterations M] [--on valid]
        [--without spark] [--json]

All three fit the same pairs from start to end, with the same dimension, and are measured by the
same code: Recall@20 and NDCG@20 over the full catalogue, fitted pairs masked. By default train
and validation events are fitted and test is measured on; `--on valid` fits train events alone and
measures on validation events, which is how SETTINGS were chosen. Ours is the stage `train` as
every run has it, on two workers of one thread; its seconds are those of the log it keeps: the
singular vectors that it begins with, laying out the pairs, lookups, exchanges between workers,
solving. Peers begin with random vectors, so that we reach their quality in fewer iterations:
--our-iterations says in how many, which is chosen with --on valid. The peers' are those of their
`fit`, on two threads, their input in memory. Reading files, starting Ray or a JVM, and evaluation
are in none.

`implicit` has an environment of its own, made once below .peers/. MLlib needs a JVM; without
one it is left out. Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import line
from harness.command_line import finish, parser_of
from harness.peer_environments import ask
from harness.public_sets import path_of
from safetensors.torch import load

from embedmill.pipeline.ranking_metrics import metric_sums
from embedmill.pipeline.score import RowLists, top_k
from embedmill.pipeline.store.run import Run, open_run

HERE = Path(__file__).parent
THREADS = 2
CUT = 20
SPLITS = {
    "test": {"train": "train", "valid": "train", "test": "test"},
    "valid": {"train": "train", "valid": "test"},
}
# Ours and implicit's were searched with --on valid, at 128 dimensions; MLlib's were set to what
# comes near them, unsearched: its speed does not depend on them.
SETTINGS = {
    "ours": {"regularization": 0.003, "unobserved_weight": 0.01},
    "implicit": {"regularization": 30.0, "alpha": 100.0},
    "spark": {"regularization": 1.0, "alpha": 100.0},
}
CONFIG = """
[run]
name = "als"
root = "{folder}"
partitions = 16
[events]
paths = "{folder}/log.tsv"
split = "split"
[shards]
split = "given"
valid = 0
test = 0
[train]
objective = "ials"
dim = {dim}
epochs = {iterations}
workers = 2
[train.ials]
"""

Vectors = tuple[torch.Tensor, torch.Tensor]


def write_log(folder: Path, on: str) -> None:
    """The set's log with the splits that are fitted and measured on named train and test."""
    named = SPLITS[on]
    with (
        gzip.open(path_of("gowalla/checkins.tsv.gz"), "rt", encoding="utf-8") as raw,
        (folder / "log.tsv").open("w", encoding="utf-8") as log,
    ):
        log.write("user_id\titem_id\tsplit\n")
        for row in csv.DictReader(raw, delimiter="\t"):
            if row["split"] in named:
                log.write(f"{row['user_id']}\t{row['item_id']}\t{named[row['split']]}\n")


def ours(folder: Path, args: argparse.Namespace) -> tuple[Run, float]:
    """Run the line up to `train`; returns the run and the seconds of its training."""
    keys = "".join(f"{key} = {value}\n" for key, value in SETTINGS["ours"].items())
    text = CONFIG.format(folder=folder, dim=args.dim, iterations=args.our_iterations) + keys
    (folder / "als.toml").write_text(text, encoding="utf-8")
    line.run(folder / "als.toml", last="train")
    run = open_run(str(folder / "als"))
    lines = map(json.loads, run.artifact("train").read("log.jsonl").splitlines())
    phases = [f"seconds.{name}" for name in ("wait", "lookup", "exchange", "loss", "update")]
    return run, sum(line[p] for line in lines if line["kind"] == "steps" for p in phases)


def vectors_of(run: Run) -> Vectors:
    """Our tables in order of row."""
    train, counts, partitions = run.artifact("train"), [], run.config.run.partitions
    for side in ("users", "items"):
        rows = torch.empty(run.artifact("vocab").counters[side], run.config.train.dim)
        for p in range(partitions):
            rows[p::partitions] = load(train.read(f"{side}/part-{p:05d}.safetensors"))["weight"]
        counts.append(rows)
    return counts[0], counts[1]


def pairs_of(run: Run, split: str) -> Vectors:
    """User and item rows of a split's events."""
    table = run.artifact("shards").read_tables(split, ["user_row", "item_row"])
    columns = (torch.from_numpy(table[name].to_numpy().copy()) for name in table.column_names)
    user, item = columns
    return user, item


def quality(run: Run, vectors: Vectors) -> dict[str, float]:
    """Means over the users with test events, fitted items masked."""
    count = run.artifact("vocab").counters["users"]
    seen, relevant = (RowLists.of(*pairs_of(run, s), count) for s in ("train", "test"))
    measured = (relevant.lengths > 0).nonzero()[:, 0]
    sums = {f"recall@{CUT}": 0.0, f"ndcg@{CUT}": 0.0}
    for user_B in measured.split(4096):
        _, rows_Bk = top_k(vectors[0][user_B], [(0, vectors[1])], CUT, seen.select(user_B))
        found = metric_sums(rows_Bk, relevant.select(user_B), [CUT])
        sums = {name: value + found[name] for name, value in sums.items()}
    return {name: value / len(measured) for name, value in sums.items()}


def implicit(*words: str) -> dict[str, float]:
    return ask("implicit", HERE / "peers" / "als_implicit.py", *words, OPENBLAS_NUM_THREADS="1")


def spark(*words: str) -> dict[str, float]:
    command = [sys.executable, str(HERE / "peers" / "als_spark.py"), *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


PEERS: dict[str, Callable[..., dict[str, float]]] = {"implicit": implicit, "spark": spark}


def peer(name: str, run: Run, folder: Path, args: argparse.Namespace) -> tuple[Vectors, float]:
    """A peer's vectors, and the seconds of its fit."""
    for column, side in zip(pairs_of(run, "train"), ("users", "items"), strict=True):
        np.save(folder / f"{side}.npy", column.numpy())
    settings = SETTINGS[name]
    words = [folder, args.dim, args.iterations, THREADS, settings["regularization"]]
    seconds = PEERS[name](*map(str, [*words, settings["alpha"]]))["seconds"]
    users, items = (
        torch.from_numpy(np.load(folder / f"{s}_factors.npy")) for s in ("user", "item")
    )
    return (users, items), seconds


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Fit all in turn, ours first; returns the flat figures."""
    with tempfile.TemporaryDirectory(prefix="embedmill-als-") as made:
        folder = Path(made)
        write_log(folder, args.on)
        run, seconds = ours(folder, args)
        flat = {**quality(run, vectors_of(run)), "seconds": seconds}
        for name in (name for name in PEERS if name not in args.without):
            vectors, taken = peer(name, run, folder, args)
            flat |= {f"{name}.{k}": v for k, v in quality(run, vectors).items()}
            flat |= {f"{name}.seconds": taken, f"speed_over_{name}": taken / seconds}
    return flat


def show(flat: dict[str, float], args: argparse.Namespace) -> None:
    iterations = f"{args.iterations} iterations ({args.our_iterations} of ours)"
    print(f"Gowalla, {args.dim} dimensions, {iterations}, on {args.on}")
    print(f"{'':10}{f'recall@{CUT}':>12}{f'ndcg@{CUT}':>12}{'seconds':>10}{'ours is':>10}")
    for name in ("", *(name for name in PEERS if f"{name}.seconds" in flat)):
        row, start = name or "ours", f"{name}." if name else ""
        values = [flat[f"{start}{metric}@{CUT}"] for metric in ("recall", "ndcg")]
        faster = f"{flat[f'speed_over_{name}']:.2f}x" if name else ""
        print(
            f"{row:10}{values[0]:12.4f}{values[1]:12.4f}{flat[f'{start}seconds']:10.2f}{faster:>10}"
        )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--our-iterations", type=int, default=0, help="0: as many as --iterations")
    parser.add_argument("--on", choices=list(SPLITS), default="test", help="what is measured on")
    parser.add_argument("--without", action="append", default=[], choices=list(PEERS))
    args = parser.parse_args()
    args.our_iterations = args.our_iterations or args.iterations
    if "spark" not in args.without and not (shutil.which("java") or "JAVA_HOME" in os.environ):
        print("no JVM: Spark MLlib is left out", file=sys.stderr)
        args.without.append("spark")
    flat = measure(args)
    show(flat, args)
    finish(args, flat)


if __name__ == "__main__":
    main()
