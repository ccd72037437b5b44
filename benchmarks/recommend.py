"""Recommendations for all users of Gowalla, through the index, beside exact search.

    python benchmarks/recommend.py [--run FOLDER] [--epochs 2] [-k 10] [--rounds 3] [--json]

Without --run the line is run on Gowalla for so many epochs, up to the index: speed does not
depend on how good the vectors are. Then, in turns:

* `embedmill recommend RUN --users FILE --output FILE.parquet`, the whole command, start of the
  process included;
* the same in this process, from a list of ids to a Parquet file;
* exact search with torch, and with a FAISS flat index, from vectors and lists of seen items in
  memory to rows of items in memory, as one writes it by hand: scores of a batch, seen ones
  barred, the k best.

Times are medians over the rounds. Prints users per second, how long the index takes to open
when its sha256 was checked before, and how many of the exact answers it finds; with --json one
flat JSON object last.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from harness.command_line import finish, parser_of
from harness.line import COMMAND, run
from harness.sets import load_set, write_config

from embedmill.pipeline import index
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.query.recommendations import RecommendOptions, recommend_all
from embedmill.pipeline.views.vectors import Vectors

BATCH = 1024


def trained(root: str, epochs: int) -> str:
    """The folder of a run on Gowalla up to its index."""
    one, path = load_set("gowalla"), Path(root) / "gowalla.toml"
    write_config(path, one.tree("softmax"), one.raw(), "gowalla")
    run(path, [f"train.epochs={epochs}", "train.refit=false"], last="index")
    return f"{root}/gowalla"


class Exact:
    """Every item compared: vectors, and the seen items of each user, in memory."""

    def __init__(self, retriever: index.Retriever, rows: Any) -> None:
        assert retriever.run is not None
        export = retriever.run.artifact("export")
        self.item_ND = Vectors.of(export, "items").load()
        self.user_BD = retriever.query_vectors(rows, "users")
        seen = retriever.excluded_rows(rows, "users", seen=True)
        self.indptr, self.seen = seen.indptr, seen.rows
        self.flat = faiss.IndexFlatIP(self.item_ND.shape[1])
        self.flat.add(self.item_ND)

    def torch(self, k: int) -> Any:
        item_DN, found = torch.from_numpy(self.item_ND).T, []
        for start in range(0, len(self.user_BD), BATCH):
            user_CD = torch.from_numpy(self.user_BD[start : start + BATCH])
            score_CN = user_CD @ item_DN
            bounds = self.indptr[start : start + len(user_CD) + 1]
            owner = np.repeat(np.arange(len(user_CD)), np.diff(bounds))
            score_CN[owner, self.seen[bounds[0] : bounds[-1]]] = -torch.inf
            found.append(score_CN.topk(k).indices.numpy())
        return np.concatenate(found)

    def faiss(self, k: int) -> Any:
        """Asked for k and as many as the most any user of the batch has seen."""
        found = []
        count_B = np.diff(self.indptr)
        order = np.argsort(count_B, kind="stable")
        for start in range(0, len(order), BATCH):
            at = order[start : start + BATCH]
            width = min(len(self.item_ND), k + int(count_B[at].max()))
            _, rows = self.flat.search(self.user_BD[at], width)
            for b, row in zip(at, rows, strict=True):
                seen = self.seen[self.indptr[b] : self.indptr[b + 1]]
                found.append((b, row[~np.isin(row, seen)][:k]))
        return found


def timed(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, one in work.items():
            start = time.perf_counter()
            one()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(some) for name, some in taken.items()}


def measured(folder: str, scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    retriever = index.open(folder)
    assert retriever.run is not None
    users = Vectors.of(retriever.run.artifact("export"), "users")
    known = np.flatnonzero(users.live())
    known = known[retriever.seen.of(known)[1]]
    ids = users.vocabulary.ids(known)
    (scratch / "users.txt").write_text("\n".join(ids), encoding="utf-8")
    output = str(scratch / "answers.parquet")
    command = [*COMMAND, "recommend", folder, "-k", str(args.k)]
    command += ["--users", str(scratch / "users.txt"), "--output", output, "--json"]

    def ours() -> None:
        recommend_all(
            index.open(folder), [pa.array(ids)], output, RecommendOptions(args.k), Quiet()
        )

    exact = Exact(retriever, known)
    took = timed(
        {
            "command": lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL),
            "ours": ours,
            "torch": lambda: exact.torch(args.k),
            "faiss_flat": lambda: exact.faiss(args.k),
            "open": lambda: index.open(folder),
        },
        args.rounds,
    )
    # Users in the order of the file, all with k answers: a catalogue is larger than a history.
    table = pq.read_table(output, columns=["item"])
    place = dict(
        zip(
            Vectors.of(retriever.run.artifact("export"), "items").vocabulary.ids(
                np.arange(len(exact.item_ND))
            ),
            range(len(exact.item_ND)),
            strict=True,
        )
    )
    row_Bk = np.array([place[i] for i in table["item"].to_pylist()]).reshape(-1, args.k)
    same = (row_Bk[:, :, None] == exact.torch(args.k)[:, None, :]).any(axis=2).mean()
    flat = {f"{name}.users_per_second": round(len(ids) / s) for name, s in took.items()}
    del flat["open.users_per_second"]
    return {
        "users": len(ids),
        "items": len(exact.item_ND),
        "kind": retriever.index.stored.spec.kind,
        "k": args.k,
        **flat,
        "ours_over_torch": round(took["torch"] / took["ours"], 3),
        "ours_over_faiss_flat": round(took["faiss_flat"] / took["ours"], 3),
        "open_ms": round(1000 * took["open"], 2),
        "recall": round(float(same), 4),
    }


def show(found: dict[str, Any]) -> None:
    print(f"{found['users']:,} users, {found['items']:,} items, {found['k']} each, {found['kind']}")
    for key, what in (
        ("command", "embedmill recommend --users, the whole command"),
        ("ours", "the same in a process that runs"),
        ("torch", "exact: torch, scores and topk"),
        ("faiss_flat", "exact: FAISS flat, seen ones struck out"),
    ):
        print(f"{what:<50}{found[f'{key}.users_per_second']:>9,} users/s")
    print(f"{'found of the exact answers':<50}{found['recall']:>9.4f}")
    print(f"{'opening the index':<50}{found['open_ms']:>9.2f} ms")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--run", default="", help="a run's folder; trained anew if empty")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedmill-recommend-") as scratch:
        folder = args.run or trained(scratch, args.epochs)
        found = measured(folder, Path(scratch), args)
    show(found)
    finish(args, found)


if __name__ == "__main__":
    main()
