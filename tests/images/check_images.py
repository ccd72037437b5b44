"""Builds the images, runs the line on them with an S3 server as the root, and kills containers.

    python tests/images/check_images.py PODMAN_COMPOSE EMBEDMILL [--build OPTION ...] [--no-build]

Needs root and Podman. `--build` gives options to `podman build`, such as a build argument. The
line runs once undisturbed and once while one container of each kind is killed in its turn; the
content of every stage is compared with that of a run of EMBEDMILL on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from embedmill.pipeline.store.datasets import resolve

ROOT = Path(__file__).parents[2]
FILES = ("docker/compose.yaml", "tests/images/compose.yaml")
NODES = ("s3", "spark-master", "spark-worker", "ray-head", "ray-worker", "ray-worker-2")
SETTINGS = (
    "run.partitions=4",
    "train.launcher=ray",
    "train.workers=3",
    "train.epochs=12",
    "train.patience=0",
    "train.refit=false",
    "evaluate.gates={}",
)
# What is killed, and the line of the driver's log at which that happens.
KILLS = (
    ("spark-worker", r"^events +started"),
    ("spark-master", r"^vocab +started"),
    ("ray-worker", r"epoch 1/"),
    ("ray-head", r"epoch 3/"),
    ("line", r"^index +started"),
)
STAGES = ("events", "vocab", "shards", "train", "export", "index", "evaluate", "report")
# Bytes on a base image of the size of the original one, which a stand-in is larger than.
LIMITS = {"embedmill-ray": 1_200_000_000}
BASE, BASE_BYTES = "docker.io/library/python:3.11-slim-bookworm", 125_000_000
TRIES, PAUSE = 12, 20.0  # of a line whose driver is told that another one may still be there
# Podman without systemd, on a machine where it is no service.
CONF = """
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=8192:8192"]
"""
READ = """
import json, sys
from embedmill.pipeline.store.run import open_run
run = open_run(sys.argv[1])
print(json.dumps({s: run.artifact(s).manifest.content for s in sys.argv[2:]}))
"""
INSIDE = """
import importlib, json, shutil
for name in ("s3fs", "gcsfs", "adlfs", "pyarrow.parquet", "torch", "ray.train", "faiss", "duckdb"):
    importlib.import_module(name)
assert not [name for name in ("gcc", "cc", "ld") if shutil.which(name)]
found = json.load(open("/opt/embedmill/sbom.json"))
print(len(found["components"]), "components in the bill of materials")
"""


class Compose:
    """The compose project of the test."""

    def __init__(self, program: str) -> None:
        self.words = [
            program,
            "--profile",
            "line",
            *(w for f in FILES for w in ("-f", str(ROOT / f))),
            "-p",
            "mill",
        ]

    def __call__(self, *words: str) -> None:
        """Run a command of the project."""
        subprocess.run([*self.words, *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)

    def line(self, name: str) -> subprocess.Popen[str]:
        """The driver of a run, started."""
        sets = [word for one in (*SETTINGS, f"run.name={name}") for word in ("--set", one)]
        words = ["start-line.sh", "/examples/movielens-100k.toml", *sets]
        words += ["--set", "run.root=s3://runs/root"]
        return subprocess.Popen(
            [*self.words, "run", "--rm", "--no-deps", "-T", "--name", "mill_line", "line", *words],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def podman(*words: str, check: bool = True) -> str:
    """What a command of Podman prints."""
    answer = subprocess.run(
        ["podman", *words], check=check, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    return answer.stdout.strip()


def build(options: Sequence[str]) -> None:
    """Build both images and the S3 server's."""
    common = ["build", "--isolation=chroot", "--network=host", "--pull=never", *options]
    for target in ("ray", "spark"):
        podman(
            *common, "-f", "docker/Dockerfile", "--target", target, "-t", f"embedmill-{target}", "."
        )
    podman(*common, "-f", "tests/images/s3.Dockerfile", "-t", "embedmill-test-s3", ".")


def inspect_images() -> None:
    """What the images hold, and how large they are."""
    base = size_of(BASE)
    for image in ("embedmill-ray", "embedmill-spark"):
        size = size_of(image) - max(0, base - BASE_BYTES)
        inside = podman("run", "--rm", "--network=none", image, "python", "-c", INSIDE)
        print(f"{image}: {size / 1e6:,.0f} MB; {inside}", flush=True)
        if size > LIMITS.get(image, size):
            raise SystemExit(f"{image} is larger than {LIMITS[image] / 1e6:,.0f} MB")


def size_of(image: str) -> int:
    """Bytes of an image with its base."""
    return int(podman("image", "inspect", image, "--format", "{{.Size}}"))


def await_healthy(nodes: Sequence[str]) -> None:
    """Wait until the health check of each node that has one passes."""
    for node in (node for node in nodes if node != "s3"):
        for _ in range(90):
            asked = ["podman", "healthcheck", "run", f"mill_{node}_1"]
            if subprocess.run(asked, capture_output=True).returncode == 0:
                break
            time.sleep(1)
        else:
            log = podman("logs", "--tail", "20", f"mill_{node}_1")
            raise SystemExit(f"{node} is not healthy: {log}")


