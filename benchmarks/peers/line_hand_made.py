"""From a Parquet log to recommendations by Polars, `implicit` and FAISS, in one process.

    line_hand_made.py LOG OUT SAMPLE dim iterations threads regularization alpha

LOG has columns user, item, time; SAMPLE is a Parquet file of the users to recommend to. Written to
OUT: users.parquet and items.parquet (id, vector), held_out.parquet (user, item: the last event of
the sample's users), recommendations.parquet (user, rank, item), steps.jsonl (`harness.step_log`).

The log is one frame in memory; ids are numbered by joins. Of a user with more than two events the
last is test and the one before it validation, and neither is fitted. The index is HNSW with 32
links and 128 candidates in a search, by inner product; a search asks for as many more items as the
user has seen, to the next power of two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import faiss
import implicit
import numpy as np
import polars as pl
from harness.step_log import StepLog
from scipy.sparse import csr_matrix

K, LINKS, CANDIDATES = 20, 32, 128


def main() -> None:
    out, sample = Path(sys.argv[2]), pl.read_parquet(sys.argv[3])
    dim, iterations, threads = map(int, sys.argv[4:7])
    steps = StepLog(out / "steps.jsonl")
    with steps.step("prepare"):
        ids, events = numbered(sys.argv[1])
        events = split(events)
    with steps.step("train"):
        model = implicit.als.AlternatingLeastSquares(
            factors=dim, iterations=iterations, num_threads=threads, random_state=1,
            regularization=float(sys.argv[7]), alpha=float(sys.argv[8]),
        )  # fmt: skip
        model.fit(fitted(events, ids), show_progress=False)
    vectors = {"user": model.user_factors, "item": model.item_factors}
    with steps.step("index"):
        faiss.omp_set_num_threads(threads)  # not earlier: it is that of FAISS's BLAS too
        for side, vector_ND in vectors.items():
            table = pl.DataFrame({"id": ids[side][side], "vector": vector_ND})
            table.write_parquet(out / f"{side}s.parquet")
        index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.add(vectors["item"])
        index.hnsw.efSearch = CANDIDATES
        faiss.write_index(index, str(out / "items.faiss"))
    with steps.step("recommend"):
        recommend(index, model.user_factors, ids, events, sample, out)


def numbered(log: str) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Ids of both sides with their rows, and distinct events as rows and time."""
    raw = pl.read_parquet(f"{log}/*.parquet", columns=["user", "item", "time"])
    ids = {}
    for side in ("user", "item"):
        ids[side] = raw.select(pl.col(side).unique()).with_row_index(f"{side}_row")
        raw = raw.join(ids[side], on=side).drop(side)
    return ids, raw.unique()


def split(events: pl.DataFrame) -> pl.DataFrame:
    """With a column `from_end`: 1 test, 2 validation; above it, or of a short history, train."""
    events = events.sort("user_row", "time", "item_row")
    from_end = pl.int_range(pl.len(), 0, -1).over("user_row")
    short = pl.len().over("user_row") <= 2
    return events.with_columns(from_end=pl.when(short).then(3).otherwise(from_end))


def fitted(events: pl.DataFrame, ids: dict[str, pl.DataFrame]) -> csr_matrix:
    """Distinct pairs of train events, all of weight one."""
    train = events.filter(pl.col("from_end") > 2)
    pairs = train.select("user_row", "item_row").unique()
    rows = pairs["user_row"].to_numpy(), pairs["item_row"].to_numpy()
    shape = len(ids["user"]), len(ids["item"])
    return csr_matrix((np.ones(len(pairs), np.float32), rows), shape=shape)


def recommend(
    index: faiss.Index,
    user_UD: np.ndarray,
    ids: dict[str, pl.DataFrame],
    events: pl.DataFrame,
    sample: pl.DataFrame,
    out: Path,
) -> None:
    """The best unseen items of the sample's users, and what is held out of them."""
    rows = sample.join(ids["user"], on="user")
    own = events.join(rows, on="user_row").join(ids["item"], on="item_row")
    held_out = own.filter(pl.col("from_end") == 1)
    held_out.select("user", "item").write_parquet(out / "held_out.parquet")
    seen = own.filter(pl.col("from_end") > 1).select("user_row", "item_row").unique()
    counted = rows.join(seen.group_by("user_row").len(), on="user_row")
    width_B = K + 2 ** np.ceil(np.log2(counted["len"].to_numpy())).astype(np.int64)
    found = []
    for width in np.unique(width_B).tolist():
        at = counted["user_row"].to_numpy()[width_B == width]
        k = min(width, index.ntotal)
        _, item_BK = index.search(np.ascontiguousarray(user_UD[at]), k)
        flat = {"user_row": np.repeat(at, k), "item_row": item_BK.ravel()}
        answers = pl.DataFrame(flat).filter(pl.col("item_row") >= 0).cast(pl.UInt32)
        unseen = answers.join(seen, on=["user_row", "item_row"], how="anti", maintain_order="left")
        found.append(unseen.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_row")))
    best = pl.concat(found).filter(pl.col("rank") <= K)
    named = best.join(ids["user"], on="user_row").join(ids["item"], on="item_row")
    named.select("user", "rank", "item").write_parquet(out / "recommendations.parquet")


if __name__ == "__main__":
    main()
