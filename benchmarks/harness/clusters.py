"""Clusters on loopback whose nodes can be killed: Spark's standalone one, Ray, and an S3 server."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.nodes import Node, free_port

__all__ = ["BUCKET", "Cluster", "ray_cluster", "s3_server", "spark_cluster"]

BUCKET = "line"
_SCRIPTS = Path(__file__).parents[2] / "docker"
_HOST = "127.0.0.1"
# Two addresses of one machine: Spark runs no second copy of a slow task on the host of the first.
_SPARK_HOSTS = ("127.0.0.1", "127.0.0.2")
_RAY_NODES = 3
_STORE_BYTES = 100 << 20  # of the object store of a node: the line keeps little there


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        address: of its head, for drivers.
        workers: nodes that can be killed; its head is not among them.
        variables: of the environment, that drivers need.
    """

    address: str
    workers: Sequence[Node]
    variables: Mapping[str, str]

    def busiest(self) -> tuple[Node, int]:
        """The worker with the most processes that have work, and how many it has."""
        counts = [(sum(map(_has_work, node.titles())), node) for node in self.workers if node.up]
        if not counts:
            return self.workers[0], 0
        count, node = max(counts, key=lambda one: one[0])
        return node, count


def _has_work(title: str) -> bool:
    """Whether this is the title of an executor of Spark, or of a process with a task of Ray."""
    of_ray = re.match(r"ray::(?!IDLE|\w*Agent|_Autoscaling)", title) is not None
    return of_ray or "CoarseGrainedExecutorBackend" in title


@contextmanager
def spark_cluster(folder: Path) -> Iterator[Cluster]:
    """A master and two workers of one core each."""
    port = free_port()
    common = {
        "EMBEDMILL_PREFIX": sys.prefix, "SPARK_UI_PORT": "0", "SPARK_LOCAL_IP": _HOST,
        "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={folder}",  # killed ones leave files there
    }  # fmt: skip
    master = Node(
        "spark-master", [str(_SCRIPTS / "start-spark-master.sh")],
        {**common, "SPARK_HOST": _HOST, "SPARK_PORT": str(port)},
        folder / "spark-master.log", "I have been elected leader",
    )  # fmt: skip
    address = f"spark://{_HOST}:{port}"
    workers = [
        Node(
            f"spark-worker-{number}",
            [str(_SCRIPTS / "start-spark-worker.sh"), "--host", host],
            {
                **common, "SPARK_MASTER": address, "SPARK_LOCAL_IP": host, "SPARK_CORES": "1",
                "SPARK_MEMORY": "1g", "SPARK_WORK": str(folder / f"spark-work-{number}"),
            },
            folder / f"spark-worker-{number}.log", "Successfully registered with master",
        )
        for number, host in enumerate(_SPARK_HOSTS)
    ]  # fmt: skip
    with _running([master, *workers]):
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        yield Cluster(address, workers, {**common, **python})


@contextmanager
def ray_cluster(folder: Path) -> Iterator[Cluster]:
    """A head without work, and two nodes of one CPU each; each has a folder of its own."""
    address = f"{_HOST}:{free_port()}"
    variables = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}
    variables |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    common = {
        **variables, "EMBEDMILL_PREFIX": sys.prefix, "RAY_HEAD": address, "RAY_NODE_PORT": "0",
    }  # fmt: skip
    common.pop("RAY_ADDRESS")
    # The path of a socket has at most 107 bytes.
    folders = [tempfile.mkdtemp(prefix="ray-", dir="/tmp") for _ in range(_RAY_NODES)]
    nodes = []
    for number, own in enumerate(folders):
        words = [
            f"--temp-dir={own}", f"--node-ip-address={_HOST}", "--min-worker-port=0",
            "--max-worker-port=0", f"--object-store-memory={_STORE_BYTES}",
            f"--dashboard-agent-listen-port={free_port()}",
        ]  # fmt: skip
        if number == 0:
            words += ["--include-dashboard=false", f"--ray-client-server-port={free_port()}"]
        script = "start-ray-worker.sh" if number else "start-ray-head.sh"
        log = folder / f"ray-{number}.log"
        command = [str(_SCRIPTS / script), *words]
        own_variables = {**common, "RAY_CPUS": "1" if number else "0"}
        nodes.append(Node(f"ray-{number}", command, own_variables, log, "Ray runtime started"))
    try:
        with _running(nodes):
            yield Cluster(address, nodes[1:], variables)
    finally:
        for own in folders:
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def s3_server(program: str, folder: Path) -> Iterator[dict[str, str]]:
    """JuiceFS's gateway with an empty BUCKET; gives the variables by which clients find it.

    Args:
        program: `juicefs`.
        folder: where its objects go.
    """
    port, meta = free_port(), f"sqlite3://{folder}/meta.db"
    words = ["format", "--storage", "file", "--bucket", f"{folder}/blocks/", "--trash-days", "0"]
    subprocess.run([program, *words, meta, BUCKET], check=True, capture_output=True)
    user, secret = "line", secrets.token_hex(16)
    cache = [f"--cache-dir={folder}/cache", "--cache-size=256", f"--log={folder}/gateway.log"]
    server = Node(
        "s3", [program, "gateway", "--no-usage-report", *cache, meta, f"{_HOST}:{port}"],
        {"MINIO_ROOT_USER": user, "MINIO_ROOT_PASSWORD": secret},
        folder / "s3.log", "Endpoint",
    )  # fmt: skip
    with _running([server]):
        yield {
            "AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{_HOST}:{port}",
        }  # fmt: skip


@contextmanager
def _running(nodes: Sequence[Node]) -> Iterator[None]:
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.close)
            node.start()
        yield
