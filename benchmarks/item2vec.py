"""item2vec beside gensim's Word2Vec: next-item recall and pairs per second, in one run.

    python benchmarks/item2vec.py [--choose] [--rounds N] [--json]

Both train on the same sequences of MovieLens-100K (a user's films in order of time), with the
same dimension, epochs, window, negatives and threads: skip-gram with negative sampling. The
last five films of every user are held out. Each is asked for by the films before it: the mean
of the last of these, at length one, ranks all films that the user has not had yet. One code
scores both. Learning rates, and how many films make the mean, were chosen for each side by
`--choose`, which asks for the five films before those and trains without both. A pair counts
as often as it stands in a window: ours are counted once, before training, and trained on once
an epoch with that count. Seconds are from sequences or pairs to vectors, without Python's start.

Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from harness.command_line import finish, parser_of
from harness.peer_environments import ask
from safetensors.torch import load

from embedmill.pipeline import train
from embedmill.pipeline.config import parse
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.prepare import events, shards, vocab
from embedmill.pipeline.prepare.engine.connection import open_session
from embedmill.pipeline.ranking_metrics import metric_sums
from embedmill.pipeline.score import RowLists, top_k
from embedmill.pipeline.store.run import Run

SCRIPT = Path(__file__).parent / "peers" / "gensim_skipgram.py"
HELD = 5  # films of a user that are asked for
DIM, EPOCHS, WINDOW, NEGATIVES, POWER, WORKERS, SEED = 64, 20, 5, 5, 0.75, 2, 1
LAST = (1, 3, 5, 10, 20)
OURS = {"batch_size": 4096, "negatives": 64}
# Chosen on validation by --choose.
CHOSEN: dict[str, tuple[dict[str, Any], int]] = {
    "ours": ({"learning_rate": 0.3}, 5),
    "gensim": ({"alpha": 0.15}, 5),
}
GRID: dict[str, list[dict[str, Any]]] = {
    "ours": [{"learning_rate": rate} for rate in (0.1, 0.2, 0.3, 0.4)],
    "gensim": [{"alpha": rate} for rate in (0.025, 0.05, 0.1, 0.15, 0.2)],
}

Sequences = dict[int, list[int]]


@dataclass(frozen=True)
class Trained:
    """Item vectors, and how long they took."""

    vector_ND: torch.Tensor
    seconds: float


def tree_of(root: str, held: int, **settings: Any) -> dict[str, Any]:
    """The run: MovieLens-100K, each user's last `held` films in the test part."""
    return {
        "run": {"name": "item2vec", "root": root, "partitions": 4, "seed": SEED},
        "events": {
            "paths": "dataset:movielens-100k/ml-100k.inter",
            "user": "user_id:token",
            "item": "item_id:token",
            "time": "timestamp:float",
        },
        "shards": {"split": "last", "valid": 0, "test": held, "pairs": {"window": WINDOW}},
        "train": {
            "objective": "item2vec",
            "dim": DIM,
            "epochs": EPOCHS,
            "negatives_power": POWER,
            "item2vec": {"negatives_per_pair": NEGATIVES},
            "workers": WORKERS,
            **OURS,
            **settings,
        },
    }


def prepared(root: str, held: int) -> Run:
    """The data stages of the run, on the embedded engine."""
    run = Run(parse(tree_of(root, held)))
    with open_session("sail") as session:
        for stage, module in (("events", events), ("vocab", vocab), ("shards", shards)):
            out = run.writer(stage, events.source_stamps(run) if stage == "events" else None)
            module.build(session, run, out, Quiet())
    return run


def sequences(run: Run, split: str) -> Sequences:
    """Item rows of every user in the order that pairs were made in."""
    found: Sequences = {}
    table = run.artifact("shards").read_tables(split)
    order = ("user_row", "time", "hash", "item_row")
    table = table.sort_by([(name, "ascending") for name in order])
    rows = zip(table["user_row"].to_pylist(), table["item_row"].to_pylist(), strict=True)
    for user, item in rows:
        found.setdefault(user, []).append(item)
    return found


def ours(run: Run, held: int, settings: dict[str, Any]) -> Trained:
    """Train with two workers, from reading the pairs to the tables written."""
    run = Run(parse(tree_of(run.config.run.root, held, **settings)))
    run.discard("train")
    train.discard_checkpoints(run)
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool,
    ):
        ranks = [pool.submit(worker, run, rank, f"{folder}/store") for rank in range(WORKERS)]
        seconds, outcome = ranks[0].result()
    train.commit(run, run.writer("train"), outcome)
    partitions, artifact = run.config.run.partitions, run.artifact("train")
    vector_ND = torch.zeros(run.artifact("vocab").counters["items"], DIM)
    for p in range(partitions):
        vector_ND[p::partitions] = load(artifact.read(f"items/part-{p:05d}.safetensors"))["weight"]
    return Trained(vector_ND, seconds)


