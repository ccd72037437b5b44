"""Servers that observers talk to: one that keeps what it gets, one that hangs, one that is gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.http_server import answering


@dataclass
class Recorder:
    """A server's address, and method, path and body of each request."""

    url: str
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.requests]


@contextmanager
def recording(status: int = 200) -> Iterator[Recorder]:
    """A server that keeps every request and answers with a status."""
    found = Recorder("")

    def keep(method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        found.requests.append((method, path, body))
        found.headers.append(dict(headers))
        return status, b""

    with answering(keep) as found.url:
        yield found


@contextmanager
def hanging() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def gone() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"
