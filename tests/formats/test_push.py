"""Push: readers get all of a run or what they had; again without harm; Delta and Iceberg tables."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.formats.lakehouse import register
from embedmill.pipeline.formats.push import PushOptions, push
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from tests.support.commands import Cli
from tests.support.postgres import Postgres, postgres
from tests.support.runs import finished, titled
from tests.support.search_engine import search_engine

WORLD = titled()
KINDS = ["postgresql", "qdrant", "milvus", "lance", "opensearch"]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("nights")
    moved = dataclasses.replace(WORLD, item_ND=WORLD.item_ND + 0.5)
    return [finished(one, root / str(n), index={"kind": "flat"})
            for n, one in enumerate((WORLD, moved))]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


@dataclasses.dataclass
class Store:
    """Where to push, and all rows of an alias as readers see them: row, id, categories, vector."""

    to: str
    rows: Callable[[str], list[tuple[int, str, list[str], list[float]]]]
    tables: Callable[[], list[str]]


def of_postgres(server: Postgres) -> Store:
    to = f"postgresql:///postgres?host={server.folder}&user=postgres"

    def rows(alias: str) -> Any:
        with server.connect() as db:
            payload = "categories" if alias.endswith("items") else "ARRAY[]::text[]"
            query = f"SELECT row, id, {payload}, embedding::text FROM {alias} ORDER BY row"
            return [(*r[:3], json.loads(r[3])) for r in db.execute(query)]

    def tables() -> list[str]:
        with server.connect() as db:
            found = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            return [name for (name,) in found]

    return Store(to, rows, tables)


def of_qdrant(folder: Path) -> Store:
    from qdrant_client import QdrantClient

    def with_client(call: Callable[[Any], Any]) -> Any:
        client = QdrantClient(path=str(folder))
        try:
            return call(client)
        finally:
            client.close()

    def rows(alias: str) -> Any:
        points, _ = with_client(lambda c: c.scroll(alias, limit=1000, with_vectors=True))
        points.sort(key=lambda point: point.id)
        return [(p.id, p.payload["id"], p.payload.get("categories", []), p.vector) for p in points]

    def tables() -> list[str]:
        return [c.name for c in with_client(lambda c: c.get_collections().collections)]

    return Store(f"qdrant://{folder}", rows, tables)


def of_milvus(file: Path) -> Store:
    from pymilvus import MilvusClient

    def with_client(call: Callable[[Any], Any]) -> Any:
        client = MilvusClient(str(file))
        try:
            return call(client)
        finally:
            client.close()

    def rows(alias: str) -> Any:
        def read(client: Any) -> Any:
            client.load_collection(client.describe_alias(alias=alias)["collection_name"])
            return client.query(alias, filter="row >= 0", output_fields=["*"], limit=1000)

        found = sorted(with_client(read), key=lambda one: one["row"])
        return [
            (r["row"], r["id"], list(r.get("categories", [])), list(map(float, r["vector"])))
            for r in found
        ]

    return Store(f"milvus://{file}", rows, lambda: with_client(lambda c: c.list_collections()))


def of_lance(folder: Path) -> Store:
    import lancedb

    def rows(alias: str) -> Any:
        db = lancedb.connect(folder)
        aliases = {r["alias"]: r["table"]
                   for r in db.open_table("embedmill_aliases").to_arrow().to_pylist()}  # fmt: skip
        found = db.open_table(aliases[alias]).to_arrow().to_pylist()
        return [(r["row"], r["id"], r.get("categories", []), r["vector"]) for r in found]

    return Store(f"lance://{folder}", rows, lambda: lancedb.connect(folder).list_tables().tables)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    kind = request.param
    if kind == "postgresql":
        yield of_postgres(request.getfixturevalue("server"))
    elif kind == "opensearch":
        with search_engine() as engine:
            yield Store(f"opensearch+{engine.url}", engine.rows, engine.names)
    else:
        of = {"qdrant": of_qdrant, "milvus": of_milvus, "lance": of_lance}[kind]
        yield of(tmp_path / ("m.db" if kind == "milvus" else "store"))


class Stops(Quiet):
    """Ends a push after a batch, as a lost connection would."""

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        raise ConnectionError("the server is gone")


@pytest.mark.filterwarnings("ignore")
def test_readers_get_all_of_a_run_or_what_they_had(
    nights: list[Run], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedmill.pipeline.formats.push.transfer._BATCH_ROWS", 8)
    options = PushOptions("plays")
    first = push(nights[0], store.to, options, Quiet())
    assert [first[side]["written"] for side in ("users", "items")] == [True, True]
    live = [n for n in range(30) if n != 7]

    def check(night: int) -> None:
        items = nights[night].artifact("export").counters
        assert items
        found = store.rows("plays_items")
        assert [(row, raw) for row, raw, *_ in found] == [(n, f"i{n}") for n in live]
        assert [list(one[2]) for one in found] == [WORLD.categories[n] for n in live]
        offset = 0.5 * night
        assert found[0][3] == pytest.approx((WORLD.item_ND[0] + offset).tolist(), rel=1e-5)
        assert [raw for _, raw, *_ in store.rows("plays_users")] == WORLD.users

    check(0)
    again = push(nights[0], store.to, options, Quiet())
    assert [again[side]["written"] for side in ("users", "items")] == [False, False]
    with pytest.raises(MachineError, match="readers have what they had"):
        push(nights[1], store.to, options, Stops())
    check(0)
    push(nights[1], store.to, options, Quiet())
    check(1)
    # The tables before the current ones are kept, so that going back writes nothing.
    back = push(nights[0], store.to, options, Quiet())
    assert [back[side]["written"] for side in ("users", "items")] == [False, False]
    check(0)
    other = finished(
        dataclasses.replace(WORLD, item_ND=WORLD.item_ND + 1.0),
        Path(nights[0].config.run.root) / "c",
    )
    push(other, store.to, options, Quiet())
    tables = [t for t in store.tables() if re.fullmatch(r"plays_items_[0-9a-f]{12}", t)]
    assert first["items"]["table"] in tables
    assert len(tables) == 2


KILLED = """
import os, signal, sys
from embedmill.pipeline.formats.lakehouse import register
from embedmill.pipeline.formats.push import PushOptions, push
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import open_run
sys.modules["embedmill.pipeline.formats.push.transfer"]._BATCH_ROWS = 8

