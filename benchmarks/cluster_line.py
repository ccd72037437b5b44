"""The whole line on a Spark cluster, a Ray cluster and an S3 server, against one machine.

    python benchmarks/cluster_line.py [--rows 20000000] [--kill] [--juicefs PROGRAM] [--json]

The log of benchmarks/whole_line.py is made and copied to an S3 server (JuiceFS's gateway, which
`make test-s3` installs). The line runs on this machine with a local disk, and then with its log and
artifacts on the S3 server: the data stages by spark-submit on a standalone master with two workers,
the rest on a Ray cluster of a head and two nodes. All are processes on loopback, each with a folder
of its own. Contents of all stages are compared but the report's, which says by what engine it was
made, and all files on the server are verified.

With --kill the line runs on the clusters once more. In each stage a node is killed with all its
processes: a worker of Spark in the data stages, a node of Ray in the others. It is started again
five seconds later. Where the line ends with exit code 7, the same command is run again. A stage
that was over before its node was killed is built again, and struck sooner.

`struck.<stage>` is the number of processes that were killed with work of the stage or its engine:
0 where the node had none of it, as in `report`; `null` where the stage was over each time. Prints
a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from contents import differing
from harness.clusters import BUCKET, Cluster, ray_cluster, s3_server, spark_cluster
from harness.command_line import add_folder, finish, parser_of
from harness.line import COMMAND, is_published
from harness.power_law_log import add_log, sizes_of, written_config, written_log
from harness.strikes import Strikes, run_until_done
from s3fs import S3FileSystem

import embedmill.jobs
from embedmill.pipeline.store.run import open_run
from embedmill.schemas.stages import STAGES

_DATA = ("events", "vocab", "shards")  # stages on Spark
_ROOT = f"s3://{BUCKET}/runs"
_PASSES = 3  # of the line, at most, until each stage was struck

# The order of sums depends on the number of workers.
_COMMON = ("train.workers=2",)
_HERE = ("train.launcher=processes",)
_ON_CLUSTERS = (
    "train.launcher=ray", "export.launcher=ray", "index.launcher=ray", "evaluate.launcher=ray",
    "train.max_failures=8", f"events.paths=s3://{BUCKET}/log/*.parquet", f"run.root={_ROOT}",
)  # fmt: skip
_SPARK = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "16",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "ERROR",
}

Found = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """The line over a log on the S3 server: the data stages on Spark, the rest on Ray."""

    words: list[str]
    spark: Cluster
    ray: Cluster

    def run(self, name: str, strikes: Strikes | None = None, rebuild: str = "") -> int:
        """Run it; the number of commands that it took.

        Args:
            name: of the run.
            strikes: kills nodes; None for nobody.
            rebuild: a stage that is built again, with all that follow; '' for none.
        """
        sets = [w for one in (*_COMMON, *_ON_CLUSTERS, f"run.name={name}") for w in ("--set", one)]
        again = ["--from", rebuild, "--rebuild"] if rebuild else []
        commands = 0
        if rebuild in ("", *_DATA):
            conf = [word for key, value in _SPARK.items() for word in ("--conf", f"{key}={value}")]
            job = str(Path(embedmill.jobs.__file__ or "").with_name("all.py"))
            submit = [str(Path(sys.executable).with_name("spark-submit")), "--master"]
            command = [*submit, self.spark.address, *conf, job, *self.words, *sets]
            command += ["--to", "shards", "--log", "json", *again]
            commands += run_until_done(command, self.spark.variables, strikes)
            again = []
        command = [*COMMAND, "--log", "json", "run", *self.words, *sets]
        command += again or ["--from", "train"]
        return commands + run_until_done(command, self.ray.variables, strikes)

    def run_struck(self, name: str, seconds: Mapping[str, float]) -> tuple[Strikes, int]:
        """Run it until a node was killed in each stage; what was struck, and the commands.

        Args:
            name: of the run.
            seconds: that each stage takes undisturbed.
        """
        clusters = {stage: self.spark if stage in _DATA else self.ray for stage in STAGES}
        delays = {stage: 0.4 * seconds[stage] for stage in STAGES} | {"report": 0.0}
        strikes = Strikes(clusters, delays)
        commands, missed = 0, ""
        for _ in range(_PASSES):
            commands += self.run(name, strikes, missed)
            left = [stage for stage in STAGES if stage not in strikes.struck]
            if not left:
                break
            missed = left[0]
            delays |= {stage: delays[stage] / 4 for stage in left}
        return strikes, commands


def manifests(url: str) -> tuple[dict[str, str], dict[str, float]]:
    """Content and seconds of each stage of a run."""
    run = open_run(url)
    found = {stage: run.artifact(stage).manifest for stage in STAGES}
    contents = {stage: one.content for stage, one in found.items()}
    return contents, {stage: one.seconds for stage, one in found.items()}


def compared(args: argparse.Namespace, folder: Path) -> Found:
    """The line here, on the clusters, and with kills: flat figures."""
    with ExitStack() as stack:
        (folder / "s3").mkdir()
        os.environ |= stack.enter_context(s3_server(args.juicefs, folder / "s3"))
        words = written_config(folder, args.objective, args.set)
        embedded, wanted = run_here(words, args, folder)
        flat: Found = {"rows": args.rows, "cores": os.cpu_count()} | embedded
        line = Line(
            words, stack.enter_context(spark_cluster(folder)),
            stack.enter_context(ray_cluster(folder)),
        )  # fmt: skip
        began = time.perf_counter()
        line.run("plain")
        found, seconds = manifests(f"{_ROOT}/plain")
        flat |= _figures("cluster", time.perf_counter() - began, seconds)
        flat |= _equal("", wanted, found) | {"verified": is_published(_ROOT, "plain")}
        show(flat)
        for path in S3FileSystem().find(f"{BUCKET}/runs/plain"):
            S3FileSystem().rm_file(path)  # many in one request need a header that s3fs leaves out
        if args.kill:
            began = time.perf_counter()
            strikes, commands = line.run_struck("killed", seconds)
            found, seconds = manifests(f"{_ROOT}/killed")
            flat |= _figures("killed", time.perf_counter() - began, seconds)
            flat |= _equal("killed.", wanted, found)
            flat |= {f"killed.struck.{stage}": strikes.struck.get(stage) for stage in STAGES}
            flat |= {"killed.commands": commands, "killed.verified": is_published(_ROOT, "killed")}
            show(flat)
    return flat


def run_here(
    words: list[str], args: argparse.Namespace, folder: Path
) -> tuple[Found, dict[str, str]]:
    """Make the log, put it on the server, and run the line over it on this machine.

    Args:
        words: the config, and what follows it.
        args: of the command line.
        folder: for the log and the run, which are removed.

    Returns:
        Figures, and the content of each stage.
    """
    users, items = sizes_of(args.rows, args.users, args.items)
    written_log(folder / "log", args.rows, users, items)
    S3FileSystem().put(f"{folder}/log/", f"{BUCKET}/log/", recursive=True)
    sets = [w for one in (*_COMMON, *_HERE) for w in ("--set", one)]
    began = time.perf_counter()
    run_until_done([*COMMAND, "--log", "json", "run", *words, *sets], {})
    total = time.perf_counter() - began
    wanted, seconds = manifests(f"{folder}/runs/line")
    for name in ("log", "runs"):
        shutil.rmtree(folder / name)
    return _figures("embedded", total, seconds), wanted


def _figures(name: str, total: float, seconds: Mapping[str, float]) -> Found:
    by_stage = {f"seconds.{name}.{stage}": one for stage, one in seconds.items()}
    return {f"seconds.{name}": total, **by_stage}


def _equal(prefix: str, wanted: dict[str, str], found: dict[str, str]) -> Found:
    # The report says when and by what engine it was made.
    other = set(differing(wanted, found)) - {"report"}
    by_stage = {f"{prefix}equal.{stage}": stage not in other for stage in wanted}
    by_stage.pop(f"{prefix}equal.report")
    print(f"{prefix}other content: {', '.join(sorted(other)) or 'none'}", flush=True)
    return {f"{prefix}equal": not other, **by_stage}


def show(flat: Found) -> None:
    runs = [name for name in ("embedded", "cluster", "killed") if f"seconds.{name}" in flat]
    print(f"\n{flat['rows']:,} rows\n{'seconds':<10}" + "".join(f"{name:>11}" for name in runs))
    for stage in STAGES:
        figures = "".join(f"{flat[f'seconds.{name}.{stage}']:>11.1f}" for name in runs)
        words = "same content" if flat.get(f"equal.{stage}", True) else "OTHER CONTENT"
        if "killed" in runs:
            words += ", same" if flat.get(f"killed.equal.{stage}", True) else ", OTHER"
            struck = flat[f"killed.struck.{stage}"]
            words += " when killed" if struck is not None else ", NOT STRUCK"
        print(f"{stage:<10}{figures}  {words}")
    totals = "".join(f"{flat[f'seconds.{name}']:>11.1f}" for name in runs)
    print(f"{'all':<10}{totals}", flush=True)


@contextmanager
def _scratch(parent: str) -> Iterator[Path]:
    """A folder, home and TMPDIR of all processes: those that are killed leave files there."""
    folder = Path(tempfile.mkdtemp(prefix="embedmill-bench-", dir=parent))
    (folder / "tmp").mkdir()
    os.environ |= {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stop(*_: object) -> NoReturn:
    """End what was started; a second signal shall not cut that short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main() -> int:
    signal.signal(signal.SIGTERM, _stop)
    parser = parser_of(__doc__)
    add_log(parser, 20_000_000)
    parser.add_argument("--kill", action="store_true", help="kill a node in each stage as well")
    default = str(Path(__file__).parents[1] / ".venv-stores/bin/juicefs")
    parser.add_argument("--juicefs", default=default, help="the program; from `make test-s3`")
    add_folder(parser)
    args = parser.parse_args()
    with _scratch(args.folder) as folder:
        flat = compared(args, folder)
    finish(args, flat)
    return 0 if flat["equal"] and flat.get("killed.equal", True) else 1


if __name__ == "__main__":
    sys.exit(main())
