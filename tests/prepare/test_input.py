"""Logs as they are: formats and columns that change from file to file, nested records."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.readers import text_lines
from tests.support.log_reading import read_log
from tests.support.prepare_builds import START, build, hashes, jsonl, put, rows, tree

MICRO = 10**6


def drifted(folder: Path) -> dict[str, Any]:
    """One log over the years: other formats, names, types and times; six events of three users."""
    put(folder / "2021.tsv", f"user_id\titem_id\ttime\n7\tx\t{START}\n8\ty\t{START + 1}\n")
    put(
        folder / "2022.csv.gz",
        gzip.compress(b'item_id,rating,uid,time\n"x",2.5,9,2026-11-01T00:00:02\n'),
    )
    put(
        folder / "2023.jsonl",
        jsonl(
            {"uid": 7, "item_id": "z", "time": (START + 3) * 1000, "rating": 3},
            {"uid": "8", "item_id": "z", "time": f"{START + 4}"},
        ),
    )
    put(
        folder / "2024.parquet",
        {
            "userId": pa.array([9.0, None]),
            "item_id": ["x", "x"],
            "time": pa.array([datetime(2026, 11, 1, 0, 0, 5)] * 2, pa.timestamp("ms")),
            "rating": pa.array(["1.5", None]),
        },
    )
    return {
        "format": "auto",
        "time": "time",
        "time_unit": "auto",
        "weight": "rating",
        "aliases": {"user_id": ["uid", "userId"]},
        "defaults": {"rating": 1},
    }


DRIFTED = [
    ("7", "x", START, 1.0),
    ("7", "z", START + 3, 3.0),
    ("8", "y", START + 1, 1.0),
    ("8", "z", START + 4, 1.0),
    ("9", "x", START + 2, 2.5),
    ("9", "x", START + 5, 1.5),
]


def test_a_log_that_changed_over_the_years(tmp_path: Path) -> None:
    found = read_log(paths=str(tmp_path), **drifted(tmp_path))
    assert sorted(found.events) == [(u, i, t * MICRO, w) for u, i, t, w in DRIFTED]
    assert [one[:3] for one in found.rejects] == [("2024.parquet", 2, "user_missing")]


@pytest.mark.spark
def test_it_is_the_same_on_both_engines(
    tmp_path: Path, sail: SparkSession, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**drifted(tmp_path / "log"), "max_rejects": 0.5}
    late = "".join(f"late{n}\tx\t{START + n}\n" if n % 9 else "bad\n" for n in range(99))
    put(tmp_path / "log" / "2025.tsv", "user_id\titem_id\ttime\n" + late)
    monkeypatch.setattr(
        text_lines, "_SLICE_BYTES", 500
    )  # its parts are planned here and read by the engine
    one, two = (
        build(session, tree(tmp_path / name, str(tmp_path / "log"), events=settings), "events")
        for name, session in (("sail", sail), ("spark", spark))
    )
    found = [
        (r["user"], r["item"], r["time"] // MICRO, r["weight"]) for r in rows(one, "events", "data")
    ]
    assert sorted(event for event in found if not event[0].startswith("late")) == DRIFTED
    assert len(found) == len(DRIFTED) + 88
    bad = [r["line"] for r in rows(one, "events", "rejects") if r["file"] == "2025.tsv"]
    assert bad == list(range(2, 101, 9))
    assert one.artifact("events").manifest.content == two.artifact("events").manifest.content
    assert hashes(one, "events") == hashes(two, "events")
    measured = one.artifact("events").manifest.measured
    assert (measured["files"], measured["files_outside"]) == (5, 0)


def test_the_first_name_with_a_value_counts(tmp_path: Path) -> None:
    """A file after a migration may have both columns."""
    log = put(tmp_path / "log.csv", "user_id,uid,item_id\na,b,1\n,c,2\n,,3\n")
    found = read_log(paths=log, format="csv", aliases={"user_id": "uid"})
    assert [event[:2] for event in found.events] == [("a", "1"), ("c", "2")]
    assert found.rejects == [("log.csv", 4, "user_missing", b",,3")]
    table = {"user_id": pa.array([5, None, None]), "uid": ["x", "y", None], "item_id": [1, 2, 3]}
    both = read_log(
        paths=put(tmp_path / "log.parquet", table),
        format="parquet",
        aliases={"user_id": "uid"},
        defaults={"user_id": "nobody"},
    )
    assert [event[:2] for event in both.events] == [("5", "1"), ("y", "2"), ("nobody", "3")]


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        ({"format": "tsv"}, "user_id\titem_id\tuser_id\na\tb\tc\n", "has 2 columns 'user_id'"),
        ({"format": "tsv", "aliases": {"item_id": "sku"}}, "user_id\tid\n1\t2\n",
         r"has no column 'item_id' or 'sku'; it has 'user_id', 'id'\. .*events\.aliases or events"),
        ({"format": "auto"}, "x", r"log\.xyz: its name ends like that of no format; there are \.t"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(
    tmp_path: Path, settings: dict[str, Any], data: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_log(paths=put(tmp_path / "log.xyz", data), **settings)


def test_a_parquet_with_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["user_id", "item_id", "user_id"])
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(InputError, match="has 2 columns 'user_id'"):
        read_log(paths=str(tmp_path), format="parquet")


NESTED = {"user": "actor.id", "item": "object.key", "time": "at.seconds", "time_unit": "auto"}
ACTIONS = [
    {"actor": {"id": "a", "x": 1}, "object": {"key": 5}, "at": {"seconds": START}},
    {"actor": {"id": "b"}, "object": {"key": 6}, "at": {"seconds": START + 1}},
    {"actor": {}, "object": {"key": 6}, "at": {"seconds": START}},
    {"actor": None, "object": {"key": 6}, "at": {"seconds": START}},
]


def test_nested_fields_by_path(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", jsonl(*ACTIONS))
    put(tmp_path / "b.jsonl", jsonl(*ACTIONS, {"actor.id": "c", "object": {"key": "7"}, "at": 3}))
    put(tmp_path / "c.parquet", {n: [one[n] for one in ACTIONS] for n in ACTIONS[0]})
    found = read_log(paths=str(tmp_path), format="auto", **NESTED)
    one = [("a", "5", START * MICRO, 1.0), ("b", "6", (START + 1) * MICRO, 1.0)]
    assert found.events == one * 3
    assert [reject[:3] for reject in found.rejects] == [
        ("a.jsonl", 3, "user_missing"),
        ("a.jsonl", 4, "user_missing"),
        ("b.jsonl", 3, "user_missing"),
        ("b.jsonl", 4, "user_missing"),
        ("b.jsonl", 5, "time"),
        ("c.parquet", 3, "user_missing"),
        ("c.parquet", 4, "user_missing"),
    ]


VISITS = [
    {"who": {"id": "a"}, "visit": {"seen": [{"sku": "x", "n": 2}, {"sku": "y", "n": 3}]}},
    {"who": {"id": "b"}, "visit": {"seen": []}},
    {"who": {"id": "c"}, "visit": {"seen": None}},
    {"who": {"id": "d"}, "visit": {"seen": [{"sku": "x", "n": 1}, {"sku": None, "n": 4}]}},
]
EXPLODED = {"user": "who.id", "item": "visit.seen.sku", "weight": "visit.seen.n",
            "explode": "visit.seen"}  # fmt: skip


@pytest.mark.parametrize("odd", [[], [{"who": {"id": "e"}, "visit": {"seen": "?"}}, "no object"]])
def test_a_list_of_events_in_each_record(tmp_path: Path, odd: list[Any]) -> None:
    log = put(tmp_path / "log.jsonl", jsonl(*VISITS, *odd))
    found = read_log(paths=log, format="jsonl", **EXPLODED)
    events = [("a", "x", None, 2.0), ("a", "y", None, 3.0), ("d", "x", None, 1.0)]
    assert found.events == events
    assert [one[1:3] for one in found.rejects] == [
        (3, "explode"),
        (4, "item_missing"),
        *([(5, "explode"), (6, "json")] if odd else []),
    ]
    assert found.rejects[1][3] == json.dumps(VISITS[3]).encode()


def test_a_list_of_events_in_each_row_of_parquet(tmp_path: Path) -> None:
    log = put(tmp_path / "log.parquet", {n: [one[n] for one in VISITS] for n in VISITS[0]})
    found = read_log(paths=log, format="parquet", **EXPLODED)
    assert found.events == [("a", "x", None, 2.0), ("a", "y", None, 3.0), ("d", "x", None, 1.0)]
    assert [one[1:3] for one in found.rejects] == [(3, "explode"), (4, "item_missing")]


def test_empty_lists_are_counted(tmp_path: Path, sail: SparkSession) -> None:
    put(tmp_path / "log" / "a.jsonl", jsonl(*VISITS, {"visit": {"seen": []}}))
    put(tmp_path / "log" / "b.jsonl", jsonl(*VISITS) + "no object\n")
    put(tmp_path / "log" / "c.parquet", {n: [one[n] for one in VISITS] for n in VISITS[0]})
    settings = {**EXPLODED, "format": "auto", "time": "", "max_rejects": 0.5, "merge_by": "none"}
    config = tree(tmp_path, str(tmp_path / "log"), events=settings, shards={"split": "random",
                  "valid": 0.1, "test": 0.1})  # fmt: skip
    counters = build(sail, config, "events").artifact("events").counters
    assert counters["empty_lists"] == 4
    assert (counters["rows_in"], counters["events"], counters["rejected"]) == (16, 9, 7)


def test_a_list_of_ids(tmp_path: Path) -> None:
    log = put(tmp_path / "log.jsonl", jsonl({"u": "a", "items": [1, "2"]}, {"u": "b", "items": 3}))
    found = read_log(paths=log, format="jsonl", user="u", item="items", explode="items")
    assert [event[:2] for event in found.events] == [("a", "1"), ("a", "2")]
    assert [one[1:3] for one in found.rejects] == [(2, "explode")]


VALUES = [
    "a", "", "é", "\ud83c\udfac", "a\"b\\c/\n", 7, -1, 2.5, 7.0, 1e3, 1e-7, 1e22, 2**53 + 1, 2**70,
    True, None, [], {}, "\udc00",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_of_json_is_read_alike_by_both_parsers(tmp_path: Path, value: Any) -> None:
    """Alone in a file Arrow may read it; beside a broken line and other types it may not."""
    record = {"user_id": value, "item_id": "i", "time": START}
    alone = read_log(paths=put(tmp_path / "a", jsonl(record)), format="jsonl")
    mixed = [{"user_id": "s"}, {"user_id": 1}, {"user_id": 0.5}, record]
    among = read_log(paths=put(tmp_path / "b", "{\n" + jsonl(*mixed)), format="jsonl")
    assert alone.events == [event for event in among.events if event[1] == "i"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"date_from": "soon"}, "date_from: a day such as 2026-11-24, not 'soon'"),
        ({"date_from": "2026-11-02", "date_to": "2026-11-01"}, "date_to: .* lies before date_from"),
        ({"date_to": "2026-11-02", "date_folders": []}, "date_folders: needed"),
        ({"explode": "events"}, "explode: lists are read from jsonl, parquet, orc"),
        ({"time_unit": "pattern"}, "time_patterns: at least one is needed"),
        ({"time_patterns": "%F"}, "time_patterns: read only with time_unit"),
        ({"aliases": {"a": ["b", "b"]}}, "aliases: 'b' stands there twice"),
        ({"aliases": {"a": ["c"], "b": ["c"]}}, "aliases: 'c' stands there twice"),
    ],
)
def test_keys_that_do_not_fit_together(settings: dict[str, Any], message: str) -> None:
    from embedmill.pipeline.config import parse

    with pytest.raises(ConfigError, match=f"events.{message}"):
        parse(tree("runs", "log", events=settings))
