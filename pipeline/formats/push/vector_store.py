"""A vector store: it holds tables of vectors, and aliases that readers know them by."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from embedmill.pipeline.errors import ConfigError, MachineError

__all__ = ["Address", "PushTable", "VectorStore"]

_SECRET = re.compile(r"[;?&](token|password|secret|api_key)=", re.IGNORECASE)


@dataclass(frozen=True)
class PushTable:
    """A table to write.

    Attributes:
        name: named after the content.
        dim: coordinates of a vector.
        count: its rows.
        has_payload: whether it has titles and categories.
        batches: its rows, by rising row: row, id, count, title and categories if it has a
            payload, vector; begins anew with each call.
    """

    name: str
    dim: int
    count: int
    has_payload: bool
    schema: pa.Schema
    batches: Any

    def records(self) -> Iterator[list[dict[str, Any]]]:
        """The batches as dicts."""
        for batch in self.batches():
            yield batch.to_pylist()


class VectorStore(Protocol):
    """A store. Its methods raise whatever its client raises: `push` makes a sentence of it."""

    def count(self, name: str) -> int | None:
        """Rows of a table that was loaded to its end; None where there is none."""

    def load(self, table: PushTable) -> None:
        """Write a table, in place of what an earlier attempt left of it."""

    def current(self, aliases: list[str]) -> dict[str, str]:
        """Alias → the table that readers get under it now."""

    def switch(self, aliases: Mapping[str, str]) -> None:
        """Let readers get these tables under these aliases: all at once where the store can."""

    def tables(self, prefix: str) -> list[str]:
        """Names of tables that begin so."""

    def drop(self, name: str) -> None:
        """Remove a table."""

    def close(self) -> None:
        """End the connection."""


@dataclass(frozen=True)
class Address:
    """The parts of `--to`: the kind of store, and a URL or path of it.

    `kind://HOST:PORT` is reached by HTTPS, `kind+http://HOST:PORT` by HTTP, and `kind:///PATH` is a
    local folder or file.
    """

    kind: str
    url: str
    path: str

    @staticmethod
    def of(text: str) -> Address:
        """The address that a text says.

        Raises:
            ConfigError: it has no scheme, or holds a password.
        """
        parts = urlsplit(text)
        kind, _, below = parts.scheme.partition("+")
        if not kind or "://" not in text:
            raise ConfigError(f"'{text}' is no URL, such as postgresql://HOST/DATABASE")
        if parts.password or _SECRET.search(text):
            raise ConfigError(
                "a URL on a command line is seen by everybody on this machine: give the password "
                "in the environment"
            )
        rest = text.partition("://")[2]
        url = f"{below or 'https'}://{rest}"
        return Address(kind, url, "" if parts.netloc else parts.path)


def secret(name: str) -> str | None:
    """A credential of the environment."""
    return os.environ.get(name) or None


def not_whole(table: PushTable, found: object) -> MachineError:
    """The error of a table that has other rows than were written."""
    return MachineError(
        f"{table.name} has {found} rows, {table.count:,} were written",
        todo="Run the same command again",
    )
