"""Deltas applied to real tables come to what a full load of the last night is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.pipeline.errors import ConfigError, ContractError
from embedmill.pipeline.formats import ExportOptions, write
from embedmill.pipeline.formats.delta_loaders import (
    DeltaTarget,
    LanceTables,
    PgvectorTables,
    QdrantCollections,
    load_delta,
)
from embedmill.pipeline.formats.deltas import write_delta
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import Vectors
from tests.formats.test_deltas import nights
from tests.support.commands import Cli
from tests.support.postgres import postgres

__all__ = ["nights"]
Rows = dict[int, tuple[str, int, list[float]]]


def expected(run: Run, side: str) -> Rows:
    table = Vectors.of(run.artifact("export"), side).table()
    return {one["row"]: (one["id"], one["count"], one["vector"])
            for one in table.to_pylist() if one["live"]}  # fmt: skip


class OfPgvector:
    def __init__(self, run: Run, folder: Path) -> None:
        self.server = postgres()
        found = self.server.__enter__()
        write(run, ExportOptions("pgvector"), str(folder), Quiet())
        assert [found.psql(folder / f"{side}.sql") for side in ("users", "items")] == ["", ""]
        self.connection = found.connect()
        self.target: DeltaTarget = PgvectorTables(self.connection)

    def rows(self, side: str) -> Rows:
        query = f"SELECT row, id, count, embedding::text FROM {side}"
        return {row: (raw, count, [float(x) for x in text[1:-1].split(",")])
                for row, raw, count, text in self.connection.execute(query)}  # fmt: skip

    def close(self) -> None:
        self.connection.close()
        self.server.__exit__(None, None, None)


class OfQdrant:
    def __init__(self, run: Run, folder: Path) -> None:
        from qdrant_client import QdrantClient

        write(run, ExportOptions("qdrant"), str(folder), Quiet())
        self.client = QdrantClient(path=str(folder))
        self.target: DeltaTarget = QdrantCollections(self.client)

    def rows(self, side: str) -> Rows:
        points, _ = self.client.scroll(side, limit=1000, with_vectors=True)
        found: Rows = {}
        for one in points:
            payload: Any = one.payload
            found[int(one.id)] = (payload["id"], payload["count"], list(one.vector))  # type: ignore[arg-type]
        return found

    def close(self) -> None:
        self.client.close()


class OfLance:
    def __init__(self, run: Run, folder: Path) -> None:
        write(run, ExportOptions("lance"), str(folder), Quiet())
        self.folder = str(folder)
        self.target: DeltaTarget = LanceTables(self.folder)

    def rows(self, side: str) -> Rows:
        import lancedb

        table = lancedb.connect(self.folder).open_table(side).to_arrow()
        return {one["row"]: (one["id"], one["count"], one["vector"]) for one in table.to_pylist()}

    def close(self) -> None:
        pass


@pytest.fixture(params=[OfPgvector, OfQdrant, OfLance])
def store(request: pytest.FixtureRequest, nights: list[Run], tmp_path: Path) -> Iterator[Any]:
    made = request.param(nights[0], tmp_path / "export")
    yield made
    made.close()


def test_a_loaded_export_follows_deltas(store: Any, nights: list[Run], tmp_path: Path) -> None:
    one, two = str(tmp_path / "1"), str(tmp_path / "2")
    write_delta(nights[1], nights[0], [], one)
    write_delta(nights[2], nights[0], [one], two)
    base = nights[0].artifact("export").manifest.content
    with pytest.raises(ConfigError, match="--base"):
        load_delta(store.target, one)
    with pytest.raises(ContractError, match="not the one after delta 0"):
        load_delta(store.target, two, base=base)
    with pytest.raises(ContractError, match="another chain or space"):
        load_delta(store.target, one, base="0" * 64)
    assert load_delta(store.target, one, base=base).number == 1
    with pytest.raises(ContractError, match="applied already"):
        load_delta(store.target, one)
    assert load_delta(store.target, two).number == 2
    with pytest.raises(ContractError, match="not the one after delta 2"):
        load_delta(store.target, one)
    for side in ("users", "items"):
        got, want = store.rows(side), expected(nights[2], side)
        assert got.keys() == want.keys()
        for row, (raw, count, vector) in want.items():
            assert got[row][:2] == (raw, count)
            np.testing.assert_allclose(got[row][2], vector, rtol=1e-6)


def read_items(folder: str) -> list[dict[str, Any]]:
    import lancedb

    rows: list[dict[str, Any]] = lancedb.connect(folder).open_table("items").to_arrow().to_pylist()
    return rows


def test_the_command_applies_a_delta(nights: list[Run], tmp_path: Path, embedmill: Cli) -> None:
    one, folder = str(tmp_path / "1"), str(tmp_path / "lance")
    write_delta(nights[1], nights[0], [], one)
    write(nights[0], ExportOptions("lance"), folder, Quiet())
    base = nights[0].artifact("export").manifest.content
    code, out, _ = embedmill(["load-delta", one, "--lance", folder, "--base", base])
    assert (code, out.strip()) == (0, "delta 1 was applied")
    titles = {one["row"]: one["title"] for one in read_items(folder)}
    assert titles == {row: f"Title {row}" for row in range(30)}  # those of moved rows too
    code, _, err = embedmill(["load-delta", one, "--lance", folder])
    assert code == 4
    assert "applied already" in err
    assert embedmill(["load-delta", one])[0] == 2
