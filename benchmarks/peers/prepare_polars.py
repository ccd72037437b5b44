"""Vocabulary and shards of a log by Polars, in one process.

    python benchmarks/peers/prepare_polars.py LOG OUT PARTITIONS

The same rows as the data stages with their defaults: events alike in user, item and time are
one, rows by count falling and then id, a user's last event is test and the one before it
validation, files by user and split in the order of a hash.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

SPLITS = ("train", "valid", "test")


def main() -> None:
    log, out, partitions = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    events = pl.read_parquet(f"{log}/*.parquet").unique(["user", "item", "time"])
    shards = events
    for side in ("user", "item"):
        vocab = ranked(events, side)
        written(vocab, out / f"{side}s.parquet")
        shards = shards.join(vocab.select(side, f"{side}_row"), on=side).drop(side)
    shards = split(shards).with_columns(
        part=pl.col("user_row") % partitions,
        hash=pl.struct("user_row", "item_row", "time").hash(1),
    )
    for (name, part), rows in shards.partition_by(
        ["split", "part"], as_dict=True, include_key=False
    ).items():
        written(rows.sort("hash"), out / SPLITS[name] / f"part-{part:05d}.parquet")


def ranked(events: pl.DataFrame, side: str) -> pl.DataFrame:
    """Ids with their rows, the commonest first."""
    counted = events.group_by(side).len("count").sort(["count", side], descending=[True, False])
    return counted.with_row_index(f"{side}_row").with_columns(pl.col(f"{side}_row").cast(pl.Int64))


def split(events: pl.DataFrame) -> pl.DataFrame:
    """0 train, 1 validation, 2 test; a user of two events or fewer is not held out."""
    from_end = pl.col("time").rank("ordinal", descending=True).over("user_row")
    long_enough = pl.len().over("user_row") > 2
    return events.with_columns(
        split=pl.when(long_enough & (from_end == 1)).then(2)
        .when(long_enough & (from_end == 2)).then(1).otherwise(0)
    )  # fmt: skip


def written(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path, compression="zstd")


if __name__ == "__main__":
    main()
