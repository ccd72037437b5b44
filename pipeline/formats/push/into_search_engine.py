"""OpenSearch and Elasticsearch, by their REST API: aliases are switched in one request."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.formats.push.vector_store import Address, PushTable, secret
from embedmill.pipeline.formats.search_engines import (
    bulk_line,
    elasticsearch_index,
    opensearch_index,
)

__all__ = ["ElasticsearchStore", "OpenSearchStore"]

_TIMEOUT = 120  # seconds of a request
_BULK_BYTES = 8 << 20


class OpenSearchStore:
    """OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD, or OPENSEARCH_API_KEY. See `VectorStore`."""

    _variables = "OPENSEARCH"
    _index = staticmethod(opensearch_index)

    def __init__(self, address: Address) -> None:
        self._url = address.url.rstrip("/")
        name = secret(f"{self._variables}_USERNAME")
        password, key = (secret(f"{self._variables}_{one}") for one in ("PASSWORD", "API_KEY"))
        self._headers = {}
        if key:
            self._headers["Authorization"] = f"ApiKey {key}"
        elif name and password:
            pair = base64.b64encode(f"{name}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        self._send("GET", "/")

    def count(self, name: str) -> int | None:
        """Documents, after a refresh; their ids are rows."""
        if self._send("POST", f"/{name}/_refresh", missing=True) is None:
            return None
        return int(self._send("GET", f"/{name}/_count")["count"])

    def load(self, table: PushTable) -> None:
        """By bulk requests of about 8 MiB."""
        self._send("DELETE", f"/{table.name}", missing=True)
        self._send("PUT", f"/{table.name}", json.dumps(self._index(table.dim)).encode())
        lines, size = list[bytes](), 0
        for records in table.records():
            for record in records:
                vector = json.dumps(record.pop("vector"))
                lines.append(f"{bulk_line(record, vector)}\n".encode())
                size += len(lines[-1])
                if size >= _BULK_BYTES:
                    self._bulk(table.name, lines)
                    lines, size = [], 0
        if lines:
            self._bulk(table.name, lines)

    def current(self, aliases: list[str]) -> dict[str, str]:
        """Alias → index."""
        found = {}
        for alias in aliases:
            said = self._send("GET", f"/_alias/{alias}", missing=True)
            for index in said or {}:
                found[alias] = str(index)
        return found

    def switch(self, aliases: Mapping[str, str]) -> None:
        """All aliases in one request."""
        known = self.current(list(aliases))
        actions = [{"remove": {"index": i, "alias": alias}} for alias, i in known.items()]
        actions += [{"add": {"index": index, "alias": alias}} for alias, index in aliases.items()]
        self._send("POST", "/_aliases", json.dumps({"actions": actions}).encode())

    def tables(self, prefix: str) -> list[str]:
        """Indices."""
        said = self._send("GET", f"/{prefix}*/_settings", missing=True)
        return [str(name) for name in said or {}]

    def drop(self, name: str) -> None:
        """Remove an index."""
        self._send("DELETE", f"/{name}", missing=True)

    def close(self) -> None:
        """Nothing is open."""

    def _bulk(self, name: str, lines: list[bytes]) -> None:
        said = self._send("POST", f"/{name}/_bulk", b"".join(lines), kind="application/x-ndjson")
        if said["errors"]:
            errors = (one["index"].get("error") for one in said["items"])
            first = next(error for error in errors if error)
            raise MachineError(f"a document was refused: {json.dumps(first)[:300]}")

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        kind: str = "application/json",
        missing: bool = False,
    ) -> Any:
        """The answer as JSON; None for 404 where what is asked for may be `missing`."""
        headers = {**self._headers, "Content-Type": kind}
        request = urllib.request.Request(self._url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                return json.loads(answer.read() or b"null") or {}
        except urllib.error.HTTPError as error:
            if error.code == 404 and missing:
                return None
            said = error.read()[:300].decode(errors="replace")
            raise MachineError(
                f"the store answers {error.code} to {method} {path}: {said}"
            ) from None


class ElasticsearchStore(OpenSearchStore):
    """ELASTICSEARCH_USERNAME and so on. See `VectorStore`."""

    _variables = "ELASTICSEARCH"
    _index = staticmethod(elasticsearch_index)