def worker(run: Run, rank: int, store: str) -> tuple[float, train.TrainingResult]:
    """One of ours: seconds from when all are there, and what came out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORKERS)
    dist.barrier()
    begin = time.perf_counter()
    outcome = train.train_worker(
        train.WorkerTask.of(run, run.writer("train")), train.Group.current(), Quiet()
    )
    seconds = time.perf_counter() - begin
    dist.destroy_process_group()
    return seconds, outcome


def gensims(run: Run, folder: Path, settings: dict[str, Any]) -> Trained:
    """The same with gensim, in an environment of its own."""
    text = "\n".join(" ".join(map(str, items)) for items in sequences(run, "train").values())
    (folder / "sequences.txt").write_text(text, encoding="utf-8")
    out, rows = folder / "vectors.npy", run.artifact("vocab").counters["items"]
    asked = {
        "vector_size": DIM, "epochs": EPOCHS, "window": WINDOW, "negative": NEGATIVES,
        "ns_exponent": POWER, "sample": 0, "workers": WORKERS, "seed": SEED,
        "shrink_windows": False, **settings,
    }  # fmt: skip
    words = (str(folder / "sequences.txt"), str(out), str(rows), json.dumps(asked))
    told = ask("gensim", SCRIPT, *words, OMP_NUM_THREADS="1")
    return Trained(torch.from_numpy(np.load(out)), told["seconds"])


def asked(run: Run) -> Iterator[tuple[list[int], int]]:
    """What a user had, in order of time, and the item that came next, for `HELD` of the test."""
    before, after = sequences(run, "train"), sequences(run, "test")
    for user, items in after.items():
        had = list(before.get(user, []))
        for item in items[:HELD]:
            yield had, item
            had = [*had, item]


def score(run: Run, trained: Trained, last: int) -> dict[str, float]:
    """Recall and NDCG of the next item; the query is the mean of the `last` items before it."""
    unit_ND = torch.nn.functional.normalize(trained.vector_ND)
    queries = list(asked(run))
    query_BD = torch.stack([unit_ND[had[-last:]].mean(0) for had, _ in queries])
    seen = [(b, item) for b, (had, _) in enumerate(queries) for item in had]
    owner, rows = (torch.tensor(column) for column in zip(*seen, strict=True))
    seen_lists = RowLists.of(owner, rows, len(queries))
    _, rows_BK = top_k(query_BD, [(0, unit_ND)], 20, seen_lists)
    wanted = torch.tensor([item for _, item in queries])
    relevant = RowLists.of(torch.arange(len(queries)), wanted, len(queries))
    sums = metric_sums(rows_BK, relevant, [10, 20])
    return {name: sums[name] / len(queries) for name in ("recall@10", "recall@20", "ndcg@20")}


def trained(side: str, run: Run, held: int, settings: dict[str, Any]) -> Trained:
    """Train one side."""
    if side == "ours":
        return ours(run, held, settings)
    return gensims(run, Path(run.config.run.root), settings)


def choose(root: str) -> None:
    """Print what each setting reaches on validation: films 6 to 10 from the end of a history."""
    run = prepared(root, 2 * HELD)
    for side, grid in GRID.items():
        for settings in grid:
            found = trained(side, run, 2 * HELD, settings)
            by_last = {last: score(run, found, last)["ndcg@20"] for last in LAST}
            shown = "  ".join(f"{last}: {value:.4f}" for last, value in by_last.items())
            print(f"{side:<7}{json.dumps(settings):<24}ndcg@20 by films  {shown}", flush=True)


def measure(root: str, rounds: int) -> dict[str, float]:
    """Both sides on test, in turn, `rounds` times; returns the flat object."""
    run = prepared(root, HELD)
    flat: dict[str, float] = {}
    pairs = run.artifact("shards").counters["pairs_counted"] * EPOCHS
    seconds: dict[str, list[float]] = {side: [] for side in CHOSEN}
    for _ in range(rounds):
        for side, (settings, last) in CHOSEN.items():
            found = trained(side, run, HELD, settings)
            seconds[side].append(found.seconds)
            flat |= {f"{side}.{k}": v for k, v in score(run, found, last).items()}
    for side, times in seconds.items():
        flat[f"{side}.pairs_per_second"] = pairs / statistics.median(times)
    flat["recall_over_gensim"] = flat["ours.recall@20"] / flat["gensim.recall@20"]
    rates = [flat[f"{side}.pairs_per_second"] for side in ("ours", "gensim")]
    flat["speed_over_gensim"] = rates[0] / rates[1]
    flat["queries"] = len(list(asked(run)))
    return flat


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--choose", action="store_true", help="settings on validation, and stop")
    parser.add_argument("--rounds", type=int, default=3, help="of both; the median time counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-") as root:
        if args.choose:
            choose(root)
            return
        flat = measure(root, args.rounds)
    names = ("recall@10", "recall@20", "ndcg@20", "pairs_per_second")
    print(f"dimension {DIM}, {EPOCHS} epochs, window {WINDOW}, {NEGATIVES} negatives a pair,")
    print(f"{WORKERS} threads each, {flat['queries']:,} queries on test")
    print(f"{'':<9}" + "".join(f"{name:>18}" for name in names))
    for side in CHOSEN:
        values = [flat[f"{side}.{name}"] for name in names]
        print(f"{side:<9}" + "".join(f"{v:>18,.4f}" if v < 1 else f"{v:>18,.0f}" for v in values))
    print(f"ours over gensim: recall@20 {flat['recall_over_gensim']:.3f}, "
          f"pairs per second {flat['speed_over_gensim']:.2f}")  # fmt: skip
    finish(args, flat)


if __name__ == "__main__":
    main()
