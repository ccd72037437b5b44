"""The events stage over a dirty text log beside a clean one: every line accounted for, speed.

    python benchmarks/dirty.py [--json] [--rows 20000000] [--repeats 2]

Both logs have the same power-law events; in the dirty one 5 % of the lines are broken, in
fifteen ways. Each run of the stage is a process of its own, clean and dirty in turn. What was
planted is compared with what the stage counted, reason by reason; a difference ends the
benchmark with an error. Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from harness.children import call, serve
from harness.command_line import add_folder, finish, parser_of
from harness.power_law import draw_rows

from embedmill.pipeline.config import parse
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.prepare import events
from embedmill.pipeline.prepare.engine.connection import open_session
from embedmill.pipeline.store.run import Run, open_run

USERS, ITEMS, DAYS, START = 2_000_000, 500_000, 300, 1_735_689_600
DIRT = 0.05
_PIECE = 500_000  # lines written at a time
_HEAD = b"user_id\titem_id\ttime\trating\n"
Fields = list[bytes]


def _joined(*fields: bytes) -> bytes:
    return b"\t".join(fields)


# Fifteen ways to break a line, with the reason that it must be rejected for.
WAYS: dict[str, tuple[str, Callable[[Fields], bytes]]] = {
    "cut in the middle": ("columns", lambda f: _joined(f[0], f[1][:2])),
    "separator doubled": ("columns", lambda f: _joined(f[0], b"", *f[1:])),
    "two lines in one": ("columns", lambda f: _joined(*f, *f)),
    "other separator": ("columns", lambda f: b";".join(f)),
    "blank": ("columns", lambda f: b""),
    "bytes that are no UTF-8": ("encoding", lambda f: _joined(f[0] + b"\xff\xfe", *f[1:])),
    "half a character": ("encoding", lambda f: _joined(*f[:3], f[3] + b"\xe2\x82")),
    "no user": ("user_missing", lambda f: _joined(b"", *f[1:])),
    "no item": ("item_missing", lambda f: _joined(f[0], b"", *f[2:])),
    "a huge id": ("id_too_long", lambda f: _joined(f[0], b"x" * 2000, *f[2:])),
    "a word for a time": ("time", lambda f: _joined(*f[:2], b"yesterday", f[3])),
    "NUL in the time": ("time", lambda f: _joined(*f[:2], f[2][:4] + b"\0" + f[2][4:], f[3])),
    "milliseconds": ("time_range", lambda f: _joined(*f[:2], f[2] + b"000", f[3])),
    "fields swapped": ("weight", lambda f: _joined(f[0], f[3], f[2], f[1])),
    "not finite": ("weight_range", lambda f: _joined(*f[:3], b"NaN")),
}


def written(path: Path, rows: int, *, dirty: bool) -> Counter[str]:
    """A log of so many lines; returns how many were broken in each way."""
    planted: Counter[str] = Counter()
    names = list(WAYS)
    with path.open("wb") as out:
        out.write(_HEAD)
        for first in range(0, rows, _PIECE):
            draw = np.random.default_rng((7, first))
            size = min(_PIECE, rows - first)
            lines = _lines(size, draw)
            if dirty:
                broken = np.flatnonzero(draw.random(size) < DIRT)
                lines = lines.to_pylist()
                ways = draw.integers(len(WAYS), size=len(broken))
                for at, way in zip(broken.tolist(), ways.tolist(), strict=True):
                    lines[at] = WAYS[names[way]][1](lines[at].split(b"\t"))
                    planted[names[way]] += 1
                out.write(b"\n".join(lines) + b"\n")
            else:
                ends = pa.array([0, size], pa.int32())
                out.write(pc.binary_join(pa.ListArray.from_arrays(ends, lines), b"\n")[0].as_py())
                out.write(b"\n")
        if dirty:  # so that no blank line is the last: these are no lines
            out.write(_joined(b"u", b"i", str(START).encode(), b"1") + b"\n")
    return planted


def _lines(size: int, draw: np.random.Generator) -> pa.Array:
    def text(values: npt.NDArray[np.int64], prefix: str = "") -> pa.Array:
        return pc.binary_join_element_wise(prefix, pa.array(values).cast(pa.string()), "")

    columns = [
        text(draw_rows(USERS, size, draw), "user-"),
        text(draw_rows(ITEMS, size, draw), "item-"),
        text(START + draw.integers(DAYS * 86_400, size=size)),
        text(draw.integers(1, 6, size=size)),
    ]
    return pc.binary_join_element_wise(*columns, "\t").cast(pa.binary())


def events_stage(argument: dict[str, str]) -> dict[str, float]:
    """The events stage over a log."""
    log, folder = argument["log"], argument["folder"]
    tree = {
        "run": {"name": "dirty", "root": folder},
        "events": {
            "paths": log, "time": "time", "weight": "rating", "max_rejects": 1.0,
            "merge_by": "none", "time_max": "2027-01-01",
        },
    }  # fmt: skip
    run, began = Run(parse(tree)), time.perf_counter()
    run.storage.write("config.json", run.config.model_dump_json().encode())
    with open_session("sail") as session:
        events.build(session, run, run.writer("events", {}), Quiet())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak}


def measured(log: Path, folder: str) -> tuple[dict[str, float], dict[str, int], int]:
    """Seconds and peak memory of the stage, its counters, and bytes of its rejects."""
    result = call(__file__, "events_stage", {"log": str(log), "folder": folder})
    artifact = open_run(f"{folder}/dirty").artifact("events")
    size = sum(entry.bytes for entry in artifact.files("rejects"))
    return result.value, artifact.counters, size


def check(rows: int, planted: Counter[str], counters: dict[str, int]) -> dict[str, int]:
    """Lines broken by reason; ends the process where the stage counted others."""
    expected: Counter[str] = Counter()
    for way, count in planted.items():
        expected[WAYS[way][0]] += count
    found = {
        name.removeprefix("rejected."): count
        for name, count in counters.items()
        if name.startswith("rejected.")
    }
    broken = sum(planted.values())
    told = (counters["rows_in"], counters["events"], counters["rejected"])
    if found != dict(expected) or told != (rows, rows - broken, broken):
        sys.exit(f"planted {dict(expected)} in {rows:,} lines, the stage says {counters}")
    return found


def compared(args: argparse.Namespace) -> dict[str, float]:
    """Both logs, in turn; flat."""
    seconds: dict[str, list[float]] = {"clean": [], "dirty": []}
    flat: dict[str, float] = {"rows": args.rows}
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-", dir=args.folder) as folder:
        logs = {name: Path(folder) / f"{name}.tsv" for name in seconds}
        planted = {n: written(log, args.rows, dirty=n == "dirty") for n, log in logs.items()}
        for turn in range(args.repeats):
            for name, log in logs.items():
                with tempfile.TemporaryDirectory(dir=folder) as root:
                    found, counters, size = measured(log, root)
                rows = args.rows + (name == "dirty")
                reasons = check(rows, planted[name], counters)
                seconds[name].append(found["seconds"])
                flat[f"{name}.peak_gib"] = found["peak_bytes"] / 2**30
                if name == "dirty":
                    flat |= {f"rejected.{reason}": count for reason, count in reasons.items()}
                    flat |= {"rejected": counters["rejected"], "rejects_bytes": size,
                             "rejects_kept": counters["rejects_kept"]}  # fmt: skip
            print(f"turn {turn + 1} of {args.repeats} done", file=sys.stderr, flush=True)
        flat["bytes"] = logs["clean"].stat().st_size
    for name, found_seconds in seconds.items():
        flat[f"{name}.seconds"] = statistics.median(found_seconds)
        flat[f"{name}.rows_per_second"] = args.rows / flat[f"{name}.seconds"]
    ratios = [c / d for c, d in zip(seconds["clean"], seconds["dirty"], strict=True)]
    flat["dirty_over_clean"] = statistics.median(ratios)
    return flat


def main() -> None:
    serve({"events_stage": events_stage})
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    add_folder(parser)
    args = parser.parse_args()
    flat = compared(args)
    print(f"{'log':<6} {'rows':>11} {'rows/s':>10} {'seconds':>8} {'peak GiB':>9}")
    for name in ("clean", "dirty"):
        print(f"{name:<6} {args.rows:>11,} {flat[f'{name}.rows_per_second']:>10,.0f} "
              f"{flat[f'{name}.seconds']:>8.1f} {flat[f'{name}.peak_gib']:>9.2f}")  # fmt: skip
    print(f"speed of dirty over clean: {flat['dirty_over_clean']:.2f}")
    print(f"rejected, each line as planted: {flat['rejected']:,.0f}; "
          f"kept: {flat['rejects_kept']:,.0f} in {flat['rejects_bytes'] / 1e6:.1f} MB")  # fmt: skip
    for key in sorted(key for key in flat if key.startswith("rejected.")):
        print(f"  {key.removeprefix('rejected.'):<16} {flat[key]:>10,.0f}")
    finish(args, flat)


if __name__ == "__main__":
    main()
