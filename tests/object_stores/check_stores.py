"""The demo with logs and runs on S3 servers: contents, requests, and what a second driver is told.

    python tests/object_stores/check_stores.py FOLDER [--server NAME ...] [--set KEY=VALUE ...]

FOLDER has the programs `ministack` and `juicefs`. On each server the line runs twice, the second
time with nothing to do, and the content of every stage is compared with that of a run on a local
disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from embedmill.pipeline.store.datasets import resolve
from embedmill.schemas.stages import STAGES
from tests.support.s3_server import CREDENTIALS, S3Server

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "examples/movielens-100k.toml"
FILES = ("ml-100k.inter", "ml-100k.item")
# Where a gate fails the run is complete, and a short training may not reach it.
SETTINGS = ("evaluate.gates={}",)
# Requests of the demo, and of a run with nothing to do, logs and all.
MOST_BUILT, MOST_NOTHING = 600, 30
READ = """
import json, sys
from embedmill.pipeline.store.run import open_run
run = open_run(sys.argv[1])
print(json.dumps({s: run.artifact(s).manifest.content for s in sys.argv[2:]}))
"""
MAKE = """
import sys
import s3fs
fs = s3fs.S3FileSystem()
if not fs.exists("runs"):
    fs.mkdir("runs")
for path in sys.argv[1:]:
    fs.put_file(path, "runs/logs/" + path.rpartition("/")[2])
"""
Server = Callable[[Path, Path], AbstractContextManager[tuple[Mapping[str, str], Callable[[], int]]]]


@contextlib.contextmanager
def moto(_programs: Path, _folder: Path) -> Iterator[tuple[Mapping[str, str], Callable[[], int]]]:
    """moto, which counts its requests."""
    server = S3Server()

    def counted() -> int:
        found = server.requests()
        server.fail()
        return found

    try:
        yield server.environment, counted
    finally:
        server.close()


@contextlib.contextmanager
def ministack(
    programs: Path, folder: Path
) -> Iterator[tuple[Mapping[str, str], Callable[[], int]]]:
    """ministack, which has conditional writes."""
    port = free_port()
    variables = {"SERVICES": "s3", "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
    with started([str(programs / "ministack")], variables, folder, port) as environment:
        yield environment, lambda: 0


@contextlib.contextmanager
def juicefs(programs: Path, folder: Path) -> Iterator[tuple[Mapping[str, str], Callable[[], int]]]:
    """JuiceFS's gateway, which ignores If-None-Match."""
    port, meta = free_port(), f"sqlite3://{folder}/meta.db"
    program = str(programs / "juicefs")
    words = [program, "format", "--storage", "file", "--bucket", f"{folder}/blocks/", meta, "runs"]
    subprocess.run(words, check=True, capture_output=True)
    variables = {
        "MINIO_ROOT_USER": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "MINIO_ROOT_PASSWORD": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    }
    words = [program, "gateway", "--no-usage-report", meta, f"127.0.0.1:{port}"]
    with started(words, variables, folder, port) as environment:
        yield environment, lambda: 0


SERVERS: dict[str, Server] = {"moto": moto, "ministack": ministack, "juicefs": juicefs}


@contextlib.contextmanager
def started(
    words: Sequence[str], variables: Mapping[str, str], folder: Path, port: int
) -> Iterator[Mapping[str, str]]:
    """A server's process, until it answers; what its clients find it by.

    Args:
        words: its command.
        variables: of its environment, beside those of this process.
        folder: where it works and logs.
        port: on loopback, where it listens.
    """
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            words, env={**os.environ, **variables}, cwd=folder, stdout=log, stderr=log
        )
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if server.poll() is not None:
                break
            time.sleep(0.5)
        else:
            raise SystemExit(f"{words[0]} does not answer: {(folder / 'log').read_text()[-2000:]}")
        yield {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def run(
    root: str, logs: str, sets: Sequence[str], environment: Mapping[str, str], quiet: bool = False
) -> str:
    """Run the demo with its log in a folder; returns what it says.

    Args:
        root: of the run.
        logs: folder of the log.
        sets: further settings.
        environment: variables that name the store.
        quiet: print no summary, for which artifacts are read.
    """
    words = [sys.executable, "-m", "embedmill", "run", str(CONFIG)]
    own = (f'events.paths="{logs}/{FILES[0]}"', f'events.items.paths="{logs}/{FILES[1]}"')
    for one in (*SETTINGS, *own, f'run.root="{root}"', "run.name=checked", *sets):
        words += ["--set", one]
    words += ["--quiet"] if quiet else []
    answer = subprocess.run(
        words, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    if answer.returncode:
        raise SystemExit(f"exit {answer.returncode}: {answer.stderr[-3000:]}")
    return answer.stdout + answer.stderr


def contents(root: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Content of every stage."""
    words = [sys.executable, "-c", READ, f"{root}/checked", *STAGES]
    answer = subprocess.run(
        words, env={**os.environ, **environment}, cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def check(name: str, programs: Path, sets: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Run the demo on a server, and compare."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SERVERS[name](programs, Path(folder)) as (environment, counted),
    ):
        paths = [resolve(f"dataset:movielens-100k/{file}") for file in FILES]
        variables = {**os.environ, **environment}
        subprocess.run([sys.executable, "-c", MAKE, *paths], env=variables, check=True)
        root, seconds, requests, said = "s3://runs/root", list[float](), list[int](), ""
        for quiet in (False, True):
            counted()
            start = time.monotonic()
            said += run(root, "s3://runs/logs", sets, environment, quiet)
            seconds.append(time.monotonic() - start)
            requests.append(counted())
        found = contents(root, environment)
    differ = [stage for stage in STAGES if found[stage] != wanted[stage]]
    print(
        f"{name}: {seconds[0]:.0f} s and {seconds[1]:.0f} s with nothing to do"
        + (f", {requests[0]} and {requests[1]} requests" if requests[0] else "")
        + ("; no conditional writes" if "does not refuse to create" in said else "")
        + (f"; other content in {', '.join(differ)}" if differ else "; same content"),
        flush=True,
    )
    if differ or requests[0] > MOST_BUILT or requests[1] > MOST_NOTHING:
        raise SystemExit(f"{name}: failed")


def main() -> None:
    """Check what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("programs", type=Path)
    parser.add_argument("--server", action="append", choices=list(SERVERS))
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder, "logs")
        logs.mkdir()
        for file in FILES:
            shutil.copy(resolve(f"dataset:movielens-100k/{file}"), logs / file)
        run(f"{folder}/runs", str(logs), args.set, {})
        wanted = contents(f"{folder}/runs", {})
    for name in args.server or SERVERS:
        check(name, args.programs.absolute(), args.set, wanted)


if __name__ == "__main__":
    main()
