"""From a raw log to recommendations: ours beside a hand-made script and Spark MLlib, in one run.

    python benchmarks/whole_line_peers.py [--rows 1000000] [--limit 3600] [--without spark] [--json]

The log is that of whole_line.py: a power law, a tenth as many users as rows, a hundredth as many
items, string ids, Parquet. Each of three takes it to vectors, their ids, and the 20 best unseen
items of 20,000 users drawn by a hash, on two cores within 24 GiB:

* ours: `embedmill run` of all eight stages, with the settings of whole_line.py, and a search of its
  index (`Retriever`) without seen items; its seconds and memory include the stages evaluate and
  report, for which the others have nothing;
* hand_made: `peers/line_hand_made.py`: Polars, ALS of `implicit`, an HNSW index of FAISS;
* spark: `peers/line_spark.py`: Spark SQL, ALS of MLlib, `recommendForUserSubset`; no index.
  `spark.all_users_seconds` is what all users would take at that speed.

All have 64 dimensions and fit train events: the last event of a user is test, the one before it
validation (`shards.split = "last"`). SETTINGS says how often ALS iterates, and its weights: those
of als.py; of five that were tried for hand_made at 1 M rows none was better by .001. Each does the
split by itself; `split_agreement` is the share of the drawn users whose test item is that which
this script finds in the log. Recall@20 and NDCG@20 are measured by the same code: of the lists, and
(`exact`) by exact search of the vectors. A test item that the user has seen before does not count.

What runs out of its limit of time or memory is reported with the step it was in. Needs 12 GB of
disk in --folder for 20 M rows. Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness.children import command_of, serve
from harness.command_line import add_folder, finish, parser_of
from harness.cpu_time import CpuTime
from harness.drawn_users import DrawnUsers, K
from harness.line import COMMAND
from harness.memory_limit import limited
from harness.peer_environments import BENCHMARKS, python_of
from harness.power_law_log import sizes_of, written_config, written_log
from harness.step_log import StepLog

from embedmill.pipeline.index import ExcludedRows, retriever_of
from embedmill.pipeline.memory import PeakMemory, descendants, oom_kills
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.shards import SPLITS

Found = dict[str, Any]

_MACHINE = 24 << 30
_DRAWN = 20_000
_DIM, _THREADS = 64, 2
_OUT_OF_MEMORY = re.compile(r"OutOfMemory|MemoryError|bad_alloc|unable to allocate", re.IGNORECASE)
_GRACE = 20  # seconds to end in, after SIGTERM

STEPS = {  # and the stages of ours in each
    "prepare": ("events", "vocab", "shards"),
    "train": ("train",),
    "index": ("export", "index"),
    "evaluate": ("evaluate", "report"),
    "recommend": (),
}
SETTINGS = {
    "hand_made": {"iterations": 10, "regularization": 30.0, "alpha": 100.0},
    "spark": {"iterations": 3, "regularization": 1.0, "alpha": 100.0},
}
NAMES = ("ours", *SETTINGS)


def ours(argument: Mapping[str, Any]) -> Found:
    """All stages and the recommendations, in a process of its own: `out`, `words`, `sample`."""
    out = Path(argument["out"])
    steps = StepLog(out / "steps.jsonl")
    steps.begin("run")
    subprocess.run([*COMMAND, "run", *argument["words"]], check=True, stdout=sys.stderr)
    run = open_run(str(Path(argument["words"][0]).parent / "runs" / "line"))
    for step, stages in STEPS.items():
        manifests = [run.manifest(stage) for stage in stages]
        if manifests:
            steps.seconds(step, sum(one.seconds for one in manifests if one is not None))
    with steps.step("recommend"):
        recommend(run, pq.read_table(argument["sample"])["user"].to_pylist(), out)
    return {}


def recommend(run: Run, ids: list[str], out: Path) -> None:
    """Write the best unseen items of users, and their test items, as the peers do."""
    retriever, shards = retriever_of(run), Shards(run.artifact("shards"))
    rows = retriever.rows_of(ids, "users")
    order = np.argsort(rows)
    events = {}
    for split in SPLITS:
        columns = ["user_row", "item_row"]
        user, item = shards.concatenated([split], range(shards.partitions), columns)
        own = np.isin(user, rows)
        events[split] = order[np.searchsorted(rows[order], user[own])], item[own]
    item_ids = Vectors.of(run.artifact("export"), "items").vocabulary
    users = pa.array(ids)
    asked, item = events["test"]
    held_out = {"user": users.take(pa.array(asked)), "item": item_ids.ids(item)}
    pq.write_table(pa.table(held_out), out / "held_out.parquet")
    user, item = map(np.concatenate, zip(events["train"], events["valid"], strict=True))
    excluded = ExcludedRows.of(user, item, len(rows))
    _, row_Uk = retriever.search_vectors(retriever.query_vectors(rows, "users"), K, excluded)
    user, rank = np.nonzero(row_Uk >= 0)
    best = {"user": users.take(pa.array(user)), "rank": rank + 1}
    best["item"] = item_ids.ids(row_Uk[row_Uk >= 0])
    pq.write_table(pa.table(best), out / "recommendations.parquet")


def command(name: str, folder: Path, sample: Path, overrides: list[str]) -> list[str]:
    """What one of NAMES is started with.

    Args:
        name: which.
        folder: with the log; results go to a folder below it of that name.
        sample: Parquet file with the ids of the drawn users.
        overrides: of our config.
    """
    out = folder / name
    if name == "ours":
        words = written_config(folder, "spectral", overrides)
        return command_of(
            __file__, "ours", {"out": str(out), "words": words, "sample": str(sample)}
        )
    python = Path(sys.executable) if name == "spark" else python_of(name)
    script = BENCHMARKS / "peers" / f"line_{name}.py"
    setting = SETTINGS[name]
    sizes = _DIM, int(setting["iterations"]), _THREADS
    weights = setting["regularization"], setting["alpha"]
    return [*map(str, (python, script, folder / "log", out, sample, *sizes, *weights))]


def measured(name: str, words: list[str], out: Path, limit: float) -> Found:
    """Run one of NAMES within its limits.

    Args:
        name: which.
        words: its command.
        out: an empty folder for its results.
        limit: seconds.

    Returns:
        status, seconds, CPU seconds, peak memory, seconds by step, the step it did not finish.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])}  # fmt: skip
    if name == "hand_made":
        environment["OPENBLAS_NUM_THREADS"] = "1"  # as `implicit` asks for: it has its own threads
    kills, said = oom_kills(), out / "said.txt"
    began = time.perf_counter()
    with limited(_MACHINE) as memory_limit, said.open("w", encoding="utf-8") as text:
        process = subprocess.Popen(
            words, stdout=text, stderr=text, env=environment, preexec_fn=memory_limit.enter
        )
        with PeakMemory(process.pid) as memory, CpuTime(process.pid) as cpu:
            code = _ended(process, limit)
        seconds = time.perf_counter() - began
    steps = StepLog(out / "steps.jsonl").read()
    status = "done" if code == 0 else "out of time" if code is None else f"ended with code {code}"
    if code and (oom_kills() > kills or _OUT_OF_MEMORY.search(said.read_text(encoding="utf-8"))):
        status = "out of memory"
    if code:
        sys.stderr.write(said.read_text(encoding="utf-8")[-4000:])
    return {
        "status": status,
        "unfinished": "" if code == 0 else steps.unfinished or "start",
        "seconds": seconds,
        "cpu_seconds": cpu.seconds(),
        "peak_gib": memory.measured().get("peak_bytes", 0) / 2**30,
        **{f"seconds.{step}": taken for step, taken in steps.seconds.items()},
        # Of a program that did not finish, the step that it was in as well.
        "seconds.start" if code == 0 else "seconds.unfinished": seconds
        - sum(steps.seconds.values()),
        **steps.figures,
    }


