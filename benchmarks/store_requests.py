"""Requests that a run on an object store takes: built from nothing, and with nothing to do.

    python benchmarks/store_requests.py [CONFIG] [--set section.key=value ...] [--local] [--json]

The store is a real S3 server (moto) of this machine, which counts. With --local the config is run
on a local disk as well, and the content of all stages is compared; the exit code is 1 where one
differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.command_line import finish, parser_of

HERE = Path(__file__).parents[1]
STAGES = ("events", "vocab", "shards", "train", "export", "index", "evaluate", "report")
READ_CONTENTS = """
import json, sys
from embedmill.pipeline.store.run import open_run
run = open_run(sys.argv[1])
found = {s: run.artifact(s).manifest for s in sys.argv[2:]}
print(json.dumps({s: [m.content, len(m.files) + 1] for s, m in found.items()}))
"""


def run(config: str, root: str, sets: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run the config below a root."""
    line = [sys.executable, "-m", "embedmill", "run", config, "--quiet"]
    for one in (*sets, f'run.root="{root}"', "run.name=counted"):
        line += ["--set", one]
    subprocess.run(line, env={**os.environ, **environment}, cwd=HERE, check=True)


def stored(root: str, environment: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Content hash and number of files of every stage."""
    answer = subprocess.run(
        [sys.executable, "-c", READ_CONTENTS, f"{root}/counted", *STAGES],
        env={**os.environ, **environment}, cwd=HERE, check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return {stage: tuple(found) for stage, found in json.loads(answer.stdout).items()}


def count(server: Any, config: str, sets: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of a run that is built and of one that finds nothing to do; contents by stage."""
    root, figures = f"{server.bucket('runs')}/root", dict[str, Any]()
    for name in ("built", "nothing_to_do"):
        server.fail()
        run(config, root, sets, server.environment)
        figures |= {f"{name}.{kind}": n for kind, n in sorted(server.counts().items())}
        figures[f"{name}.requests"] = server.requests()
    found = stored(root, server.environment)
    figures["files"] = sum(files for _, files in found.values())
    return figures, found


def main() -> int:
    sys.path.insert(0, str(HERE))
    from tests.support.s3_server import S3Server

    parser = parser_of(__doc__)
    parser.add_argument("config", nargs="?", default=str(HERE / "examples/movielens-100k.toml"))
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--local", action="store_true", help="compare contents with a local run")
    args = parser.parse_args()
    server, differ = S3Server(), list[str]()
    try:
        figures, found = count(server, args.config, args.set)
    finally:
        server.close()
    if args.local:
        with tempfile.TemporaryDirectory() as folder:
            run(args.config, folder, args.set, {})
            local = stored(folder, {})
        differ = [stage for stage in STAGES if local[stage] != found[stage]]
        figures["contents_equal"] = not differ
    for name, figure in figures.items():
        print(f"{name:<24} {figure:>6}")
    if differ:
        print(f"other content than on a local disk: {', '.join(differ)}")
    finish(args, figures)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
