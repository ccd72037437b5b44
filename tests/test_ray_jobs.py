"""The client of Ray's Jobs API, against a server that answers as Ray does.

`make test-airflow` runs it against Ray itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from embedmill.ray_jobs import (
    RayJobsClient,
    RayRefusedError,
    RayUnreachableError,
    start_or_attach,
)
from embedmill.stage_command import Command, failure_of, last_result, stage_options

TOKEN = "the token"
REQUEST = {"entrypoint": "true"}


class Jobs(BaseHTTPRequestHandler):
    """Jobs of the server, by id, with their status."""

    jobs: dict[str, dict[str, Any]]
    seen: list[str | None]

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""

    def answer(self, status: int, body: Any, **headers: str) -> None:
        text = json.dumps(body).encode() if isinstance(body, dict) else str(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        if self.path.startswith("/moved"):
            return self.answer(302, "", Location="/api/jobs/a")
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, "no token")
        name = self.path.split("/")[3]
        if name == "broken":
            return self.answer(500, "Traceback\nRuntimeError: out of order")
        if name not in self.jobs:
            return self.answer(404, f"Job {name} does not exist")
        if self.path.endswith("/logs"):
            return self.answer(200, {"logs": "one\ntwo\n"})
        return self.answer(200, self.jobs[name])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/stop"):
            self.jobs[self.path.split("/")[3]]["status"] = "STOPPED"
            return self.answer(200, {"stopped": True})
        name = body["submission_id"]
        if name in self.jobs or name == "raced":
            self.jobs.setdefault(name, {"status": "PENDING"})
            said = f"ValueError: Job with submission_id {name} already exists."
            return self.answer(400, f"Traceback\n{said}")
        self.jobs[name] = {"status": "RUNNING", **body}
        return self.answer(200, {"submission_id": name})


@pytest.fixture
def address() -> Iterator[str]:
    Jobs.jobs, Jobs.seen = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Jobs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_job_is_submitted_once_and_watched_by_whoever_comes(address: str) -> None:
    client = RayJobsClient(address, TOKEN)
    assert start_or_attach(client, "work", REQUEST) == ("work", True)
    assert start_or_attach(client, "work", REQUEST) == ("work", False)
    assert Jobs.jobs["work"]["entrypoint"] == "true"
    Jobs.jobs["work"] |= {"status": "FAILED", "driver_exit_code": 7, "message": "memory"}
    found = client.find("work")
    assert found is not None
    assert (found.finished, found.exit_code, found.message) == (True, 7, "memory")
    assert start_or_attach(client, "work", REQUEST) == ("work-2", True)
    assert start_or_attach(client, "work", REQUEST) == ("work-2", False)
    assert start_or_attach(client, "raced", REQUEST) == ("raced", False)
    client.stop("work-2")
    assert Jobs.jobs["work-2"]["status"] == "STOPPED"
    assert (client.logs("work"), client.logs("nothing")) == ("one\ntwo\n", "")


def test_the_token_goes_to_the_cluster_alone(address: str) -> None:
    with pytest.raises(RayRefusedError, match="401: no token"):
        RayJobsClient(address).find("work")
    with pytest.raises(RayRefusedError, match="no token for http://ray-head:8265"):
        RayJobsClient("http://ray-head:8265")
    with pytest.raises(RayRefusedError, match="no URL"):
        RayJobsClient("ray://head:10001", TOKEN)
    with pytest.raises(RayRefusedError, match="302"):
        RayJobsClient(f"{address}/moved", TOKEN).find("work")
    assert Jobs.seen == [None, f"Bearer {TOKEN}"]


def test_a_cluster_that_is_down_may_come_back(address: str) -> None:
    with pytest.raises(RayUnreachableError, match="500: RuntimeError: out of order"):
        RayJobsClient(address, TOKEN).find("broken")
    with pytest.raises(RayUnreachableError, match="refused"):
        RayJobsClient("http://127.0.0.1:1", TOKEN).find("work")


def test_a_stage_as_a_command() -> None:
    options = stage_options("plays.toml", "vocab", {"ds": "2026-11-22"}, ["run.root=x"])
    assert options == [
        *("plays.toml", "--from", "vocab", "--to", "vocab"),
        *("--var", "ds=2026-11-22", "--set", "run.root=x"),
    ]
    lines: list[str] = []
    code, output = Command(
        ["sh", "-c", "echo out; echo $A >&2; kill -9 $$"], {"A": "b"}, lines.append
    ).wait()
    assert (code, output, lines) == (137, "out\n", ["b"])
    stopped = Command(["sleep", "60"], {}, lines.append)
    stopped.stop()
    assert stopped.wait()[0] == 143


def test_the_last_result_among_other_lines() -> None:
    failed = {"exit_code": 7, "stages": [], "failure": {"what": "no room", "todo": "Make some"}}
    text = f'{{"exit_code": 0, "stages": []}}\nlog\n{json.dumps(failed)}\n{{broken\n{{}}\n'
    assert last_result(text) == failed
    assert last_result("nothing\n") == {}
    assert failure_of(7, failed, "train") == "train ended with exit code 7: no room Make some"
    assert failure_of(None, {}, "train") == "train ended with no exit code"
