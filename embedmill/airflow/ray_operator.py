"""A job of a Ray cluster as an Airflow task: submitted once, and watched by whoever is there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from embedmill.airflow.exit_codes import raise_for, report_assets
from embedmill.ray_jobs import (
    RayJob,
    RayJobsClient,
    RayRefusedError,
    RayUnreachableError,
    start_or_attach,
)
from embedmill.stage_command import last_result

__all__ = ["RayJobOperator", "RayJobTrigger"]

_TOKEN = "RAY_AUTH_TOKEN"


class RayJobOperator(BaseOperator):  # type: ignore[misc]  # Airflow is not installed here
    """Runs a command as a job of a Ray cluster; its XCom is the JSON object of the last line.

    The job's id is made of `submission_id` and a hash of what is submitted. A try that finds the
    job running watches it and submits no second one, so a job outlives its watcher. The exit code
    of the command decides whether a failed task is tried again.
    """

    template_fields: Sequence[str] = (
        "entrypoint",
        "submission_id",
        "runtime_env",
        "address",
        "hashed_files",
    )

    def __init__(
        self,
        *,
        entrypoint: str | Sequence[str],
        address: str = "",
        conn_id: str = "",
        submission_id: str = "{{ dag.dag_id }}-{{ run_id }}-{{ task.task_id }}",
        runtime_env: Mapping[str, Any] | None = None,
        driver_resources: Mapping[str, float] | None = None,
        hashed_files: Sequence[str] = (),
        deferrable: bool = True,
        poll_seconds: float = 5.0,
        unreachable_seconds: float = 600.0,
        **kwargs: Any,
    ) -> None:
        """A task.

        Args:
            entrypoint: the command, as one string for the shell or as words.
            address: URL of the cluster's dashboard; the token is RAY_AUTH_TOKEN of the worker and
                the triggerer. Not both this and `conn_id`.
            conn_id: Airflow connection with host, port, schema ("http" or "https") and, as
                password, the token.
            submission_id: the beginning of the job's id. Tasks of the same work have the same.
            runtime_env: Ray's runtime environment of the job.
            driver_resources: of the command itself: `entrypoint_num_cpus`, `entrypoint_num_gpus`,
                `entrypoint_memory`.
            hashed_files: files of the worker that are part of the hash where they exist.
            deferrable: wait in the triggerer, without a worker.
            poll_seconds: between two looks at the job.
            unreachable_seconds: after which a cluster that does not answer fails the try.
            kwargs: of every operator.
        """
        super().__init__(**kwargs)
        self.entrypoint = entrypoint if isinstance(entrypoint, str) else list(entrypoint)
        self.address, self.conn_id = address, conn_id
        self.submission_id = submission_id
        self.runtime_env = dict(runtime_env or {})
        self.driver_resources = dict(driver_resources or {})
        self.hashed_files = list(hashed_files)
        self.deferrable = deferrable
        self.poll_seconds, self.unreachable_seconds = poll_seconds, unreachable_seconds
        self._job: str | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Submit the job or attach to it, and wait for its end; returns its last JSON object.

        Raises:
            AirflowFailException: it failed or was stopped, and trying again cannot help.
            AirflowException: it failed, or the cluster does not answer.
        """
        client, request = self._client(), self._request()
        try:
            self._job, is_new = start_or_attach(client, self._name(request), request)
        except RayRefusedError as error:
            raise AirflowFailException(str(error)) from error
        except RayUnreachableError as error:
            raise AirflowException(str(error)) from error
        done = "submitted" if is_new else "attached to the running"
        self.log.info("%s job %s: %s", done, self._job, request["entrypoint"])
        watch: dict[str, Any] = {
            "submission_id": self._job,
            "address": self.address,
            "conn_id": self.conn_id,
            "poll_seconds": self.poll_seconds,
            "unreachable_seconds": self.unreachable_seconds,
        }
        if self.deferrable:
            self.defer(trigger=RayJobTrigger(**watch), method_name="execute_complete")
        watcher = _Watcher(client, self.log, **watch)
        while (event := watcher.look()) is None:
            time.sleep(self.poll_seconds)
        return self.execute_complete(context, event)

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """What follows the end of the job; `event` is that of the trigger."""
        self._job = None
        if event["refused"]:
            raise AirflowFailException(event["message"])
        job, result = event["submission_id"], event["result"]
        if event["status"] == "STOPPED":
            raise AirflowFailException(f"job {job} was stopped: {event['message']}")
        if event["status"] != "SUCCEEDED":
            said = f"job {job} {event['status']} ({event['message']})"
            code = event["exit_code"] or None
            raise_for(128 - code if code is not None and code < 0 else code, result, said)
        report_assets(context, self.outlets, result)
        return dict(result)

    def on_kill(self) -> None:
        """Stop the job: finished stages and checkpoints are kept."""
        if self._job is not None:
            self._client().stop(self._job)

    def _client(self) -> RayJobsClient:
        connection = BaseHook.get_connection(self.conn_id) if self.conn_id else None
        return _client_of(self.address, connection)

    def _request(self) -> dict[str, Any]:
        words = self.entrypoint
        entrypoint = words if isinstance(words, str) else shlex.join(words)
        request: dict[str, Any] = {"entrypoint": entrypoint, **self.driver_resources}
        if self.runtime_env:
            request["runtime_env"] = self.runtime_env
        return request

    def _name(self, request: Mapping[str, Any]) -> str:
        """The job's id: what it is called, and a hash of what is submitted."""
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode())
        for path in map(Path, self.hashed_files):
            if path.is_file():
                digest.update(path.read_bytes())
        called = re.sub(r"[^A-Za-z0-9_.-]", "_", self.submission_id)[:100]
        return f"{called}-{digest.hexdigest()[:12]}"


