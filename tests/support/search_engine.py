"""What OpenSearch's REST API does with the requests of a push: indices, bulk, count, aliases.

OpenSearch is to be had from no package. Requests that OpenSearch would refuse are refused:
documents with fields that a strict mapping lacks, or vectors of another dimension.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_server import answering


@dataclass
class SearchEngine:
    """Indices with their mappings and documents; aliases."""

    url: str = ""
    mappings: dict[str, dict[str, Any]] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def rows(self, alias: str) -> list[tuple[int, str, list[str], list[float]]]:
        found = sorted(self.documents[self.aliases[alias]].values(), key=lambda one: one["row"])
        return [(r["row"], r["id"], r.get("categories", []), r["vector"]) for r in found]

    def names(self) -> list[str]:
        return list(self.mappings)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        first, _, rest = path.strip("/").partition("/")
        if not first:
            return 200, {"version": {"number": "3"}}
        if first == "_alias":
            index = self.aliases.get(rest)
            return (200, {index: {"aliases": {rest: {}}}}) if index else (404, {})
        if first == "_aliases":
            return self._alias(json.loads(body)["actions"])
        if rest == "_settings":
            return 200, {name: {} for name in self.mappings if name.startswith(first.rstrip("*"))}
        if method == "PUT":
            self.mappings[first] = json.loads(body)["mappings"]["properties"]
            self.documents[first] = {}
            return 200, {"acknowledged": True}
        if first not in self.mappings:
            return 404, {"error": {"type": "index_not_found_exception"}}
        if method == "DELETE":
            del self.mappings[first], self.documents[first]
            return 200, {"acknowledged": True}
        if rest == "_bulk":
            return 200, self._bulk(first, body)
        return 200, {"count": len(self.documents[first])}

    def _alias(self, actions: list[dict[str, dict[str, str]]]) -> tuple[int, Any]:
        new = dict(self.aliases)
        for action in actions:
            for kind, one in action.items():
                if kind == "remove":
                    if new.pop(one["alias"], None) != one["index"]:
                        return 404, {"error": "aliases_not_found_exception"}
                elif one["index"] in self.mappings:
                    new[one["alias"]] = one["index"]
                else:
                    return 404, {"error": "index_not_found_exception"}
        self.aliases = new
        return 200, {"acknowledged": True}

    def _bulk(self, name: str, body: bytes) -> dict[str, Any]:
        lines = [json.loads(line) for line in body.decode().split("\n")[:-1]]
        fields, items = self.mappings[name], []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            one: dict[str, Any] = {"status": 201}
            if len(document["vector"]) != fields["vector"]["dimension"] or set(document) - set(
                fields
            ):
                one = {"status": 400, "error": {"type": "mapper_parsing_exception"}}
            else:
                self.documents[name][action["index"]["_id"]] = document
            items.append({"index": one})
        return {"errors": any("error" in one["index"] for one in items), "items": items}


@contextmanager
def search_engine() -> Iterator[SearchEngine]:
    """A server for the block."""
    engine = SearchEngine()

    def answer(method: str, path: str, _: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        status, said = engine.answer(method, path, body)
        return status, json.dumps(said).encode()

    with answering(answer) as engine.url:
        yield engine