class Killer(Quiet):
    def update(self, done, total, unit, **facts):
        if done >= 16:
            os.kill(os.getpid(), signal.SIGKILL)

push(open_run(sys.argv[1]), sys.argv[2], PushOptions("killed"), Killer())
"""


def test_a_push_that_was_killed_begins_anew(nights: list[Run], server: Postgres) -> None:
    store = of_postgres(server)
    push(nights[0], store.to, PushOptions("killed"), Quiet())
    words = [sys.executable, "-c", KILLED, nights[1].storage.root, store.to]
    done = subprocess.run(words, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    assert store.rows("killed_items")[0][3] == pytest.approx(WORLD.item_ND[0].tolist(), rel=1e-5)
    assert sum(name.startswith("killed_") for name in store.tables()) == 3  # one was begun
    push(nights[1], store.to, PushOptions("killed"), Quiet())
    assert len(store.rows("killed_items")) == 29
    assert store.rows("killed_items")[0][3][0] == pytest.approx(WORLD.item_ND[0][0] + 0.5, rel=1e-5)


def test_what_is_refused(
    nights: list[Run], tmp_path: Path, embedmill: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["push", nights[0].storage.root, "--to"]
    for to, code, said in (
        ("redis://localhost", 2, "no store 'redis'; there are postgresql, qdrant"),
        ("localhost:5432", 2, "is no URL, such as postgresql://"),
        ("postgresql://me:secret@localhost/db", 2, "give the password in the environment"),
        ("postgresql://localhost/db?password=secret", 2, "in the environment"),
        ("opensearch+http://127.0.0.1:9", 7, "the store fails"),
        ("postgresql://127.0.0.1:9/db", 7, "the store fails"),
    ):
        got, _, err = embedmill([*words, to])
        assert (got, said in err, "secret" in err) == (code, True, False), err
    code, _, err = embedmill([*words, f"lance://{tmp_path}/l", "--name", "Not a name"])
    assert (code, "small letters" in err) == (2, True)
    code, out, _ = embedmill([*words, f"lance://{tmp_path}/l", "--side", "items"])
    assert (code, "embedmill_items: 29 rows, table embedmill_items_" in out) == (0, True)
    with pytest.raises(ConfigError, match="no kind of table"):
        register(nights[0], "hudi")


# Tables over the export


def test_delta_and_iceberg_tables_are_the_files_of_the_export(
    nights: list[Run], tmp_path: Path, embedmill: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deltalake import DeltaTable
    from pyiceberg.catalog import load_catalog
    from pyiceberg.utils.config import Config

    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", f"sqlite:///{tmp_path}/lake.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", f"file://{tmp_path}/lake")
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # read when it was imported
    for night, run in enumerate(nights):
        for kind, changed in (
            ("delta", True),
            ("delta", False),
            ("iceberg", True),
            ("iceberg", False),
        ):
            code, out, err = embedmill(
                ["register", run.storage.root, "--as", kind, "--catalog", "lake", "--json"]
            )
            assert code == 0, err
            assert json.loads(out)["items"]["changed"] == changed
        folder = f"{run.storage.root}/export/items"
        tables = [
            DeltaTable(folder).to_pyarrow_table(),
            load_catalog("lake").load_table("embedmill.items").scan().to_arrow(),
        ]
        for table in tables:
            rows = sorted(table.to_pylist(), key=lambda row: row["row"])
            assert [row["id"] for row in rows] == WORLD.items
            assert [row["id"] for row in rows if not row["live"]] == ["i7"]
            assert rows[0]["vector"] == pytest.approx((WORLD.item_ND[0] + 0.5 * night).tolist())
        code, _, _ = embedmill(["verify", run.storage.root])
        assert code == 0
    assert not list((tmp_path / "lake").rglob("*.parquet"))
