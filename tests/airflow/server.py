"""A whole Airflow on this machine: scheduler, DAG processor, API server and triggerer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Airflow", "free_port", "wait"]

_COMPONENTS = ("scheduler", "dag-processor", "api-server", "triggerer")
_DONE = ("success", "failed")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait(seconds: float, what: str, ready: Callable[[], Any]) -> Any:
    """The first truth of `ready`; raises TimeoutError after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"{what}: not within {seconds} s")


class BusyError(RuntimeError):
    """Airflow cannot now."""


class Airflow:
    """Starts the components in a folder of their own; a context."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Settings; `environment` is added to that of this process."""
        self.port = free_port()
        url = f"http://127.0.0.1:{self.port}"
        self.url = url
        self.folder = folder
        settings = {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__TRIGGERER__CAPACITY": "10",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
        }
        self.environment = {**os.environ, **settings, **environment}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""

    def __enter__(self) -> Airflow:
        airflow = str(Path(sys.executable).parent / "airflow")
        subprocess.run(
            [airflow, "db", "migrate"], env=self.environment, check=True, stdout=subprocess.DEVNULL
        )
        for name in _COMPONENTS:
            self.start(name)
        wait(120, "Airflow's API", self._healthy)
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self.processes):
            self.end(name, signal.SIGTERM)

    def start(self, name: str) -> None:
        """Start a component, with its output in a file."""
        airflow = str(Path(sys.executable).parent / "airflow")
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [airflow, name],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, name: str, how: signal.Signals) -> None:
        """End a component with all its processes."""
        process = self.processes[name]
        for sent in (how, signal.SIGKILL):
            try:
                os.killpg(process.pid, sent)
                process.wait(30)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Call the REST API, `path` below /api/v2/."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            failure = BusyError if error.code == 503 else RuntimeError
            raise failure(f"{method} {path}: {error.code} {error.read()!r}") from error

    def has_dag(self, dag: str) -> bool:
        """Whether the DAG processor has read it; its errors are raised."""
        errors = self.request("GET", "importErrors")["import_errors"]
        if errors:
            raise RuntimeError(errors[0]["stack_trace"])
        found = self.request("GET", "dags?limit=100")["dags"]
        return dag in {one["dag_id"] for one in found}

    def trigger(self, dag: str, day: str) -> str:
        """Start a run for a day; returns its id."""
        body = {"logical_date": f"{day}T00:00:00Z", "dag_run_id": f"{dag}-{day}"}
        self.request("PATCH", f"dags/{dag}", {"is_paused": False})
        return str(self.request("POST", f"dags/{dag}/dagRuns", body)["dag_run_id"])

    def backfill(self, dag: str, first: str, last: str, again: str) -> int:
        """Start a backfill; `again` says which finished runs are run again."""
        self.request("PATCH", f"dags/{dag}", {"is_paused": False})
        body = {
            "dag_id": dag,
            "from_date": f"{first}T00:00:00Z",
            "to_date": f"{last}T23:00:00Z",
            "max_active_runs": 1,
            "reprocess_behavior": again,
        }
        for _ in range(10):  # SQLite refuses it while the scheduler writes
            with contextlib.suppress(BusyError):
                return int(self.request("POST", "backfills", body)["id"])
            time.sleep(1)
        raise TimeoutError("Airflow's database stays locked")

    def finish_backfill(self, backfill: int, seconds: float = 400) -> None:
        """Wait for the end of a backfill."""
        path = f"backfills/{backfill}"
        wait(seconds, path, lambda: self.request("GET", path)["completed_at"])

    def runs(self, dag: str) -> dict[str, str]:
        """State of each run of a DAG."""
        found = self.request("GET", f"dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return {one["dag_run_id"]: one["state"] for one in found}

    def finish(self, dag: str, run: str, seconds: float = 900) -> str:
        """Wait for the end of a run; returns its state."""
        return str(wait(seconds, f"{dag} {run}", lambda: self._finished(dag, run)))

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Task instances of a run by task."""
        path = f"dags/{dag}/dagRuns/{_quoted(run)}/taskInstances"
        return {one["task_id"]: one for one in self.request("GET", path)["task_instances"]}

    def result(self, dag: str, run: str, task: str) -> Any:
        """What a task returned."""
        path = f"dags/{dag}/dagRuns/{_quoted(run)}/taskInstances/{task}/xcomEntries/return_value"
        return self.request("GET", f"{path}?deserialize=true")["value"]

    def log(self, dag: str, run: str, task: str, number: int) -> str:
        """The log of a try."""
        path = f"dags/{dag}/dagRuns/{_quoted(run)}/taskInstances/{task}/logs/{number}"
        return json.dumps(self.request("GET", path))

    def _finished(self, dag: str, run: str) -> str | None:
        state = self.runs(dag).get(run)
        return state if state in _DONE else None

    def _healthy(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None:
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                raise RuntimeError(f"{name} ended: {log[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.url}/auth/token", timeout=5) as answer:
                self._token = json.load(answer)["access_token"]
            return bool(self.request("GET", "monitor/health"))
        except (OSError, RuntimeError):
            return False


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")
