"""Vocabulary and shards of a log by DuckDB, in one process.

    python benchmarks/peers/prepare_duckdb.py LOG OUT PARTITIONS

The same rows as `prepare_polars.py` gives.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

_VOCAB = """
create table {side}s as
select row_number() over (order by count desc, {side}) - 1 as {side}_row, {side}, count
from (select {side}, count(*) as count from events group by {side})
"""
_SHARDS = """
create table shards as
select user_row, item_row, time, weight, hash(user_row, item_row, time) as hash,
       user_row % {partitions} as part,
       case when size > 2 and from_end = 1 then 'test'
            when size > 2 and from_end = 2 then 'valid' else 'train' end as split
from (select user_row, item_row, time, weight,
             row_number() over (partition by user_row order by time desc) as from_end,
             count(*) over (partition by user_row) as size
      from events join users using (user) join items using (item))
"""


def main() -> None:
    log, out, partitions = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    out.mkdir(parents=True)
    with duckdb.connect(str(out / "scratch.duckdb")) as database:
        database.execute("set preserve_insertion_order = false")
        database.execute(
            f"""create table events as select user, item, time, max(weight) as weight
            from read_parquet('{log}/*.parquet') group by user, item, time"""
        )
        for side in ("user", "item"):
            database.execute(_VOCAB.format(side=side))
            database.execute(
                f"copy (select * from {side}s order by {side}_row) to "
                f"'{out}/{side}s.parquet' (format parquet, compression zstd)"
            )
        database.execute(_SHARDS.format(partitions=partitions))
        for split in ("train", "valid", "test"):
            (out / split).mkdir()
            for part in range(partitions):
                database.execute(
                    "copy (select user_row, item_row, time, weight, hash from shards "
                    f"where split = '{split}' and part = {part} order by hash) to "
                    f"'{out}/{split}/part-{part:05d}.parquet' (format parquet, compression zstd)"
                )


if __name__ == "__main__":
    main()
