"""A real S3 server of one process (moto), which counts requests and can be told to fail.

    python -m tests.support.s3_server [PORT [JOURNAL]]

prints its URL and serves on loopback until its standard input ends. Faults are set, and counts
read, under `/_faults`. Its objects are in memory: with a journal, a file, they are there again
after the server was killed.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3fs import S3FileSystem

__all__ = ["CREDENTIALS", "S3Server", "serving"]

CONTROL = "/_faults"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_BUSY = (
    b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code>"
    b"<Message>Reduce your request rate.</Message></Error>"
)
_DENIED = (
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
)
Answer = Callable[..., Any]


class S3Server:
    """The server as a child process.

    Args:
        journal: a file with which it can be killed and started again; None for none.
    """

    def __init__(self, journal: Path | None = None) -> None:
        self._journal = journal
        self._start(0)

    def _start(self, port: int) -> None:
        journal = [str(self._journal)] if self._journal else []
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__, str(port), *journal],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("moto did not start")

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs to find the server."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def bucket(self, name: str) -> str:
        """Make a bucket; its URL."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        urllib.request.urlopen(request).close()
        return f"s3://{name}"

    def fail(self, **faults: Any) -> None:
        """Set the faults, and count from zero. Without arguments nothing fails.

        busy_every: each n-th request is answered with 503, and not done.
        lie_about: a PUT of a key that matches is done once, and answered with 503.
        reset: the connection is reset, before anything was done.
        hang: seconds before a request is answered.
        deny: every request is answered with 403.
        """
        data = json.dumps(faults).encode()
        urllib.request.urlopen(f"{self.url}{CONTROL}", data=data).close()

    def counts(self) -> dict[str, int]:
        """Requests since `fail` was called, by method, and faults by kind."""
        with urllib.request.urlopen(f"{self.url}{CONTROL}") as answer:
            found: dict[str, int] = json.load(answer)
        return found

    def requests(self) -> int:
        """Requests since `fail` was called."""
        return sum(n for kind, n in self.counts().items() if kind.isupper())

    def kill(self) -> None:
        """Kill the server; what it has answered for is in its journal."""
        self._process.kill()
        self._process.communicate()

    def start_again(self) -> None:
        """Start a killed server at the same address, with the objects of its journal."""
        self._start(int(self.url.rpartition(":")[2]))

    def close(self) -> None:
        """End the server."""
        self._process.communicate()  # closes its standard input


@contextmanager
def serving(journal: Path | None = None) -> Iterator[S3Server]:
    """A server that the clients of this process, and of those that it starts, find."""
    server = S3Server(journal)
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ |= server.environment
    S3FileSystem.clear_instance_cache()  # a client remembers its endpoint
    try:
        yield server
    finally:
        server.close()
        S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass
class Faulty:
    """The server's application with faults, and requests counted by method."""

    app: Answer

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.set({})

    def set(self, faults: Mapping[str, Any]) -> None:
        """Begin to fail like this, and to count."""
        self.faults, self.lied = faults, False
        self.counts: dict[str, int] = {}
        self.log: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
        if environ["PATH_INFO"] == CONTROL:
            return self.control(environ, start)
        with self.lock:
            number = sum(n for kind, n in self.counts.items() if kind.isupper()) + 1
            self.count(environ["REQUEST_METHOD"])
            self.log.append(
                f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} "
                f"{environ['QUERY_STRING']} {environ.get('HTTP_RANGE', '')}"
            )
        faults = self.faults
        if faults.get("hang"):
            time.sleep(faults["hang"])
        if faults.get("reset"):
            return _reset(environ)
        if faults.get("deny"):
            return _answer(start, "403 Forbidden", _DENIED)
        if faults.get("busy_every") and number % faults["busy_every"] == 0:
            self.count("busy")
            _body(environ)
            return _answer(start, "503 Slow Down", _BUSY)
        if self.lies(environ):
            b"".join(self.app(environ, lambda *_: None))
            return _answer(start, "503 Slow Down", _BUSY)
        return self.app(environ, start)  # type: ignore[no-any-return]

    def lies(self, environ: Mapping[str, Any]) -> bool:
        """Whether this request is done and answered as if it had not been."""
        pattern = self.faults.get("lie_about")
        wanted = environ["REQUEST_METHOD"] == "PUT" and pattern
        if self.lied or not wanted or not re.search(str(pattern), environ["PATH_INFO"]):
            return False
        self.lied = True
        self.count("lie")
        return True

    def count(self, kind: str) -> None:
        """Count a request or a fault."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def control(self, environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
        """Take new faults, or tell the counts."""
        if environ["REQUEST_METHOD"] == "POST":
            self.set(json.loads(_body(environ)))
        if environ["QUERY_STRING"] == "log":
            return _answer(start, "200 OK", "\n".join(self.log).encode())
        return _answer(start, "200 OK", json.dumps(self.counts).encode())


class Conditional:
    """The server's application, with puts under a condition one at a time.

    moto looks whether the object exists and stores it later, so that of many at once two can win.
    """

    def __init__(self, app: Answer) -> None:
        self.app, self.lock = app, threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ or environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self.app(environ, start)  # type: ignore[no-any-return]
        with self.lock:
            return [b"".join(self.app(environ, start))]


class Journaled:
    """The server's application, with a file of all requests that change anything, in order.

    A request is written down before it is carried out, and answered after that: a server that is
    killed between the two has done it when it is there again, and has not said so.
    """

    def __init__(self, app: Answer, path: Path) -> None:
        self.app, self.lock = app, threading.Lock()
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                request, body = json.loads(line)
            except json.JSONDecodeError:  # killed while it was written
                continue
            self.carry_out(request, base64.b64decode(body), lambda *_: None)
        self.file = path.open("a")

    def __call__(self, environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self.app(environ, start)  # type: ignore[no-any-return]
        ends = environ.get("wsgi.input_terminated")
        body = environ["wsgi.input"].read() if ends else _body(environ)
        request = {name: value for name, value in environ.items() if isinstance(value, str)}
        with self.lock:
            self.file.write(json.dumps([request, base64.b64encode(body).decode()]) + "\n")
            self.file.flush()
            return self.carry_out(request, body, start)

    def carry_out(self, request: dict[str, str], body: bytes, start: Answer) -> list[bytes]:
        """Let the application do a request."""
        request.pop("HTTP_TRANSFER_ENCODING", None)
        environ = {
            **request,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        return [b"".join(self.app(environ, start))]


def _answer(start: Answer, status: str, body: bytes) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _body(environ: Mapping[str, Any]) -> bytes:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return bytes(environ["wsgi.input"].read(length))


def _reset(environ: Mapping[str, Any]) -> Iterable[bytes]:
    """Close the connection at once, so that the client sees a reset."""
    peer: socket.socket = environ["werkzeug.socket"]
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(peer.detach())  # closing it waits for what was made of it
    raise ConnectionResetError


def _serve(port: int, journal: Path | None) -> None:
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    os.environ |= CREDENTIALS
    plain = Conditional(DomainDispatcherApplication(create_backend_app))
    app = Faulty(Journaled(plain, journal) if journal else plain)
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    _serve(int((sys.argv[1:] or ["0"])[0]), Path(sys.argv[2]) if sys.argv[2:] else None)