class RayJobTrigger(BaseTrigger):  # type: ignore[misc]  # Airflow is not installed here
    """Watches a job from the triggerer, and puts what it prints into the task's log."""

    def __init__(
        self,
        submission_id: str,
        address: str,
        conn_id: str,
        poll_seconds: float,
        unreachable_seconds: float,
    ) -> None:
        """A trigger.

        Args:
            submission_id: the job's id.
            address: as for the operator.
            conn_id: as for the operator.
            poll_seconds: as for the operator.
            unreachable_seconds: as for the operator.
        """
        super().__init__()
        self._watched: dict[str, Any] = {
            "submission_id": submission_id,
            "address": address,
            "conn_id": conn_id,
            "poll_seconds": poll_seconds,
            "unreachable_seconds": unreachable_seconds,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments; the token is in neither."""
        return f"{__name__}.{type(self).__name__}", dict(self._watched)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end of the job."""
        watcher = _Watcher(await self._client(), self.log, **self._watched)
        while (event := await asyncio.to_thread(watcher.look)) is None:
            await asyncio.sleep(self._watched["poll_seconds"])
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Stop the job: somebody has marked or cleared the waiting task."""
        client = await self._client()
        await asyncio.to_thread(client.stop, self._watched["submission_id"])

    async def _client(self) -> RayJobsClient:
        conn_id = self._watched["conn_id"]
        connection = await BaseHook.aget_connection(conn_id) if conn_id else None
        return _client_of(self._watched["address"], connection)


class _Watcher:
    """Looks at a job from time to time, and logs the lines that it has printed since."""

    def __init__(
        self,
        client: RayJobsClient,
        log: Any,
        *,
        submission_id: str,
        unreachable_seconds: float,
        **_others: Any,
    ) -> None:
        self._client, self._log, self._id = client, log, submission_id
        self._patience, self._shown = unreachable_seconds, 0
        self._answered = time.monotonic()

    def look(self) -> dict[str, Any] | None:
        """What became of the job, None while it runs.

        Raises:
            AirflowException: the cluster has not answered for too long.
        """
        try:
            job = self._client.find(self._id)
            text = self._client.logs(self._id)
        except RayRefusedError as error:
            return {"refused": True, "message": str(error)}
        except RayUnreachableError as error:
            if time.monotonic() - self._answered > self._patience:
                raise AirflowException(f"no answer for {self._patience:.0f} s: {error}") from error
            return None
        self._answered = time.monotonic()
        finished = job is None or job.finished
        end = len(text) if finished else text.rfind("\n") + 1
        for line in text[self._shown : end].splitlines():
            self._log.info("%s", line)
        self._shown = max(self._shown, end)
        return _event(self._id, job, text) if finished else None


def _event(submission_id: str, job: RayJob | None, text: str) -> dict[str, Any]:
    """What a trigger reports; a cluster that was started anew has lost its jobs."""
    lost = RayJob(submission_id, "LOST", None, "the cluster does not know it any more")
    job = job or lost
    return {
        "refused": False,
        "submission_id": job.submission_id,
        "status": job.status,
        "exit_code": job.exit_code,
        "message": job.message,
        "result": last_result(text),
    }


def _client_of(address: str, connection: Any) -> RayJobsClient:
    """A client from an address with the token of the environment, or from an Airflow connection."""
    if connection is None:
        return RayJobsClient(address, os.environ.get(_TOKEN, ""))
    scheme, port = connection.schema or "http", connection.port or 8265
    return RayJobsClient(f"{scheme}://{connection.host}:{port}", connection.password or "")
