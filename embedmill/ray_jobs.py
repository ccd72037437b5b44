"""The Jobs API of a Ray cluster by HTTP, without Ray (docs.ray.io, Ray Jobs REST API)."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RayJob", "RayJobsClient", "RayRefusedError", "RayUnreachableError", "start_or_attach"]

_FINISHED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class RayRefusedError(Exception):
    """The cluster refused a request, and would again: a wrong token or a malformed request."""


class RayUnreachableError(Exception):
    """The cluster did not answer, or could not; it may later."""


class _ExistsError(Exception):
    """A job of this id is there already."""


@dataclass(frozen=True)
class RayJob:
    """A job as the cluster knows it.

    Attributes:
        submission_id: its id.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        exit_code: of its entrypoint, None where that is not known.
        message: why it has this status.
    """

    submission_id: str
    status: str
    exit_code: int | None
    message: str

    @property
    def finished(self) -> bool:
        """Whether it will run no more."""
        return self.status in _FINISHED


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the token is for this address alone."""

    def redirect_request(self, *_args: Any) -> None:
        """Refuse."""
        return None


class RayJobsClient:
    """Requests to one cluster; all methods raise RayRefusedError and RayUnreachableError."""

    def __init__(self, address: str, token: str = "", *, timeout: float = 30.0) -> None:
        """A client.

        Args:
            address: URL of the dashboard, such as "http://ray-head:8265".
            token: the cluster's token (RAY_AUTH_MODE=token); empty for none, on loopback alone.
            timeout: seconds of a request.

        Raises:
            RayRefusedError: no http URL, or no token for another machine.
        """
        url = urllib.parse.urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise RayRefusedError(f"'{address}' is no URL of a Ray dashboard (http://HOST:8265)")
        if not token and url.hostname not in _LOOPBACK:
            # Whoever reaches a Ray without authentication runs code there, and so may anybody.
            raise RayRefusedError(f"no token for {address}: start Ray with RAY_AUTH_MODE=token")
        self.address, self._token, self._timeout = address.rstrip("/"), token, timeout
        self._opener = urllib.request.build_opener(_NoRedirect())

    def find(self, submission_id: str) -> RayJob | None:
        """The job of this id, None where the cluster has none."""
        found = self._request("GET", f"/api/jobs/{_quoted(submission_id)}")
        if found is None:
            return None
        return RayJob(
            submission_id,
            str(found["status"]),
            found.get("driver_exit_code"),
            str(found.get("message") or ""),
        )

    def submit(self, submission_id: str, request: Mapping[str, Any]) -> None:
        """Submit a job; `request` has `entrypoint`, `runtime_env` and so on."""
        self._request("POST", "/api/jobs/", {**request, "submission_id": submission_id})

    def logs(self, submission_id: str) -> str:
        """All that the job has printed so far; empty where there is no job."""
        found = self._request("GET", f"/api/jobs/{_quoted(submission_id)}/logs")
        return "" if found is None else str(found.get("logs") or "")

    def stop(self, submission_id: str) -> None:
        """Ask the job to stop: SIGTERM, then SIGKILL."""
        self._request("POST", f"/api/jobs/{_quoted(submission_id)}/stop", {})

    def _request(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        """Send a request; None for "not found"."""
        request = urllib.request.Request(
            self.address + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(1 << 20).decode(errors="replace")
            if error.code == 404:
                return None
            raise _refused(self.address, error.code, said) from error
        except (OSError, ValueError) as error:
            raise RayUnreachableError(f"{self.address}: {error}") from error
        return found if isinstance(found, dict) else {}


def _refused(address: str, status: int, said: str) -> Exception:
    """The error of an answer that is no success."""
    if "already exists" in said:
        return _ExistsError(said)
    last = said.strip().splitlines()[-1] if said.strip() else ""
    error = RayUnreachableError if status >= 500 or status in (408, 429) else RayRefusedError
    return error(f"{address}: HTTP {status}: {last}")


def start_or_attach(
    client: RayJobsClient, name: str, request: Mapping[str, Any]
) -> tuple[str, bool]:
    """Submit a job unless it runs already; returns its id, and whether it was submitted now.

    The first job is called `name`, and `name-2` and so on those after one that has finished:
    Ray keeps finished jobs and gives an id only once. Whoever watches the same work finds the same
    job, and of two who submit it at once one is refused and watches the other's.

    Args:
        client: of the cluster.
        name: what the work is called.
        request: as for `RayJobsClient.submit`.
    """
    number = 1
    while True:
        submission_id = name if number == 1 else f"{name}-{number}"
        job = client.find(submission_id)
        if job is None:
            try:
                client.submit(submission_id, request)
            except _ExistsError:
                continue
            return submission_id, True
        if not job.finished:
            return submission_id, False
        number += 1


def _quoted(submission_id: str) -> str:
    return urllib.parse.quote(submission_id, safe="")
