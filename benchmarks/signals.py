"""Stage `events` under every rule of `events.signals`, beside no rule and beside Polars.

    python benchmarks/signals.py [--json] [--rows 5000000] [--rounds 2]

A shop's log of a power law (Parquet: visitor, product, time, action, country, price) goes through
a filter in SQL, weights by type, a rule against bots, decay, merging by pair, a threshold and a
cap: by the stage on the embedded engine, and by Polars in one process, which need not sort or
partition what it writes. Rounds alternate; the best of each side counts. The rows must agree, and
weights to seven digits. Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from harness.command_line import finish, parser_of
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.prepare import events
from embedmill.pipeline.prepare.engine.connection import open_session
from embedmill.pipeline.store.run import Run

_DAY = 86_400_000_000
_DAYS = 60
_START = 1_760_000_000_000_000
_TYPES = {"view": 1.0, "cart": 2.0, "buy": 5.0, "remove": 0.0}
_PART = 1 << 20  # rows of a row group
_COUNTRIES = np.array(["DE", "AT", "CH", "FR"])
RULES: dict[str, Any] = {
    "filter": "country <> 'FR' and price > 1",
    "merge_by": "pair",
    "merge_weight": "sum",
    "signals": {
        "type": "action",
        "types": _TYPES,
        "min_weight": 1,
        "max_user_events_per_day": 60,
        "half_life_days": 20,
        "min_merged_weight": 0.3,
        "max_user_events": 200,
    },
}


def log(path: Path, rows: int) -> None:
    """A log of `rows` rows, a tenth as many visitors and a fortieth as many products."""
    writer = None
    for part in range(-(-rows // _PART)):
        size, draw = min(_PART, rows - part * _PART), np.random.default_rng((7, part))
        chosen = draw.choice(4, size, p=[0.7, 0.1, 0.1, 0.1])
        table = pa.table({
            "visitor": _ids("v", draw.random(size) ** 3, rows // 10),
            "product": _ids("p", draw.random(size) ** 2, rows // 40),
            "time": pa.array(_START + draw.integers(0, _DAYS * _DAY, size)),
            "action": pa.array(np.array(list(_TYPES))[chosen]),
            "country": pa.array(_COUNTRIES[draw.integers(0, 4, size)]),
            "price": pa.array(draw.random(size) * 20),
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()


def _ids(letter: str, share: Any, most: int) -> pa.Array:
    return pa.array(np.char.add(letter, (share * most).astype(np.int64).astype(str)))


def ours(session: SparkSession, folder: Path, source: Path, rules: dict[str, Any]) -> Run:
    """The stage, in a run of its own."""
    columns = {"user": "visitor", "item": "product", "time": "time", "time_unit": "microseconds"}
    tree = {
        "run": {"name": "shop", "root": str(folder)},
        "events": {"paths": str(source), "format": "parquet", **columns, **rules},
        "train": {"weight_power": 1},
    }
    run = Run(parse(tree))
    run.discard("events")
    events.build(session, run, run.writer("events", events.source_stamps(run)), Quiet())
    return run


def theirs(source: Path, target: Path) -> None:
    """The same rules by Polars."""
    rules = RULES["signals"]
    rows = (
        pl.scan_parquet(source)
        .filter((pl.col("country") != "FR") & (pl.col("price") > 1))
        .with_columns(pl.col("action").replace_strict(_TYPES).alias("weight"))
        .filter((pl.col("weight") != 0) & (pl.col("weight") >= rules["min_weight"]))
        .select("visitor", "product", "time", "weight")
        .collect()
    )
    last = rows["time"].max()
    days = rows.lazy().unique(["visitor", "product", "time"]).with_columns(pl.col("time") // _DAY)
    bots = (
        days.group_by("visitor", "time")
        .len()
        .filter(pl.col("len") > rules["max_user_events_per_day"])
    )
    age = (last - pl.col("time")) / (rules["half_life_days"] * _DAY)
    (
        rows.lazy()
        .join(bots, "visitor", how="anti")
        .with_columns(pl.col("weight") * 0.5**age)
        .group_by("visitor", "product")
        .agg(pl.col("weight").sum(), pl.col("time").max())
        .filter(pl.col("weight") >= rules["min_merged_weight"])
        .filter(
            pl.col("time").rank("ordinal", descending=True).over("visitor")
            <= rules["max_user_events"]
        )
        .collect()
        .write_parquet(target, compression="zstd")
    )


def agree(run: Run, target: Path) -> None:
    """Raise unless both have the same rows."""
    mine = pl.DataFrame(run.artifact("events").read_tables("data")).sort("user", "item")
    peer = pl.read_parquet(target).sort("visitor", "product")
    if not (mine["user"].equals(peer["visitor"]) and mine["item"].equals(peer["product"])):
        raise SystemExit(f"the rows differ: {len(mine):,} here, {len(peer):,} by Polars")
    np.testing.assert_allclose(mine["weight"].to_numpy(), peer["weight"].to_numpy(), rtol=1e-6)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(rows: int, rounds: int, folder: Path) -> dict[str, float | int]:
    """Seconds of each side, the best of its rounds, and what the rules dropped."""
    source, target = folder / "log.parquet", folder / "polars.parquet"
    log(source, rows)
    found: dict[str, list[float]] = {"plain": [], "rules": [], "polars": []}
    plain = {"merge_by": "pair", "merge_weight": "sum"}
    with open_session("sail") as session:
        for _ in range(rounds):
            found["plain"].append(_seconds(lambda: ours(session, folder / "a", source, plain)))
            found["rules"].append(_seconds(lambda: ours(session, folder / "b", source, RULES)))
            found["polars"].append(_seconds(lambda: theirs(source, target)))
        run = ours(session, folder / "b", source, RULES)
    agree(run, target)
    best = {name: min(times) for name, times in found.items()}
    return {
        **{name: count for name, count in run.artifact("events").counters.items() if count},
        **{f"seconds_{name}": round(seconds, 3) for name, seconds in best.items()},
        "rules_over_plain": round(best["rules"] / best["plain"], 3),
        "rules_over_polars": round(best["rules"] / best["polars"], 3),
    }


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.rows, args.rounds, Path(folder))
    for name, value in found.items():
        print(f"{name:<20} {value:>14,}")
    finish(args, found)


if __name__ == "__main__":
    main()
