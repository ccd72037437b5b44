"""Logs that are Delta and Iceberg tables, read at a snapshot: what is live, and nothing else."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.table import Table
from pyiceberg.types import DoubleType
from pyspark.sql import SparkSession

from embedmill.pipeline.config import EventsConfig, parse
from embedmill.pipeline.errors import ConfigError, InputError, MachineError, StaleArtifactError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.prepare import events
from embedmill.pipeline.prepare.readers import columnar
from embedmill.pipeline.prepare.readers.read_plan import plan_reads, source_stamps
from embedmill.pipeline.store.run import Run
from tests.support.log_reading import read_log
from tests.support.log_tables import (
    add_deletion_vector,
    add_iceberg_deletes,
    commit_delta,
    iceberg_table,
)
from tests.support.prepare_builds import rows, tree

ROWS = pa.table(
    {
        "user_id": pa.array(range(100), pa.int64()),
        "item_id": [f"item {n % 7}" for n in range(100)],
        "day": [date(2020, 1, 1 + n % 3) for n in range(100)],
    }
)


def users(path: Path, **config: Any) -> list[int]:
    """Users of all events, sorted."""
    found = read_log(paths=str(path), **{"format": "auto", **config})
    assert not found.rejects
    return sorted(int(event[0]) for event in found.events)


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    """A Delta table of ROWS, in two files."""
    for part in (ROWS.slice(0, 50), ROWS.slice(50)):
        write_deltalake(str(tmp_path / "plays"), part, mode="append")
    return tmp_path / "plays"


@pytest.fixture
def iceberg(tmp_path: Path) -> tuple[Path, Table]:
    """An Iceberg table of ROWS, in two files."""
    table = iceberg_table(tmp_path / "plays", ROWS.schema)
    for part in (ROWS.slice(0, 50), ROWS.slice(50)):
        table.append(part)
    return tmp_path / "plays", table


@pytest.mark.parametrize("kind", ["auto", "delta"])
def test_a_delta_table_after_an_update_a_delete_and_an_overwrite(delta: Path, kind: str) -> None:
    assert users(delta, format=kind) == [*range(100)]
    table = DeltaTable(str(delta))
    table.delete("user_id < 20")
    assert users(delta, format=kind) == [*range(20, 100)]
    table.update({"user_id": "user_id + 1000"}, predicate="user_id >= 90")
    assert users(delta, format=kind) == [*range(20, 90), *range(1090, 1100)]
    write_deltalake(str(delta), ROWS.slice(0, 3), mode="overwrite")
    assert users(delta, format=kind) == [0, 1, 2]
    assert users(delta, format=kind, snapshot=1) == [*range(100)]
    assert users(delta, format=kind, snapshot="2") == [*range(20, 100)]


def test_a_delta_table_at_a_time(delta: Path) -> None:
    time.sleep(1.1)
    before = datetime.now(UTC)
    time.sleep(1.1)
    DeltaTable(str(delta)).delete("user_id < 99")
    assert users(delta) == [99]
    assert users(delta, snapshot=before.isoformat()) == [*range(100)]
    with pytest.raises(InputError, match="no version as old as 1999-12-31"):
        users(delta, snapshot="1999-12-31")


@pytest.mark.parametrize("slice_bytes", [1 << 25, 1])
def test_deletion_vectors_are_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice_bytes: int
) -> None:
    monkeypatch.setattr(columnar, "SLICE_BYTES", slice_bytes)
    folder = tmp_path / "plays"
    write_deltalake(str(folder), ROWS)
    assert add_deletion_vector(folder, [0, 5, 63, 98]) == 1
    expected = [n for n in range(100) if n not in (0, 5, 63, 98)]
    assert users(folder) == expected
    assert users(folder, snapshot=0) == [*range(100)]


def test_rejects_of_a_table_have_the_row_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "plays"
    rows = pa.table({"user_id": [1, None, 3, None], "item_id": ["a", "b", "c", "d"]})
    write_deltalake(str(folder), rows)
    add_deletion_vector(folder, [0, 1])
    found = read_log(paths=str(folder), format="auto")
    assert [event[:2] for event in found.events] == [("3", "c")]
    assert [reject[1:3] for reject in found.rejects] == [(4, "user_missing")]


def test_a_partitioned_delta_table_has_typed_partition_values(tmp_path: Path) -> None:
    folder = tmp_path / "plays"
    rows = pa.table(
        {
            "user_id": [1, 2, 3, 4],
            "item_id": ["a b", "c/d=e", "ü%20", "z"],
            "t": pa.array([0, 1_000_000, None, 3_000_000], pa.timestamp("us", "UTC")),
            "shop": ["x y", "é/=", None, "x"],
        }
    )
    write_deltalake(str(folder), rows, partition_by=["t", "shop", "item_id"])
    found = read_log(paths=str(folder), format="auto", time="t", time_unit="seconds")
    assert sorted(found.events) == [
        ("1", "a b", 0, 1.0),
        ("2", "c/d=e", 1_000_000, 1.0),
        ("4", "z", 3_000_000, 1.0),
    ]
    assert [reject[2] for reject in found.rejects] == ["time"]
    by_shop = read_log(paths=str(folder), format="auto", item="shop")
    assert sorted(event[:2] for event in by_shop.events) == [("1", "x y"), ("2", "é/="), ("4", "x")]


def test_days_of_a_partitioned_table_are_selected(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "d"), ROWS, partition_by=["day"])
    table = iceberg_table(tmp_path / "i", ROWS.schema)
    with table.update_spec() as spec:
        spec.add_identity("day")
    table.append(ROWS)
    for folder in (tmp_path / "d", tmp_path / "i"):
        chosen = {"date_folders": ["day"], "date_from": "2020-01-02", "date_to": "2020-01-02"}
        assert users(folder, **chosen) == [n for n in range(100) if n % 3 == 1]
        config = EventsConfig(paths=str(folder), format="auto", **chosen)
        plan = plan_reads(config)
        assert (plan.files, plan.outside) == (1, 2)


def test_an_added_column_of_a_delta_table_is_null_before(delta: Path) -> None:
    more = pa.table({"user_id": [1000], "item_id": ["x"], "day": [date(2020, 2, 1)], "w": [2.5]})
    write_deltalake(str(delta), more, mode="append", schema_mode="merge")
    found = read_log(paths=str(delta), format="auto", weight="w", defaults={"w": 1})
    assert sorted({event[3] for event in found.events}) == [1.0, 2.5]
    without = read_log(paths=str(delta), format="auto", weight="w")
    assert len(without.events) == 1
    assert {reject[2] for reject in without.rejects} == {"weight"}


def test_renamed_columns_of_a_delta_table(tmp_path: Path) -> None:
    """With column mapping, a file's columns have other names than the table's."""
    folder = tmp_path / "plays"
    rows = pa.table(
        {"user_id": [1, 2], "who": [{"a": 5, "b": 6}, None], "item_id": ["x", "y"], "day": [1, 2]}
    )
    mapped = {"delta.columnMapping.mode": "name"}
    write_deltalake(str(folder), rows, configuration=mapped, partition_by=["day"])
    nested: dict[str, Any] = {"user": "who.a", "weight": "who.b", "defaults": {"who.a": "0"}}
    found = read_log(paths=str(folder), format="auto", **nested)
    assert sorted(event[:2] for event in found.events) == [("5", "x")]
    (log,) = (folder / "_delta_log").glob("*.json")

    actions = [json.loads(line) for line in log.read_text().splitlines()]
    (metadata,) = [action["metaData"] for action in actions if "metaData" in action]
    schema = json.loads(metadata["schemaString"])
    swapped = {"user_id": "day", "day": "user_id", "item_id": "thing"}
    for field in schema["fields"]:
        field["name"] = swapped.get(field["name"], field["name"])
    renamed = {
        **metadata,
        "schemaString": json.dumps(schema),
        "partitionColumns": ["user_id"],
    }
    commit_delta(folder, [{"metaData": renamed}])
    found = read_log(paths=str(folder), format="auto", user="user_id", item="thing", weight="day")
    assert sorted(found.events) == [("1", "x", None, 1.0), ("2", "y", None, 2.0)]
    with pytest.raises(InputError, match="has no column 'item_id'"):
        read_log(paths=str(folder), format="auto")


def test_an_iceberg_table_after_deletes_and_overwrites(iceberg: tuple[Path, Table]) -> None:
    folder, table = iceberg
    assert users(folder) == users(folder, format="iceberg") == [*range(100)]
    first = table.current_snapshot()
    assert first is not None
    table.delete("user_id < 20")
    assert users(folder) == [*range(20, 100)]
    table.overwrite(ROWS.slice(0, 3), overwrite_filter="user_id >= 90")
    assert users(folder) == [0, 1, 2, *range(20, 90)]
    assert users(folder, snapshot=first.snapshot_id) == [*range(100)]
    table.overwrite(ROWS.slice(7, 1))
    assert users(folder) == [7]
    at = datetime.fromtimestamp(first.timestamp_ms / 1000, UTC).isoformat()
    assert users(folder, snapshot=at) == [*range(100)]
    assert users(Path(table.metadata_location.removeprefix("file://"))) == [7]
    table.manage_snapshots().create_tag(first.snapshot_id, "january").commit()
    assert users(folder, snapshot="january") == [*range(100)]
    for unknown in ("1999-12-31", "5", "february"):
        with pytest.raises(InputError, match="has no snapshot"):
            users(folder, snapshot=unknown)


def test_columns_of_an_iceberg_table_are_found_by_id(iceberg: tuple[Path, Table]) -> None:
    folder, table = iceberg
    with table.update_schema() as update:
        update.rename_column("user_id", "item_id_")
        update.rename_column("item_id", "user_id")
        update.add_column("w", DoubleType())
    with table.update_schema() as update:
        update.rename_column("item_id_", "item_id")
    more = pa.table({"item_id": [1000], "user_id": ["x"], "w": [2.5]})
    table.append(more)
    found = read_log(paths=str(folder), format="auto", weight="w", defaults={"w": 1})
    assert len(found.events) == 101
    assert ("item 3", "3", None, 1.0) in found.events
    assert ("x", "1000", None, 2.5) in found.events


def test_nested_columns_of_an_iceberg_table_are_found_by_id(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "who": [{"id": 1, "age": 30}, {"id": 2, "age": 40}, None],
            "basket": [[{"sku": "a"}, {"sku": "b"}], [], [{"sku": "c"}]],
        }
    )
    table = iceberg_table(tmp_path / "plays", rows.schema)
    table.append(rows)
    with table.update_schema() as update:
        update.rename_column("who.id", "number")
        update.rename_column("basket.sku", "product")
    names: dict[str, Any] = {"user": "who.number", "item": "basket.product", "explode": "basket"}
    found = read_log(paths=str(tmp_path / "plays"), format="iceberg", **names)
    assert [event[:2] for event in found.events] == [("1", "a"), ("1", "b")]
    assert [reject[1:3] for reject in found.rejects] == [(3, "user_missing")]


def test_position_deletes_are_honoured(iceberg: tuple[Path, Table]) -> None:
    folder, table = iceberg
    paths = [task.file.file_path for task in table.scan().plan_files()]
    gone = {path: [1, 3, 49] for path in paths}
    metadata = add_iceberg_deletes(table, folder, gone)
    expected = [n for n in range(100) if n % 50 not in (1, 3, 49)]
    assert users(folder) == users(metadata) == expected
    latest = Table(("t",), table.metadata, table.metadata_location, table.io, table.catalog)
    assert latest.scan().to_arrow().num_rows == 100


def test_equality_deletes_are_refused_by_name(iceberg: tuple[Path, Table]) -> None:
    folder, table = iceberg
    paths = [task.file.file_path for task in table.scan().plan_files()]
    add_iceberg_deletes(table, folder, {paths[0]: [1]}, equality=True)
    with pytest.raises(InputError, match="equality deletes"):
        users(folder)


def test_files_that_were_added_to_an_iceberg_table_have_names(tmp_path: Path) -> None:

    pq.write_table(ROWS, tmp_path / "plain.parquet")
    table = iceberg_table(tmp_path / "plays", ROWS.schema)
    table.add_files([f"file://{tmp_path / 'plain.parquet'}"])
    with table.update_schema() as update:
        update.rename_column("item_id", "thing")
    assert users(tmp_path / "plays", format="iceberg", item="thing") == [*range(100)]


def test_the_snapshot_is_in_the_stamps_and_read_again(delta: Path) -> None:
    config = EventsConfig(paths=str(delta), format="auto")
    stamps = source_stamps(config)
    ((name, stamp),) = stamps.items()
    assert name == "0/plays"
    assert stamp.startswith("delta table ")
    assert "snapshot 1," in stamp
    assert source_stamps(EventsConfig(paths=str(delta), format="delta", snapshot=1)) == stamps
    DeltaTable(str(delta)).delete("user_id < 50")
    assert source_stamps(config) != stamps
    assert plan_reads(config).files == 1
    assert plan_reads(config, stamps).files == 2


def test_what_is_no_table_or_lacks_its_library_has_a_sentence(
    tmp_path: Path, delta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "log.csv").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(InputError, match="is no Delta table"):
        users(plain, format="delta")
    with pytest.raises(InputError, match="is no Iceberg table"):
        users(plain, format="iceberg")
    with pytest.raises(InputError, match=r"is no table, and events\.snapshot"):
        users(plain, snapshot=3)
    with pytest.raises(ConfigError, match="neither a number nor an ISO time"):
        users(delta, snapshot="2020-13-01")
    with pytest.raises(InputError, match="cannot be read as a Delta table"):
        users(delta, snapshot=99)
    for path in delta.glob("*.parquet"):
        path.unlink()
    with pytest.raises(InputError, match="is not there"):
        users(delta)
    for library, kind in (("deltalake", "delta"), ("pyiceberg.exceptions", "iceberg")):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(MachineError, match=rf"pip install 'embedmill\[{kind}\]'"):
            users(delta, format=kind)


def test_unknown_features_of_a_delta_table_are_refused(delta: Path) -> None:
    features = {"readerFeatures": ["rowsInTheCloud"], "writerFeatures": ["rowsInTheCloud"]}
    commit_delta(delta, [{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}}])
    with pytest.raises(InputError, match="rowsInTheCloud"):
        users(delta)


@pytest.mark.parametrize("engine", ["sail", pytest.param("spark", marks=pytest.mark.spark)])
@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_engines_read_the_snapshot_that_was_stamped(
    tmp_path: Path, engine: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """Log and titles; each table gets another version between the stamp and the reading."""
    session: SparkSession = request.getfixturevalue(engine)
    more = pa.table({"user_id": [1000], "item_id": ["late"], "day": [date(2020, 2, 1)]})
    titles = pa.table({"item_id": ["item 1", "item 2"], "title": ["One", "Two"]})
    for name, table in (("log", ROWS), ("titles", titles)):
        _write(tmp_path / name, kind, table)
        _write(tmp_path / name, kind, table.slice(0, 1))
    if kind == "delta":
        add_deletion_vector(tmp_path / "log", [0, 1], file=0)
    sections = {
        "time": "day",
        "time_unit": "iso",
        "weight": "",
        "format": "auto",
        "items": {"paths": str(tmp_path / "titles"), "format": kind},
    }
    run = Run(parse(tree(tmp_path / "runs", str(tmp_path / "log"), events=sections)))
    stamps = events.source_stamps(run)
    out = run.writer("events", stamps)
    _write(tmp_path / "log", kind, more)
    _write(tmp_path / "titles", kind, titles)
    events.build(session, run, out, Quiet())
    artifact = run.artifact("events")
    deleted = 2 if kind == "delta" else 0
    assert artifact.counters["rows_in"] == 101 - deleted
    assert artifact.counters["items_repeated"] == 1
    assert set(artifact.manifest.sources) == {"0/log", "items/0/titles"}
    # The first row is there twice; a deletion vector of the first file leaves one of the two.
    found = {int(row["user"]) for row in rows(run, "events", "data")}
    assert found == set(range(100)) - ({1} if deleted else set())
    with pytest.raises(StaleArtifactError, match=r"files of the log came or changed.*: 0/log"):
        run.up_to_date("events", events.source_stamps(run))


def _write(folder: Path, kind: str, rows: pa.Table) -> None:
    """Append rows to a table, which is created where it is not there."""
    if kind == "delta":
        write_deltalake(str(folder), rows, mode="append")
        return
    known = _ICEBERG_TABLES.get(folder)
    table = known or _ICEBERG_TABLES.setdefault(folder, iceberg_table(folder, rows.schema))
    table.append(rows)


_ICEBERG_TABLES: dict[Path, Table] = {}
