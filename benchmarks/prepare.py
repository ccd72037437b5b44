"""Events, vocabulary and shards of a large log, beside Polars, DuckDB and local Apache Spark.

    python benchmarks/prepare.py [--rows 20000000] [--skew] [--without NAME] [--json]

A log of a power law is made: a tenth as many users as rows, a fortieth as many items, string
ids, Parquet. It goes through the first three stages on the embedded engine and on local Spark,
and the same rows are made by Polars and by DuckDB, each in one process (peers/), which
keep no cleaned events, no rejects, no checksums and nothing to go on from. All results are
compared: the same events in each split, with the same rows. With --skew one user has a tenth of
the rows and one item a fifth. Needs about 1 GB of disk for 10 M rows in --folder,
deleted at the end. Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from harness.command_line import add_folder, finish, parser_of
from harness.power_law import draw_rows

from embedmill.pipeline.memory import PeakMemory

HERE = Path(__file__).parent
PARTITIONS = 64
_FILE = 1_000_000  # rows of a file of the log
_YEAR = 365 * 24 * 3600 * 10**6

Found = dict[str, Any]


def written_log(folder: Path, rows: int, *, skew: bool) -> None:
    """The log: user, item, time in microseconds, weight."""
    most_user, most_item = (0.1, 0.2) if skew else (0.0, 0.0)
    folder.mkdir()
    for number, first in enumerate(range(0, rows, _FILE)):
        source, size = np.random.default_rng((7, number)), min(_FILE, rows - first)
        table = pa.table(
            {
                "user": _ids("user", rows // 10, size, most_user, source),
                "item": _ids("item", rows // 40, size, most_item, source),
                "time": 1_700_000_000_000_000 + source.integers(_YEAR, size=size),
                "weight": source.integers(1, 6, size=size).astype(np.float64),
            }
        )
        pq.write_table(table, folder / f"part-{number:05d}.parquet", compression="zstd")


def _ids(side: str, count: int, size: int, most: float, source: np.random.Generator) -> pa.Array:
    """Ids of a power law, the first with a share `most` beside; spelling does not show the rank."""
    rank = draw_rows(count, size, source)
    if most:
        rank[source.random(size) < most] = 0
    spelled = rank * 2_654_435_761 % 2**32  # odd: one to one
    return pc.binary_join_element_wise(side, pc.cast(pa.array(spelled), pa.string()), "-")


def ours(engine: str, log: Path, out: Path) -> list[str]:
    """The command of our three stages."""
    config = out.parent / f"{out.name}.toml"
    config.write_text(
        f'[run]\nname = "{out.name}"\nroot = "{out.parent}"\npartitions = {PARTITIONS}\n'
        f'engine = "{engine}"\n\n[events]\npaths = "{log}/*.parquet"\nformat = "parquet"\n'
        'user = "user"\nitem = "item"\ntime = "time"\ntime_unit = "microseconds"\n'
        'weight = "weight"\n\n[train]\nweight_power = 0\n',
        encoding="utf-8",
    )
    return ["-m", "embedmill", "run", str(config), "--to", "shards"]


def peer(name: str, log: Path, out: Path) -> list[str]:
    """The command of a peer."""
    return [str(HERE / "peers" / f"prepare_{name}.py"), str(log), str(out), str(PARTITIONS)]


CONTENDERS = {
    "ours": lambda log, out: ours("sail", log, out),
    "spark": lambda log, out: ours("spark", log, out),
    "polars": lambda log, out: peer("polars", log, out),
    "duckdb": lambda log, out: peer("duckdb", log, out),
}
LABELS = {
    "ours": "ours, embedded engine",
    "spark": "ours, local Apache Spark",
    "polars": "Polars, one process",
    "duckdb": "DuckDB, one process",
}


def measured(name: str, log: Path, out: Path) -> Found:
    """Seconds from start to end, and the most memory; what was made is summed up and removed."""
    command, began = CONTENDERS[name](log, out), time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=sys.stderr)
    with PeakMemory(process.pid) as memory:
        code = process.wait()
        seconds = time.perf_counter() - began
    peak = memory.measured().get("peak_bytes", 0)
    if code:
        raise SystemExit(f"{name} ended with {code}: {' '.join(command)}")
    found = {"seconds": seconds, "peak_gib": peak / 2**30, "sums": sums(out)}
    if (out / "shards" / "manifest.json").exists():
        found |= _by_stage(out)
    shutil.rmtree(out)
    return found


def _by_stage(out: Path) -> Found:
    stages = ("events", "vocab", "shards")
    manifests = {s: json.loads((out / s / "manifest.json").read_text()) for s in stages}
    return {f"{stage}.seconds": m["seconds"] for stage, m in manifests.items()}


def sums(out: Path) -> dict[str, list[int]]:
    """By split the number of events, and a sum over them that tells rows apart in any order."""
    root = out / "shards" if (out / "shards").is_dir() else out
    found = {}
    for split in ("train", "valid", "test"):
        number, total = 0, np.uint64(0)
        for path in sorted((root / split).glob("*.parquet")):
            table = pq.read_table(path, columns=["user_row", "item_row", "time"])
            user, item, when = (c.to_numpy().astype(np.uint64) for c in table.columns)
            with np.errstate(over="ignore"):
                key = (user * np.uint64(0x9E3779B97F4A7C15) ^ item) * np.uint64(0xBF58476D1CE4E5B9)
                key = (key ^ when) * np.uint64(0x94D049BB133111EB)
                total += (key ^ (key >> np.uint64(29))).sum(dtype=np.uint64)
            number += table.num_rows
        found[split] = [number, int(total)]
    return found


def compared(args: argparse.Namespace) -> Found:
    """All contenders one after the other, flat."""
    names = [name for name in CONTENDERS if name not in args.without]
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-", dir=args.folder) as folder:
        log = Path(folder) / "log"
        written_log(log, args.rows, skew=args.skew)
        found = {name: measured(name, log, Path(folder) / name) for name in names}
    flat: Found = {"rows": args.rows, "cores": os.cpu_count()}
    for name, one in found.items():
        if one["sums"] != found["ours"]["sums"]:
            raise SystemExit(f"{name} has other rows: {one['sums']}, ours {found['ours']['sums']}")
        prefix = "" if name == "ours" else f"{name}."
        flat |= {f"{prefix}{key}": value for key, value in one.items() if key != "sums"}
        if name != "ours":
            flat[f"seconds_over_{name}"] = found["ours"]["seconds"] / one["seconds"]
    flat["rows_per_second"] = args.rows / flat["seconds"]
    return flat


def show(flat: Found) -> None:
    print(f"{flat['rows']:,} rows to {PARTITIONS} partitions on {flat['cores']} cores")
    print(f"{'':<28}{'seconds':>9}{'rows/s':>12}{'peak GiB':>10}{'ours over it':>14}")
    for name, label in LABELS.items():
        prefix = "" if name == "ours" else f"{name}."
        if f"{prefix}seconds" in flat:
            seconds = flat[f"{prefix}seconds"]
            over = f"{flat[f'seconds_over_{name}']:13.2f}×" if name != "ours" else ""
            print(f"{label:<28}{seconds:9.1f}{flat['rows'] / seconds:12,.0f}"
                  f"{flat[f'{prefix}peak_gib']:10.2f}{over}")  # fmt: skip


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument(
        "--skew", action="store_true", help="a user with a tenth of the rows, an item with a fifth"
    )
    parser.add_argument("--without", action="append", default=[],
                        choices=[name for name in CONTENDERS if name != "ours"])  # fmt: skip
    add_folder(parser)
    args = parser.parse_args()
    flat = compared(args)
    show(flat)
    finish(args, flat)


if __name__ == "__main__":
    main()
