"""The whole line with logs and runs on a real S3 server: plain, failing, and killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedmill.jobs.all import run_line
from embedmill.pipeline.config import Config, to_toml
from embedmill.pipeline.store.run import Run, published
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.stages import STAGES
from tests.support.kill_stages import kill_in
from tests.support.s3_server import S3Server, serving
from tests.support.worlds import PlantedWorld, config

QUIET = Terminal(quiet=True)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def log(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = PlantedWorld().write(tmp_path_factory.mktemp("log") / "log.tsv")
    logs = Storage(server.bucket("logs"))
    logs.write("plays/log.tsv", path.read_bytes())
    return logs.url("plays/*.tsv")


@pytest.fixture(scope="module")
def wanted(log: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Contents of the run on a local disk."""
    return _contents(config(tmp_path_factory.mktemp("runs"), log))


def test_a_run_on_a_store_has_the_content_of_a_local_one(
    server: S3Server, log: str, wanted: dict[str, str]
) -> None:
    asked = config(f"{server.bucket('runs')}/nightly", log)
    server.fail()
    assert _contents(asked) == wanted
    files = sum(len(Run(asked).artifact(stage).manifest.files) for stage in STAGES)
    # Beside files of stages: the lease, the state at each stage, and the publication.
    assert server.requests() < 5 * files
    server.fail()
    assert _contents(asked) == wanted
    assert server.requests() <= 30
    pointer = published(asked.run.root)
    assert pointer is not None
    assert pointer.stages == wanted


def test_one_request_in_twenty_fails(server: S3Server, log: str, wanted: dict[str, str]) -> None:
    """And the answer to one manifest was lost: it is there, and the client is told it is not."""
    root = f"{server.bucket('failing')}/nightly"
    server.fail(busy_every=20, lie_about="shards/manifest.json$")
    try:
        assert _contents(config(root, log)) == wanted
    finally:
        counts = server.counts()
        server.fail()
    assert counts["busy"] >= 3
    assert counts["lie"] == 1


def test_a_killed_driver_goes_on(
    server: S3Server, log: str, wanted: dict[str, str], tmp_path: Path
) -> None:
    asked, path = config(f"{server.bucket('killed')}/nightly", log), tmp_path / "run.toml"
    path.write_text(to_toml(asked), encoding="utf-8")
    kill_in([sys.executable, "-m", "embedmill", "run", str(path)], "shards", 0.05)
    run = Run(asked)
    assert run.manifest("vocab") is not None
    assert run.manifest("report") is None
    assert _contents(asked) == wanted


def _contents(asked: Config) -> dict[str, str]:
    run = Run(asked)
    run_line(run, terminal=QUIET)
    return {stage: run.artifact(stage).manifest.content for stage in STAGES}