def _ended(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """The exit code; None where the process was ended, with its children, after `limit` seconds."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        every = descendants(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        for one in every:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        process.wait()
        return None


def judged(name: str, folder: Path, drawn: DrawnUsers) -> Found:
    """Quality of what one of NAMES has written."""
    out = folder / name
    found: Found = {
        "split_agreement": drawn.agreement(pq.read_table(out / "held_out.parquet")),
        **drawn.quality(pq.read_table(out / "recommendations.parquet")),
    }
    if name == "ours":
        export = open_run(str(folder / "runs" / "line")).artifact("export")
        users, items = (Vectors.of(export, side).table() for side in ("users", "items"))
    else:
        users, items = (pq.read_table(out / f"{side}.parquet") for side in ("users", "items"))
    exact = drawn.exact_quality(users, items)
    return found | {f"exact.{metric}": value for metric, value in exact.items()}


def compared(args: argparse.Namespace) -> Found:
    """All in turn, on one log; flat."""
    users, items = sizes_of(args.rows)
    flat: Found = {"rows": args.rows, "users": users, "items": items, "cores": os.cpu_count()}
    folder = Path(tempfile.mkdtemp(prefix="embedmill-bench-", dir=args.folder))
    try:
        written_log(folder / "log", args.rows, users, items)
        drawn = DrawnUsers.of(folder / "log", (users, items), min(_DRAWN, users // 5))
        flat |= {"drawn": len(drawn.ids), "asked": int((drawn.relevant.lengths > 0).sum())}
        pq.write_table(pa.table({"user": drawn.ids}), folder / "sample.parquet")
        for name in (name for name in NAMES if name not in args.without):
            (folder / name).mkdir()
            words = command(name, folder, folder / "sample.parquet", args.set)
            found = measured(name, words, folder / name, args.limit)
            if found["status"] == "done":
                found |= judged(name, folder, drawn)
            flat |= {f"{name}.{key}": value for key, value in found.items()}
            print(json.dumps({name: found}), file=sys.stderr, flush=True)
            for done in (folder / name, folder / "runs"):
                shutil.rmtree(done, ignore_errors=True)
    finally:
        shutil.rmtree(folder)
    return flat | ratios(flat)


def ratios(flat: Mapping[str, Any]) -> Found:
    """Time, CPU time and memory of each peer that finished, over ours.

    With `_unevaluated` over ours without the stages that the peers have nothing for.
    """
    found: Found = {}
    if flat.get("ours.status") != "done":
        return found
    unevaluated = flat["ours.seconds"] - flat["ours.seconds.evaluate"]
    for name in (name for name in SETTINGS if flat.get(f"{name}.status") == "done"):
        for key in ("seconds", "cpu_seconds", "peak_gib"):
            found[f"{key}.{name}_over_ours"] = flat[f"{name}.{key}"] / flat[f"ours.{key}"]
        found[f"seconds.{name}_over_ours_unevaluated"] = flat[f"{name}.seconds"] / unevaluated
    return found


def show(flat: Mapping[str, Any]) -> None:
    names = [name for name in NAMES if f"{name}.status" in flat]
    print(f"{flat['rows']:,} rows, {flat['users']:,} users, {flat['items']:,} items")
    print(f"{'':<20}" + "".join(f"{name:>16}" for name in names))
    quality = [f"{kind}{metric}@{K}" for kind in ("", "exact.") for metric in ("recall", "ndcg")]
    steps = [f"seconds.{step}" for step in ("start", *STEPS, "unfinished")]
    for key in ("status", "unfinished", "seconds", *steps, "cpu_seconds", "peak_gib", *quality,
                "answered", "split_agreement", "all_users_seconds"):  # fmt: skip
        values = [flat.get(f"{name}.{key}", "") for name in names]
        digits = 4 if "@" in key else 2 if key in ("peak_gib", "split_agreement") else 1
        cells = (v if isinstance(v, str) else f"{v:,.{digits}f}" for v in values)
        print(f"{key:<20}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    serve({"ours": ours})
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--limit", type=float, default=3600, help="seconds of each")
    parser.add_argument("--without", action="append", default=[], choices=NAMES)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value",
                        help="lay a key over our config")  # fmt: skip
    add_folder(parser)
    args = parser.parse_args()
    flat = compared(args)
    show(flat)
    finish(args, flat)


if __name__ == "__main__":
    main()
