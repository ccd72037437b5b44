"""Training on Ray: workers and drivers that die, errors, and other Rays on the machine."""

from __future__ import annotations

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
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import planted
from tests.support.train_drivers import answer, below, gone, outlive_kills, started

pytestmark = pytest.mark.ray

HERE = Path(__file__).parent
RAY = Path(sys.executable).with_name("ray")


@pytest.mark.exhaustive  # `test_worker_processes` has it for the default launcher
def test_killed_worker_then_killed_driver(tmp_path: Path) -> None:
    outlive_kills(tmp_path, "RayTrainWorker")
    log = (tmp_path / "run" / "tiny" / "train" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[0])["niceness"] == os.getpriority(os.PRIO_PROCESS, 0)


def test_an_error_of_ours_is_one_sentence_and_not_tried_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    changes = ('objective="rating"', "learning_rate=1e30", "workers=3")
    code, messages, errors = answer(started(tmp_path, *changes, HOME=str(home)))
    assert code == 5
    assert len(messages) == 1
    assert messages[0]["error"] == "NotFiniteError"
    assert "Lower train.learning_rate" in messages[0]["text"]
    assert errors == ""
    assert list(home.iterdir()) == []


@pytest.fixture(scope="module")
def other_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray that runs already, with one CPU; yields what joins it."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    variables = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    head = subprocess.Popen(
        [str(RAY), "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--port=6401",
         "--num-cpus=1", f"--temp-dir={folder}", "--dashboard-host=127.0.0.1",
         "--dashboard-port=8281", "--disable-usage-stats"],
        env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield {**variables, "RAY_ADDRESS": "127.0.0.1:6401"}
    finally:
        children = set(below(head.pid))
        head.terminate()
        head.wait(60)
        for pid in gone(children, 20):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(variables: dict[str, str]) -> None:
    """Until the other Ray answers."""
    for _ in range(60):
        status = subprocess.run(
            [str(RAY), "status"], env={**os.environ, **variables}, capture_output=True, check=False
        )
        if status.returncode == 0:
            return
        time.sleep(1)
    raise AssertionError(status.stderr.decode())


@pytest.mark.exhaustive
def test_another_ray_is_left_alone_and_joined_when_asked(
    other_ray: dict[str, str], tmp_path: Path
) -> None:
    wait_for(other_ray)
    code, messages, errors = answer(started(tmp_path / "own", "epochs=1"))
    assert code == 0, errors
    assert messages[-1]["files"]
    code, messages, _ = answer(started(tmp_path / "small", "epochs=1", **other_ray))
    assert (code, messages[-1]["error"]) == (7, "MachineError")
    assert (
        "train.workers = 2 need one CPU each, the Ray cluster has room for 1"
        in messages[-1]["text"]
    )
    code, messages, errors = answer(
        started(tmp_path / "joined", "epochs=1", "workers=[1, 2]", **other_ray)
    )
    assert code == 0, errors
    assert messages[-1]["files"]


def wait_for_dashboard() -> None:
    """Until it takes jobs, which is some seconds after Ray answers."""
    for _ in range(120):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 8281), 1):
            return
        time.sleep(1)
    raise AssertionError("Ray's dashboard does not listen")


def submitted(ray: dict[str, str], script: list[str]) -> subprocess.CompletedProcess[str]:
    """A job of Ray after its end; sent again while no agent of Ray is there to take it."""
    command = [str(RAY), "job", "submit", "--address=http://127.0.0.1:8281", "--", sys.executable]
    env = {**os.environ, **{k: v for k, v in ray.items() if k != "RAY_ADDRESS"}}
    for _ in range(30):
        job = subprocess.run(
            [*command, *script], env=env, capture_output=True, text=True, timeout=300, check=False
        )
        if "No available agent" not in job.stderr:
            break
        time.sleep(2)
    return job


def test_ray_job_submit(other_ray: dict[str, str], tmp_path: Path) -> None:
    wait_for(other_ray)
    wait_for_dashboard()
    run = planted(tmp_path, train={"epochs": 1, "launcher": "ray", "workers": "auto"})
    from embedmill.pipeline.config import to_toml

    path = tmp_path / "run.toml"
    path.write_text(to_toml(run.config), encoding="utf-8")
    job = submitted(other_ray, [str(HERE.parents[1] / "jobs" / "train.py"), str(path)])
    assert job.returncode == 0, job.stdout + job.stderr
    assert run.up_to_date("train")


@pytest.mark.exhaustive
def test_no_ray_at_the_address(tmp_path: Path) -> None:
    code, messages, _ = answer(started(tmp_path, RAY_ADDRESS="127.0.0.1:1"))
    assert code == 7
    assert "Ray at 127.0.0.1:1 cannot be reached" in messages[-1]["text"]
    assert "Check RAY_ADDRESS" in messages[-1]["text"]
