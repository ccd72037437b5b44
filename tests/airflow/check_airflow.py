"""A real Airflow runs the DAGs: `make test-airflow`, with the Python of Airflow's environment.

The tasks call the commands of the other environment: EMBEDMILL, EMBEDMILL_PYTHON, SPARK_SUBMIT.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import airflow as airflow_package
import jsonschema
from server import Airflow, free_port, wait
from world import DAYS, process_with, say, write_world

from embedmill.airflow_provider import get_provider_info
from embedmill.ray_jobs import RayJobsClient

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STAGES = ("events", "vocab", "shards", "train", "export", "index", "evaluate", "report")


@contextlib.contextmanager
def ray_cluster(folder: Path, token: str) -> Iterator[str]:
    """A Ray head that wants a token; yields the URL of its dashboard."""
    ray = str(Path(os.environ["EMBEDMILL"]).parent / "ray")
    port, dashboard = free_port(), free_port()
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    words = ["start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2"]
    words += [f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"]
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(
            [ray, *words, "--include-dashboard=true", "--dashboard-host=127.0.0.1"],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)


def check_provider() -> None:
    """Airflow finds the provider, whose description is of its schema; no engine is imported."""
    airflow = str(Path(sys.executable).parent / "airflow")
    done = subprocess.run(
        [airflow, "providers", "list"], capture_output=True, text=True, check=True
    )
    assert "embedmill" in done.stdout
    schema = Path(airflow_package.__file__).parent / "provider_info.schema.json"
    jsonschema.validate(get_provider_info(), json.loads(schema.read_text()))
    assert not {"torch", "pyarrow", "ray", "pyspark", "faiss", "numpy"} & set(sys.modules)


def check_nights(airflow: Airflow) -> dict[str, Any]:
    """Three dates by a backfill with a task killed, and again; returns contents by day."""
    contents: dict[str, Any] = {}
    for expected, again in (("built", "none"), ("up to date", "completed")):
        backfill = airflow.backfill("plays", DAYS[0], DAYS[-1], again)
        if expected == "built":
            var = f"ds={DAYS[1]}"
            pid = wait(300, "shards", lambda var=var: process_with("--from", "shards", var))
            os.kill(pid, signal.SIGKILL)
            say(f"killed the command of stage shards of {DAYS[1]}")
        airflow.finish_backfill(backfill)
        # Besides there is the run of last night, which Airflow starts and whose log is not there.
        runs = [run for run in airflow.runs("plays") if run.startswith("backfill")]
        assert len(runs) == len(DAYS), runs
        for run in runs:
            tasks = airflow.tasks("plays", run)
            assert {one["state"] for one in tasks.values()} == {"success"}, tasks
            results = {stage: airflow.result("plays", run, stage) for stage in STAGES}
            day = results["events"]["vars"]["ds"]
            states = {one["stages"][0]["state"] for one in results.values()}
            assert states == {expected}, (day, states)
            found = {stage: one["stages"][0]["content"] for stage, one in results.items()}
            assert contents.setdefault(day, found) == found
            killed = expected == "built" and day == DAYS[1]
            if expected == "built":
                tries = {stage: one["try_number"] for stage, one in tasks.items()}
                assert tries == {s: 2 if killed and s == "shards" else 1 for s in STAGES}, tries
        say(f"backfill of {len(DAYS)} dates: all stages {expected}")
    assert set(contents) == set(DAYS)
    pointer = json.loads((Path(os.environ["EMBEDMILL_ROOT"]) / "runs/published.json").read_text())
    assert pointer["run"] == f"plays-{DAYS[-1]}"
    assert pointer["continues"].endswith(f"plays-{DAYS[-2]}")
    events = airflow.request("GET", "assets/events?limit=100")["asset_events"]
    extras = {(one["extra"]["run"], one["extra"]["stage"]): one["extra"] for one in events}
    assert len(extras) == len(DAYS) * len(STAGES)
    for day in DAYS:
        for stage in STAGES:
            assert extras[f"plays-{day}", stage]["content"] == contents[day][stage]
    say(f"{len(events)} asset events with the content hashes in extra")
    return contents


def check_clusters(airflow: Airflow, contents: dict[str, Any]) -> None:
    """Stages by spark-submit and as a Ray job make the same artifacts."""
    run = airflow.trigger("clusters", DAYS[0])
    state = airflow.finish("clusters", run)
    tasks = airflow.tasks("clusters", run)
    assert state == "success", {name: one["state"] for name, one in tasks.items()}
    assert tasks["train"]["operator_name"] == "RayJobOperator"
    found = {stage: airflow.result("clusters", run, stage)["stages"][0] for stage in STAGES}
    assert {one["state"] for one in found.values()} == {"built"}
    for stage, content in contents.get(DAYS[0], {}).items():
        assert found[stage]["content"] == content, stage
    say("spark-submit, Ray job and command: the same content hashes")


def check_gate(airflow: Airflow) -> None:
    """A gate that fails fails the task at once."""
    run = airflow.trigger("gated", DAYS[0])
    assert airflow.finish("gated", run) == "failed"
    tasks = airflow.tasks("gated", run)
    assert {s: one["state"] for s, one in tasks.items() if s != "report"} == dict.fromkeys(
        STAGES[:-1], "success"
    )
    report = tasks["report"]
    assert (report["state"], report["try_number"], report["max_tries"]) == ("failed", 1, 3)
    assert "exit code 6" in airflow.log("gated", run, "report", 1)
    say("a gate that fails: one try of four, and nothing published")


def check_watchers(airflow: Airflow, client: RayJobsClient) -> None:
    """Jobs outlive a worker's task and a triggerer that are killed, and are found again."""
    started = Path(os.environ["EMBEDMILL_ROOT"]) / "started"
    run = airflow.trigger("watched", DAYS[0])
    wait(90, "both jobs", lambda: started.exists() and len(started.read_text().split()) == 2)
    wait(
        30, "deferred", lambda: airflow.tasks("watched", run)["by_triggerer"]["state"] == "deferred"
    )
    pid = airflow.tasks("watched", run)["by_worker"]["pid"]
    os.kill(pid, signal.SIGKILL)
    airflow.end("triggerer", signal.SIGKILL)
    say(f"killed the worker's task (pid {pid}) and the triggerer")
    airflow.start("triggerer")
    assert airflow.finish("watched", run) == "success"
    assert sorted(started.read_text().split()) == ["by_triggerer", "by_worker"]
    tasks = airflow.tasks("watched", run)
    assert tasks["by_worker"]["try_number"] == 2
    assert "attached to the running job" in airflow.log("watched", run, "by_worker", 2)
    assert "line 30" in airflow.log("watched", run, "by_worker", 2)
    say("both tasks ended well with the jobs that they had begun with")
    run = airflow.trigger("stopped", DAYS[0])
    wait(
        90, "two jobs",
        lambda: sum(job.status == "RUNNING" for job in jobs_of(airflow, client, run)) == 2,
    )  # fmt: skip
    for task in ("by_worker", "by_triggerer"):
        path = f"dags/stopped/dagRuns/{run}/taskInstances/{task}"
        airflow.request("PATCH", path, {"new_state": "failed"})
    wait(
        60, "stopped jobs",
        lambda: all(job.status == "STOPPED" for job in jobs_of(airflow, client, run)),
    )  # fmt: skip
    say("tasks marked as failed by hand: their jobs are stopped")


