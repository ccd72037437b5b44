"""Push and export into osmem, an independent server of OpenSearch's API, in memory.

It checks mappings and documents, and knows aliases and filters, but no k-NN query. OpenSearch
itself is in no package of pip's index. Run by `make test-stores`.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.formats import ExportOptions, write
from embedmill.pipeline.formats.push import PushOptions, push
from embedmill.pipeline.log import Quiet
from tests.support.runs import finished, titled

osmem = pytest.importorskip("osmem_server", reason="`make test-stores` runs it")

WORLD = titled()
LIVE = [n for n in range(30) if n != 7]


@pytest.fixture
def url() -> Iterator[str]:
    """Of a server that ends with its standard input."""
    words = [osmem.resolve_binary(), "--no-ja"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]


def send(method: str, url: str, body: bytes = b"", kind: str = "application/json") -> Any:
    request = urllib.request.Request(url, body or None, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def documents(url: str, name: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    """What a search finds, by rising row."""
    body = {"size": 1000, "query": query, "sort": ["row"]}
    found = send("POST", f"{url}/{name}/_search", json.dumps(body).encode())
    return [hit["_source"] for hit in found["hits"]["hits"]]


def indices(url: str) -> list[str]:
    return list(send("GET", f"{url}/plays_items*/_settings"))


class Stops(Quiet):
    """Ends a push after a batch, as a lost connection would."""

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        raise ConnectionError("the server is gone")


def test_readers_of_an_alias_get_all_of_a_run_or_what_they_had(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedmill.pipeline.formats.push.transfer._BATCH_ROWS", 8)
    nights = [
        finished(
            dataclasses.replace(WORLD, item_ND=WORLD.item_ND + night),
            tmp_path / str(night),
            index={"kind": "flat"},
        )
        for night in range(3)
    ]
    to, options = f"opensearch+{url}", PushOptions("plays")

    def check(night: int) -> None:
        found = documents(url, "plays_items", {"match_all": {}})
        assert [one["id"] for one in found] == [f"i{n}" for n in LIVE]
        assert [one["categories"] for one in found] == [WORLD.categories[n] for n in LIVE]
        for n, one in zip(LIVE, found, strict=True):
            assert one["vector"] == pytest.approx((WORLD.item_ND[n] + night).tolist(), rel=1e-5)
        users = documents(url, "plays_users", {"match_all": {}})
        assert [one["id"] for one in users] == WORLD.users

    first = push(nights[0], to, options, Quiet())
    check(0)
    assert not any(push(nights[0], to, options, Quiet())[s]["written"] for s in ("users", "items"))
    with pytest.raises(MachineError, match="readers have what they had"):
        push(nights[1], to, options, Stops())
    check(0)
    push(nights[1], to, options, Quiet())
    check(1)
    assert not push(nights[0], to, options, Quiet())["items"]["written"]  # back
    check(0)
    for category in ("odd", 'a "b", \\c'):
        found = documents(url, "plays_items", {"term": {"categories": category}})
        assert [one["row"] for one in found] == [n for n in LIVE if n % 2]
    titled = documents(url, "plays_items", {"term": {"title.keyword": "Title 12"}})
    assert [one["row"] for one in titled] == [12]
    push(nights[2], to, options, Quiet())
    check(2)
    names = indices(url)
    assert len(names) == 2
    assert first["items"]["table"] in names


def test_exported_bodies_are_taken(tmp_path: Path, url: str) -> None:
    run = finished(WORLD, tmp_path / "runs", index={"kind": "flat"})
    write(run, ExportOptions("opensearch"), str(tmp_path / "out"), Quiet())
    send("PUT", f"{url}/items", (tmp_path / "out/items.index.json").read_bytes())
    for file in sorted((tmp_path / "out").glob("items.*.ndjson")):
        said = send("POST", f"{url}/items/_bulk", file.read_bytes(), "application/x-ndjson")
        assert not said["errors"]
    send("POST", f"{url}/items/_refresh")
    found = documents(url, "items", {"match_all": {}})
    assert [(one["row"], one["title"]) for one in found] == [(n, f"Title {n}") for n in LIVE]
