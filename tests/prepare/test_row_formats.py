"""Logs in ORC and Avro: slices, codecs, nested records, unions, damage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.orc
import pytest

from embedmill.pipeline.errors import InputError, MachineError
from embedmill.pipeline.prepare.readers import avro, orc
from tests.support.log_reading import read_log

NULLABLE_LONG = ["null", "long"]


def write_avro(path: Path, fields: dict[str, Any], records: list[Any], codec: str = "null") -> Path:
    schema = {
        "type": "record",
        "name": "row",
        "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
    }
    with path.open("wb") as out:
        fastavro.writer(out, fastavro.parse_schema(schema), records, codec=codec)
    return path


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_avro_of_every_codec(tmp_path: Path, codec: str) -> None:
    records = [{"user_id": n, "item_id": f"item {n % 7}"} for n in range(1000)]
    fields = {"user_id": "long", "item_id": "string"}
    path = write_avro(tmp_path / "log.avro", fields, records, codec)
    found = read_log(paths=str(path), format="auto")
    assert [event[:2] for event in found.events] == [(str(n), f"item {n % 7}") for n in range(1000)]


def test_batches_of_avro_are_numbered_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro, "_BATCH_ROWS", 3)
    records = [{"user_id": n if n % 4 else None, "item_id": "x"} for n in range(10)]
    fields = {"user_id": NULLABLE_LONG, "item_id": "string"}
    path = write_avro(tmp_path / "log.avro", fields, records)
    found = read_log(paths=str(path), format="avro")
    assert [reject[1:3] for reject in found.rejects] == [(row, "user_missing") for row in (1, 5, 9)]
    assert sorted(found.spans) == [(row, 1) for row in range(1, 11)]


def test_logical_types_of_avro_are_what_they_mean(tmp_path: Path) -> None:
    def logical(kind: str, name: str) -> dict[str, str]:
        return {"type": kind, "logicalType": name}

    day_ms, year_10000 = 86_400_000, 253_402_300_800_000
    fields = {
        "user_id": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0},
        "item_id": {"type": "enum", "name": "color", "symbols": ["RED", "BLUE"]},
        "at": logical("long", "timestamp-millis"),
    }
    schema = fields | {"user_id": "bytes", "at": "long"}
    records = [
        {"user_id": (12345678901234567890).to_bytes(9, "big"), "item_id": "RED", "at": day_ms},
        {"user_id": (-5).to_bytes(1, "big", signed=True), "item_id": "BLUE", "at": year_10000},
    ]
    # Written with bare types, since fastavro takes no time beyond Python's.
    path = write_avro(tmp_path / "bare.avro", schema, records)
    named = [{"name": name, "type": kind} for name, kind in fields.items()]
    typed = fastavro.parse_schema({"type": "record", "name": "row", "fields": named})
    with path.open("rb") as bare, (tmp_path / "log.avro").open("wb") as out:
        writer = fastavro.write.Writer(out, typed)
        for block in fastavro.block_reader(bare):
            writer.write_block(block)
        writer.flush()
    path.unlink()
    found = read_log(
        paths=str(tmp_path / "log.avro"), format="auto", time="at", time_unit="seconds"
    )
    assert found.events == [("12345678901234567890", "RED", day_ms * 1000, 1.0)]
    assert [reject[1:3] for reject in found.rejects] == [(2, "time_range")]


def test_a_union_of_types_is_each_value_by_itself(tmp_path: Path) -> None:
    fields = {"user_id": ["null", "long", "string", "double"], "item_id": "string"}
    users = [7, "seven", 7.0, None]
    records = [{"user_id": user, "item_id": "x"} for user in users]
    found = read_log(paths=str(write_avro(tmp_path / "log.avro", fields, records)), format="auto")
    assert [event[0] for event in found.events] == ["7", "seven", "7"]


def test_lists_and_paths_in_nested_records(tmp_path: Path) -> None:
    item = {
        "type": "record",
        "name": "item",
        "fields": [{"name": "sku", "type": ["null", "int"]}, {"name": "n", "type": "float"}],
    }
    actor = {"type": "record", "name": "actor", "fields": [{"name": "id", "type": "string"}]}
    fields = {
        "actor": ["null", actor],
        "basket": ["null", {"type": "array", "items": item}],
        "tags": {"type": "map", "values": "string"},
    }
    records = [
        {"actor": {"id": "a"}, "basket": [{"sku": 1, "n": 2.0}, {"sku": 2, "n": 0.5}], "tags": {}},
        {"actor": {"id": "b"}, "basket": [], "tags": {"k": "v"}},
        {"actor": {"id": "c"}, "basket": None, "tags": {}},
        {"actor": None, "basket": [{"sku": 3, "n": 1.0}], "tags": {}},
    ]
    settings: dict[str, Any] = {
        "user": "actor.id",
        "item": "basket.sku",
        "weight": "basket.n",
        "explode": "basket",
    }
    by_avro = write_avro(tmp_path / "log.avro", fields, records)
    by_orc = tmp_path / "log.orc"
    table = pa.Table.from_pylist([{k: r[k] for k in ("actor", "basket")} for r in records])
    pa.orc.write_table(table, str(by_orc))
    for path in (by_avro, by_orc):
        found = read_log(paths=str(path), format="auto", **settings)
        assert [(*event[:2], event[3]) for event in found.events] == [
            ("a", "1", 2.0),
            ("a", "2", 0.5),
        ]
        assert [reject[1:3] for reject in found.rejects] == [(3, "explode"), (4, "user_missing")]


def test_stripes_are_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orc, "SLICE_BYTES", 100_000)
    rows = 400_000
    users = np.random.default_rng(0).integers(0, 1 << 40, rows)
    path = tmp_path / "log.orc"
    bad = np.arange(rows) == rows - 1
    table = pa.table({"user_id": pa.array(users, mask=bad), "item_id": users})
    pa.orc.write_table(table, str(path), stripe_size=200_000)
    found = read_log(paths=str(path), format="auto")
    assert pa.orc.ORCFile(str(path)).nstripes > 3
    assert [event[0] for event in found.events] == [str(user) for user in users[:-1]]
    assert [reject[1:3] for reject in found.rejects] == [(rows, "user_missing")]


@pytest.mark.parametrize("kind", ["avro", "orc"])
def test_other_and_damaged_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"log.{kind}"
    path.write_bytes(b"user_id,item_id\n1,2\n" * 100)
    with pytest.raises(InputError, match=f"is no {kind}|is no {kind.upper()}|is no Avro"):
        read_log(paths=str(path), format="auto")
    records = [{"user_id": n, "item_id": n} for n in range(100_000)]
    if kind == "avro":
        write_avro(path, {"user_id": "long", "item_id": "long"}, records)
    else:
        pa.orc.write_table(pa.Table.from_pylist(records), str(path))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cannot be read|is no ORC"):
        read_log(paths=str(path), format="auto")


def test_a_time_beyond_nanoseconds_in_orc_has_a_sentence(tmp_path: Path) -> None:
    times = pa.array([253_402_300_800_000_000], pa.timestamp("us"))
    table = pa.table({"user_id": [1], "item_id": [2], "t": times})
    pa.orc.write_table(table, str(tmp_path / "log.orc"))
    with pytest.raises(InputError, match="out of range for nanosecond"):
        read_log(paths=str(tmp_path), format="auto", time="t")


def test_without_fastavro_a_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_avro(tmp_path / "log.avro", {"user_id": "long", "item_id": "long"}, [])
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(MachineError, match=r"pip install 'embedmill\[avro\]'"):
        read_log(paths=str(path), format="auto")
