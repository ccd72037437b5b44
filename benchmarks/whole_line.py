"""The whole line, from raw Parquet logs to a published and verified index, at three sizes.

    python benchmarks/whole_line.py [--rows 100000000] [--json]

A log of a power law is made: a tenth as many users as rows, a hundredth as many items, string ids,
Parquet. `embedmill run` takes it through all eight stages under 24 GiB, with the settings that the
page on scale gives for such a log; `embedmill verify` then reads all artifacts again. The same is
done with 1 M and 10 M rows first. Beside the seconds and the most memory of each stage stands what
`embedmill plan` said of it before the run, from the number of rows, users and items, and from what
the smaller runs took. The growth of a stage is the slope of log seconds over log rows, by least
squares over the sizes.

Needs about 25 GB of disk in --folder for 100 M rows, deleted at the end. Prints a table; with
--json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness.command_line import add_folder, finish, parser_of
from harness.line import COMMAND, is_published, wait_for
from harness.memory_limit import limited
from harness.power_law_log import add_log, sizes_of, written_config, written_log

from embedmill.pipeline.memory import PeakMemory
from embedmill.schemas.stages import STAGES

_SMALLER = (1_000_000, 10_000_000)  # rows of the runs that the growth is fitted over
_MACHINE = 24 << 30

Found = dict[str, Any]


def measured(folder: Path, rows: int, args: argparse.Namespace, measured_runs: list[Path]) -> Found:
    """One size: the log, the plan, the run, and what each of them says of every stage.

    Args:
        folder: for the log and the run.
        rows: of the log.
        args: of the command line.
        measured_runs: smaller runs that have finished, which the plan goes by.
    """
    users, items = sizes_of(rows, args.users, args.items)
    began = time.perf_counter()
    written_log(folder / "log", rows, users, items)
    words = written_config(folder, args.objective, args.set)
    made = time.perf_counter()
    planned = plan(words, (rows, users, items), measured_runs)
    found: Found = {"log": made - began, "planning": time.perf_counter() - made}
    began = time.perf_counter()
    with limited(_MACHINE) as limit:
        process = subprocess.Popen(
            [*COMMAND, "run", *words], stdout=sys.stderr, stderr=subprocess.PIPE, text=True,
            preexec_fn=limit.enter,
        )  # fmt: skip
        with PeakMemory(process.pid) as memory:
            wait_for(process)
        found["peak"] = memory.measured().get("peak_bytes", 0)
    run = folder / "runs" / "line"
    found["total"] = time.perf_counter() - began
    found["stages"] = {stage: _manifest(run, stage) for stage in STAGES}
    for stage, one in found["stages"].items():
        one["planned"] = planned[f"stages.{stage}.seconds"]
        one["planned_peak"] = planned[f"stages.{stage}.memory"]
    found["published"] = is_published(str(run.parent), run.name)
    return found


def plan(words: list[str], sizes: tuple[int, int, int], measured_runs: list[Path]) -> Found:
    """What `embedmill plan` says of a log of so many rows, users and items."""
    command = [*COMMAND, "plan", *words, "--json"]
    for name, size in zip(("rows", "users", "items"), sizes, strict=True):
        command += [f"--{name}", str(size)]
    for run in measured_runs:
        command += ["--measured", str(run)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    planned: Found = json.loads(answer.stdout.splitlines()[-1])
    return planned


def _manifest(run: Path, stage: str) -> Found:
    manifest = json.loads((run / stage / "manifest.json").read_text(encoding="utf-8"))
    return {
        "seconds": manifest["seconds"],
        "peak": manifest["measured"].get("peak_bytes", 0),
        "cpu": manifest["measured"].get("cpu_seconds", 0.0),
        "bytes": sum(file["bytes"] for file in manifest["files"]),
    }


def growth(by_rows: dict[int, Found]) -> dict[str, float]:
    """Exponent by stage: the slope of log seconds over log rows."""
    if len(by_rows) < 2:
        return {}
    rows = [math.log(number) for number in by_rows]
    return {
        stage: float(
            np.polyfit(
                rows, [math.log(f["stages"][stage]["seconds"]) for f in by_rows.values()], 1
            )[0]
        )
        for stage in STAGES
    }


def compared(args: argparse.Namespace) -> Found:
    """All sizes, flat; keys without a size are those of the largest."""
    by_rows: dict[int, Found] = {}
    runs: list[Path] = []
    folder = Path(tempfile.mkdtemp(prefix="embedmill-bench-", dir=args.folder))
    try:
        for rows in sorted({*(n for n in _SMALLER if n < args.rows), args.rows}):
            (folder / str(rows)).mkdir()
            by_rows[rows] = measured(folder / str(rows), rows, args, runs)
            runs.append(folder / str(rows) / "runs" / "line")
            if not args.keep:
                shutil.rmtree(folder / str(rows) / "log")
            show(rows, by_rows[rows])
    finally:
        if not args.keep:
            shutil.rmtree(folder)
    flat: Found = {"rows": args.rows, "cores": os.cpu_count()}
    for rows, found in by_rows.items():
        flat |= _flat("" if rows == args.rows else f"{rows}.", found)
    return flat | {f"growth.{stage}": slope for stage, slope in growth(by_rows).items()}


def _flat(prefix: str, found: Found) -> Found:
    """Figures of a size under their prefix; errors of the plan are relative."""
    stages = found["stages"]
    flat: Found = {
        "published": found["published"],
        "seconds": found["total"],
        "peak_gib": found["peak"] / 2**30,
    }
    errors = {}
    for stage, one in stages.items():
        flat[f"seconds.{stage}"] = one["seconds"]
        flat[f"cpu_seconds.{stage}"] = one["cpu"]
        flat[f"peak_gib.{stage}"] = one["peak"] / 2**30
        flat[f"plan.seconds.{stage}"] = one["planned"]
        flat[f"plan.peak_gib.{stage}"] = one["planned_peak"] / 2**30
        errors[f"seconds.{stage}"] = abs(one["planned"] / one["seconds"] - 1)
        errors[f"peak_gib.{stage}"] = abs(one["planned_peak"] / max(1, one["peak"]) - 1)
    flat |= {f"plan.error.{name}": error for name, error in errors.items()}
    flat["plan.worst_error"] = max(errors.values())
    flat["plan.worst"] = max(errors, key=errors.__getitem__)
    planned = sum(one["planned"] for one in stages.values())
    flat["plan.error.seconds"] = abs(planned / sum(one["seconds"] for one in stages.values()) - 1)
    return {f"{prefix}{name}": value for name, value in flat.items()}


def show(rows: int, found: Found) -> None:
    print(f"\n{rows:,} rows, {found['total']:.0f} s, {found['peak'] / 2**30:.2f} GiB at most, "
          f"{'published' if found['published'] else 'NOT PUBLISHED'}")  # fmt: skip
    heads = ("seconds", "planned", "CPU s", "rows/s", "peak GiB", "planned", "GB written")
    print(f"{'stage':<10}" + "".join(f"{head:>11}" for head in heads))
    for stage, one in found["stages"].items():
        figures = (
            f"{one['seconds']:.1f}", f"{one['planned']:.1f}", f"{one['cpu']:.0f}",
            f"{rows / one['seconds']:,.0f}", f"{one['peak'] / 2**30:.2f}",
            f"{one['planned_peak'] / 2**30:.2f}", f"{one['bytes'] / 1e9:.2f}",
        )  # fmt: skip
        print(f"{stage:<10}" + "".join(f"{figure:>11}" for figure in figures), flush=True)


def main() -> None:
    parser = parser_of(__doc__)
    add_log(parser, 100_000_000)
    parser.add_argument("--keep", action="store_true", help="keep the folders of the runs")
    add_folder(parser)
    args = parser.parse_args()
    finish(args, compared(args))


if __name__ == "__main__":
    main()
