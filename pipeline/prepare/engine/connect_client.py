"""A client of a Spark Connect server that may be gone, or hang: each call has an end."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import grpc
from pyspark.sql import SparkSession
from pyspark.sql.connect.client import DefaultChannelBuilder
from pyspark.sql.connect.client.retries import DefaultPolicy
from pyspark.sql.connect.session import SparkSession as ConnectSession

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.prepare.engine.frames import interrupt_behind, last_line

__all__ = ["connect_session"]

_CONNECT_PORT = 15002
_RETRIES, _RETRY_MS = 25, 5000  # calls without an answer, and the longest wait between two
# Seconds for an answer, by the last part of a call's name: those that do no work. Queries, and the
# analysis of a frame, which may list a large log, take as long as they take.
_DEADLINES = {"Config": 60.0, "Interrupt": 10.0, "ReleaseSession": 10.0, "ReleaseExecute": 10.0}
# A server that keeps its connections but answers nothing is asked for a sign of life so often.
# Servers end connections that ask more often than every five minutes.
_ASK_MS, _SILENT_MS = 310_000, 20_000


@contextmanager
def connect_session(url: str, *, retries: bool = True) -> Iterator[SparkSession]:
    """A session of a Spark Connect server.

    Args:
        url: of the server.
        retries: whether calls that get no answer are repeated, for two minutes.

    Raises:
        MachineError: no server answers.
    """
    _check_listening(url)
    patience = _Patience(max_retries=_RETRIES, max_backoff=_RETRY_MS)
    # Printed beside the error that follows.
    warnings.filterwarnings("ignore", message=r"\[RETRIES_EXCEEDED\]")
    try:
        session = ConnectSession.builder.channelBuilder(_channel(url)).create()
        # Sail stops at Ctrl-C itself; repeated calls would keep the process alive for minutes.
        session.client.set_retry_policies([patience] if retries else [])
        session.conf.set("spark.sql.session.timeZone", "UTC")
    except Exception as error:
        raise MachineError(
            f"no Spark Connect server answers: {last_line(error)}", where=url
        ) from error
    try:
        yield cast(SparkSession, session)
    finally:
        patience.ended = True
        with suppress(Exception):  # the server may be gone; the work is done or has failed anyway
            session.stop()


class _Patience(DefaultPolicy):
    """For how long calls are repeated that get no answer: two minutes, and not after an interrupt.

    PySpark's own policy has ten minutes, also for the call that cancels a query at Ctrl-C.
    """

    ended = False

    def can_retry(self, e: BaseException) -> bool:
        self.ended |= interrupt_behind(e) is not None
        return not self.ended and super().can_retry(e)


def _channel(url: str) -> DefaultChannelBuilder:
    """Of a URL, with its parameters: calls have deadlines, and silent servers are found."""
    builder = DefaultChannelBuilder(url)
    builder.add_interceptor(cast(Any, _Deadlines()))
    builder.setChannelOption("grpc.keepalive_time_ms", _ASK_MS)
    builder.setChannelOption("grpc.keepalive_timeout_ms", _SILENT_MS)
    builder.setChannelOption("grpc.http2.max_pings_without_data", 0)
    return builder


class _Call(NamedTuple):
    """What gRPC knows of a call; `grpc.ClientCallDetails` has these attributes."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Deadlines(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Gives calls that do no work a deadline."""

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        method = client_call_details.method
        name = (method.decode() if isinstance(method, bytes) else method).rpartition("/")[2]
        limited = _Call(
            method,
            client_call_details.timeout or _DEADLINES.get(name),
            client_call_details.metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
            client_call_details.compression,
        )
        return continuation(limited, request)


def _check_listening(url: str) -> None:
    """Raise MachineError if nothing listens there: the client would retry for ten minutes."""
    parts = urlsplit(url.split(";")[0])
    try:
        address = (parts.hostname or "localhost", parts.port or _CONNECT_PORT)
        socket.create_connection(address, timeout=10).close()
    except (OSError, ValueError) as error:
        raise MachineError(
            f"no Spark Connect server answers: {error}",
            where=url,
            todo="Start it, or use run.engine = 'sail'",
        ) from None