def check_exit_codes(airflow: Airflow) -> None:
    """The exit code of a job decides whether its task is tried again."""
    run = airflow.trigger("failing", DAYS[0])
    assert airflow.finish("failing", run) == "failed"
    tasks = airflow.tasks("failing", run)
    found = {name: (one["state"], one["try_number"]) for name, one in tasks.items()}
    assert found == {"exit_3": ("failed", 1), "exit_7": ("failed", 2)}, found
    again = airflow.log("failing", run, "exit_7", 2)
    assert "-2: exit 7" in again
    say("jobs that ended with exit code 3 and 7: tried once, and twice")


def jobs_of(airflow: Airflow, client: RayJobsClient, run: str) -> list[Any]:
    """Jobs of a run, by the ids in its logs."""
    found = []
    for task in ("by_worker", "by_triggerer"):
        with contextlib.suppress(RuntimeError):
            said = airflow.log("stopped", run, task, 1)
            if "submitted job " in said:
                job = client.find(said.split("submitted job ")[1].split(":")[0])
                found += [] if job is None else [job]
    return found


def main(folder: Path, parts: set[str]) -> None:
    """Run everything in `folder`, or these parts of it."""
    check_provider()
    config = write_world(folder)
    os.environ["EMBEDMILL_CONFIG"], os.environ["EMBEDMILL_ROOT"] = str(config), str(folder)
    token = secrets.token_hex(16)
    home = folder / "airflow"
    shutil.copytree(HERE / "dags", home / "dags")
    shutil.copy(ROOT / "examples/schedules/airflow.py", home / "dags/plays.py")
    (folder / "ray").mkdir()
    with ray_cluster(folder / "ray", token) as dashboard:
        environment = {"RAY_DASHBOARD": dashboard, "RAY_AUTH_TOKEN": token}
        with Airflow(home, environment) as airflow:
            say(f"Airflow {airflow.request('GET', 'version')['version']} is up")
            for dag in ("plays", "clusters", "gated", "watched", "stopped", "failing"):
                wait(60, f"DAG {dag}", lambda dag=dag: airflow.has_dag(dag))
            if "watchers" in parts:
                check_exit_codes(airflow)
                check_watchers(airflow, RayJobsClient(dashboard, token))
            contents = check_nights(airflow) if "nights" in parts else {}
            if "clusters" in parts:
                check_clusters(airflow, contents)
            if "gate" in parts:
                check_gate(airflow)
    say("as expected")


if __name__ == "__main__":
    main(Path(sys.argv[1]), set(sys.argv[2:]) or {"watchers", "nights", "clusters", "gate"})