def kill(node: str) -> None:
    """End the first process of a container as a crash would; its restart policy starts it again."""
    name = "mill_line" if node == "line" else f"mill_{node}_1"
    os.kill(int(podman("inspect", name, "--format", "{{.State.Pid}}")), 9)
    print(f"  killed {node}", flush=True)


def run_line(compose: Compose, name: str, log: IO[str], kills: list[tuple[str, str]]) -> int:
    """Run the driver once, and kill nodes as its log reaches their lines; returns the exit code.

    Args:
        compose: the project.
        name: of the run.
        log: a copy of the driver's log is written there.
        kills: nodes and patterns, in order; those that are done are removed.
    """
    driver = compose.line(name)
    assert driver.stdout is not None
    for line in driver.stdout:
        log.write(line)
        log.flush()
        if kills and re.search(kills[0][1], line):
            kill(kills.pop(0)[0])
    return driver.wait()


def finish(compose: Compose, name: str, log: IO[str], kills: list[tuple[str, str]]) -> None:
    """Run the line again until it is done, as a scheduler would."""
    for _ in range(TRIES):
        await_healthy(NODES)
        code = run_line(compose, name, log, kills)
        print(f"  exit {code}", flush=True)
        if code == 0:
            break
        time.sleep(PAUSE)
    else:
        raise SystemExit(f"the line does not finish: see {log.name}")
    if kills:
        raise SystemExit(f"the line ended before {kills[0][0]} was killed: see {log.name}")


@contextmanager
def cluster(compose: Compose) -> Iterator[None]:
    """All nodes, up and healthy, and a bucket."""
    compose("down", "--volumes")
    try:
        compose("up", "--detach", "--no-build", "s3", "spark-master", "ray-head")
        await_healthy(["spark-master", "ray-head"])
        compose(
            "up",
            "--detach",
            "--no-build",
            "--no-deps",
            "spark-worker",
            "ray-worker",
            "ray-worker-2",
        )
        await_healthy(NODES)
        make = "import s3fs; s3fs.S3FileSystem().mkdir('runs')"
        podman("exec", "mill_spark-master_1", "python", "-c", make)
        # The log, where `dataset:` looks for it first: the network of the project has no index.
        local = Path(resolve("dataset:movielens-100k/ml-100k.inter"))
        resolve("dataset:movielens-100k/ml-100k.item")
        cached = f"/runs/.cache/movielens-100k/{local.parent.name}"
        podman("exec", "mill_spark-master_1", "mkdir", "-p", cached)
        for file in ("ml-100k.inter", "ml-100k.item"):
            podman("cp", str(local.parent / file), f"mill_spark-master_1:{cached}/{file}")
        yield
    finally:
        if not os.environ.get("KEEP"):
            compose("down", "--volumes")


def contents(name: str) -> dict[str, str]:
    """Content of each stage of a run on the S3 server."""
    words = ["exec", "mill_spark-master_1", "python", "-c", READ, f"s3://runs/root/{name}", *STAGES]
    found: dict[str, str] = json.loads(podman(*words))
    return found


def contents_here(program: str, folder: str) -> dict[str, str]:
    """Content of each stage of the same run on this machine, on the embedded engine."""
    words = [program, "run", str(ROOT / "examples/movielens-100k.toml"), "--quiet"]
    here = ("train.launcher=processes", f"run.root={folder}", "run.name=here")
    for one in (*SETTINGS, *here):
        words += ["--set", one]
    subprocess.run(words, check=True, cwd=folder)
    python = Path(program).with_name("python")
    answer = subprocess.run(
        [python, "-c", READ, f"{folder}/here", *STAGES], check=True, stdout=subprocess.PIPE
    )
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def main() -> None:
    """Check what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("compose")
    parser.add_argument("embedmill")
    parser.add_argument("--build", action="append", default=[], metavar="OPTION")
    parser.add_argument("--no-build", action="store_true", help="the images are there")
    parser.add_argument("--kill", default=",".join(node for node, _ in KILLS), metavar="NODE,...")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, open("/tmp/check-images.log", "w") as log:
        conf = Path(scratch, "containers.conf")
        conf.write_text(CONF)
        os.environ |= {"CONTAINERS_CONF": str(conf), "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        if not args.no_build:
            build(args.build)
        inspect_images()
        wanted = contents_here(args.embedmill, scratch)
        compose = Compose(args.compose)
        with cluster(compose):
            check("plain", compose, log, wanted, [])
            check("killed", compose, log, wanted, args.kill.split(","))


def check(
    name: str, compose: Compose, log: IO[str], wanted: dict[str, str], nodes: Sequence[str]
) -> None:
    """Run the line while nodes are killed, one at a time, and compare the contents."""
    start = time.monotonic()
    finish(compose, name, log, [(node, pattern) for node, pattern in KILLS if node in nodes])
    found = contents(name)
    # The report says when and by what engine it was made.
    differ = [stage for stage in STAGES[:-1] if found[stage] != wanted[stage]]
    print(f"{name}: {time.monotonic() - start:.0f} s; other content in {differ or 'no stage'}")
    if differ:
        raise SystemExit(f"{name} differs from the run on this machine in {', '.join(differ)}")


if __name__ == "__main__":
    main()
