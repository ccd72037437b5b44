"""Stage `events` on Sail: every source gives the same events, every bad line is counted."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pyspark.sql import SparkSession

from embedmill.pipeline.errors import ConfigError, InputError, RejectsError
from embedmill.pipeline.prepare.readers.file_formats import FORMATS
from tests.support.prepare_builds import build, hashes, rows, tree, written

# Twenty events; ids that need care in every format.
USERS = ["ann", "bob", 'q"uote', "comma,tab\t", "ünï"]
GOLDEN = [
    (USERS[n % 5], f"item {n % 4}", 1_600_000_000 + n * 1000, float(n % 5) + 0.5) for n in range(20)
]
NAMES = ("user_id", "item_id", "time", "rating")


def _tsv(path: Path) -> dict[str, Any]:
    lines = ["\t".join(NAMES)]
    lines += [f"{u.replace(chr(9), ' ')}\t{i}\t{t}\t{w}" for u, i, t, w in GOLDEN]
    path.write_text("\n".join([*lines, "one\ttwo"]), encoding="utf-8")
    return {"format": "tsv"}


def _quoted(separator: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        def field(text: object) -> str:
            return '"' + str(text).replace('"', '""') + '"'

        lines = [separator.join(NAMES)] + [separator.join(map(field, e)) for e in GOLDEN]
        path.write_text("\r\n".join([*lines, '"open']), encoding="utf-8")

    return write


def _csv(path: Path) -> dict[str, Any]:
    _quoted(",")(path)
    return {"format": "csv"}


def _delimited(path: Path) -> dict[str, Any]:
    _quoted(";")(path)
    return {"format": "delimited", "separator": ";"}


def _jsonl(path: Path) -> dict[str, Any]:
    lines = [json.dumps(dict(zip(NAMES, event, strict=True))) for event in GOLDEN]
    path.write_text("\n".join([*lines, "{"]) + "\n", encoding="utf-8")
    return {"format": "jsonl"}


def _parquet(path: Path) -> dict[str, Any]:
    bad = ("bad", "bad", 1_600_000_000, float("nan"))
    columns = zip(*[*GOLDEN, bad], strict=True)
    table = pa.table(dict(zip(NAMES, map(list, columns), strict=True)))
    pq.write_table(table, path, row_group_size=8)
    return {"format": "parquet"}


FIXTURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tsv": _tsv,
    "csv": _csv,
    "delimited": _delimited,
    "jsonl": _jsonl,
    "parquet": _parquet,
}


def test_every_format_has_a_fixture() -> None:
    elsewhere = {"avro", "delta", "iceberg", "orc"}  # test_row_formats.py and test_tables.py
    assert FIXTURES.keys() | elsewhere == FORMATS.keys()


@pytest.mark.parametrize("name", FIXTURES)
def test_a_source_gives_the_golden_events_and_counts_its_bad_line(
    tmp_path: Path, sail: SparkSession, name: str
) -> None:
    settings = {**FIXTURES[name](tmp_path / "log"), "max_rejects": 0.1}
    run = build(sail, tree(tmp_path, str(tmp_path / "log"), events=settings), "events")
    golden = [(u.replace("\t", " ") if name == "tsv" else u, i, t, w) for u, i, t, w in GOLDEN]
    found = [
        (r["user"], r["item"], r["time"] // 10**6, r["weight"]) for r in rows(run, "events", "data")
    ]
    assert sorted(found) == sorted(golden)
    counters = run.artifact("events").counters
    assert (counters["rows_in"], counters["events"], counters["rejected"]) == (21, 20, 1)
    (rejected,) = rows(run, "events", "rejects")
    assert (rejected["file"], rejected["line"]) == (
        "log",
        21 if name in ("jsonl", "parquet") else 22,
    )
    assert counters[f"rejected.{rejected['reason']}"] == 1


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compression_changes_nothing(tmp_path: Path, sail: SparkSession, ending: str) -> None:
    settings = {**_csv(tmp_path / "log"), "max_rejects": 0.1}
    plain = build(sail, tree(tmp_path / "a", str(tmp_path / "log"), events=settings), "events")
    pack = {"gz": gzip.compress, "zst": zstandard.compress}[ending]
    packed = tmp_path / f"log.{ending}"
    packed.write_bytes(pack((tmp_path / "log").read_bytes()))
    same = build(sail, tree(tmp_path / "b", str(packed), events=settings), "events")
    assert hashes(same, "events", "data") == hashes(plain, "events", "data")


def test_globs_and_folders(tmp_path: Path, sail: SparkSession) -> None:
    written(tmp_path / "logs" / "a.tsv", ["u1\ti1\t1\t1"])
    written(tmp_path / "logs" / "deep" / "b.tsv", ["u2\ti2\t2\t2"])
    (tmp_path / "logs" / "_SUCCESS").write_text("")
    (tmp_path / "logs" / "empty.tsv").write_text("")
    folder = build(sail, tree(tmp_path / "x", str(tmp_path / "logs")), "events")
    parts = [str(tmp_path / "logs" / "*.tsv"), str(tmp_path / "logs" / "deep")]
    globs = build(sail, tree(tmp_path / "y", parts), "events")
    assert sorted(r["user"] for r in rows(folder, "events", "data")) == ["u1", "u2"]
    assert hashes(folder, "events") == hashes(globs, "events")
    assert folder.artifact("events").counters["rows_in"] == 2


def test_bad_lines_are_kept_with_file_reason_and_bytes(tmp_path: Path, sail: SparkSession) -> None:
    good = [f"u{n}\ti{n}\t{n}\t1" for n in range(95)]
    log = tmp_path / "logs" / "a.tsv"
    written(log, ["only two\tcolumns", *good, "u\ti\tsoon\t1", "u\ti\t-5\t1", "\ti\t1\t1"])
    with log.open("ab") as out:
        out.write(b"caf\xe9\ti\t1\t1\n")
        out.write(b"u\ti\t1\tinf\n")
    run = build(
        sail, tree(tmp_path, str(tmp_path / "logs"), events={"max_rejects": 0.06}), "events"
    )
    found = rows(run, "events", "rejects")
    assert [(r["file"], r["line"], r["reason"], r["raw"]) for r in found] == [
        ("a.tsv", 2, "columns", b"only two\tcolumns"),
        ("a.tsv", 98, "time", b"u\ti\tsoon\t1"),
        ("a.tsv", 99, "time_range", b"u\ti\t-5\t1"),
        ("a.tsv", 100, "user_missing", b"\ti\t1\t1"),
        ("a.tsv", 101, "encoding", b"caf\xe9\ti\t1\t1"),
        ("a.tsv", 102, "weight_range", b"u\ti\t1\tinf"),
    ]
    counters = run.artifact("events").counters
    assert (counters["rows_in"], counters["events"], counters["rejected"]) == (101, 95, 6)


def test_too_many_bad_lines_fail_with_the_commonest_reasons(
    tmp_path: Path, sail: SparkSession
) -> None:
    bad = ["x", "x", "x", "u\ti\tsoon\t1", "u\ti\tsoon\t1", "u\t\t1\t1", "u\ti\t1\tnan"]
    log = written(tmp_path / "log", ["u\ti\t1\t1", *bad])
    with pytest.raises(RejectsError, match=r"7 of 8 lines are bad.*3 'columns'.*2 'time'.*1 'item"):
        build(sail, tree(tmp_path, str(log)), "events")
    assert not (tmp_path / "tiny" / "events" / "manifest.json").exists()
    assert pq.read_table(tmp_path / "tiny/events/rejects/part-00000.parquet").num_rows == 7


def test_all_lines_bad_fail_whatever_the_threshold(tmp_path: Path, sail: SparkSession) -> None:
    log = written(tmp_path / "log", ["x", "y"])
    with pytest.raises(RejectsError, match="2 of 2 lines are bad"):
        build(sail, tree(tmp_path, str(log), events={"max_rejects": 1.0}), "events")


def test_one_bad_line_of_many_is_no_failure(tmp_path: Path, sail: SparkSession) -> None:
    log = written(tmp_path / "log", [*(f"u{n}\ti\t1\t1" for n in range(99)), "bad"])
    counters = build(sail, tree(tmp_path, str(log)), "events").artifact("events").counters
    assert counters["rejected.columns"] == counters["rejected"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the log is empty"),
        ("user_id\titem_id\ttime\trating\n", "the log has no rows"),
        ("user_id,item_id,time,rating\nu,i,1,1\n", r"Is the separator '\\t'"),
        ("user_id\titem_id\ttime\tstars\nu\ti\t1\t1\n", "has no column 'rating'"),
    ],
)
def test_a_log_that_cannot_be_used(
    tmp_path: Path, sail: SparkSession, text: str, message: str
) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    with pytest.raises(InputError, match=message):
        build(sail, tree(tmp_path, str(log)), "events")


def test_a_missing_file(tmp_path: Path, sail: SparkSession) -> None:
    with pytest.raises(InputError, match="no such file"):
        build(sail, tree(tmp_path, str(tmp_path / "nothing")), "events")


def test_a_path_named_twice(tmp_path: Path, sail: SparkSession) -> None:
    log = str(written(tmp_path / "log", ["u\ti\t1\t1"]))
    with pytest.raises(InputError, match="named by two paths"):
        build(sail, tree(tmp_path, [log, log]), "events")


def test_an_unknown_encoding(tmp_path: Path, sail: SparkSession) -> None:
    log = written(tmp_path / "log", ["u\ti\t1\t1"])
    with pytest.raises(ConfigError, match="unknown encoding 'utf-9'"):
        build(sail, tree(tmp_path, str(log), events={"encoding": "utf-9"}), "events")


def test_duplicates_are_merged_and_counted(tmp_path: Path, sail: SparkSession) -> None:
    lines = ["u\ti\t1\t1", "u\ti\t1\t4", "u\ti\t2\t3", "u\tj\t1\t1"]
    log = str(written(tmp_path / "log", lines))
    event = build(sail, tree(tmp_path / "a", log), "events")
    found = [(r["item"], r["time"], r["weight"]) for r in rows(event, "events", "data")]
    assert found == [("i", 10**6, 4.0), ("i", 2 * 10**6, 3.0), ("j", 10**6, 1.0)]
    assert event.artifact("events").counters["merged"] == 1
    pair = build(
        sail,
        tree(tmp_path / "b", log, events={"merge_by": "pair", "merge_weight": "count"}),
        "events",
    )
    found = [(r["item"], r["time"], r["weight"]) for r in rows(pair, "events", "data")]
    assert found == [("i", 2 * 10**6, 3.0), ("j", 10**6, 1.0)]


def test_items_with_titles_and_categories(tmp_path: Path, sail: SparkSession) -> None:
    log = str(written(tmp_path / "log", ["u\ti\t1\t1"]))
    meta = tmp_path / "items.csv"
    meta.write_text('id,name,year,kind\ni,"A, B",1999,x|y\nj,C,,\ni,again,1,z\n,none,1,z\nshort\n')
    items = {
        "paths": str(meta),
        "format": "csv",
        "item": "id",
        "title": "{name} ({year})",
        "categories": "kind",
    }
    run = build(sail, tree(tmp_path, log, events={"items": items}), "events")
    assert rows(run, "events", "items.parquet") == [
        {"item": "i", "title": "A, B (1999)", "categories": ["x", "y"]},
        {"item": "j", "title": "C ()", "categories": []},
    ]
    counters = run.artifact("events").counters
    assert {n: c for n, c in counters.items() if n.startswith("items")} == {
        "items_meta": 2,
        "items_rejected": 2,
        "items_repeated": 1,
    }
    wrong = {**items, "title": "{title}"}
    with pytest.raises(InputError, match="has no column 'title'; it has 'id', 'name'"):
        build(sail, tree(tmp_path / "b", log, events={"items": wrong}), "events")


def test_a_changed_log_makes_the_artifact_stale(tmp_path: Path, sail: SparkSession) -> None:
    from embedmill.pipeline.errors import StaleArtifactError
    from embedmill.pipeline.prepare import events

    log = written(tmp_path / "log", ["u\ti\t1\t1"])
    run = build(sail, tree(tmp_path, str(log)), "events")
    assert run.up_to_date("events", events.source_stamps(run))
    written(log, ["u\ti\t1\t2"])
    with pytest.raises(
        StaleArtifactError, match=r"files of the log came or changed .*\(1 changed\): log"
    ):
        run.up_to_date("events", events.source_stamps(run))


def test_a_killed_stage_is_built_again_with_the_same_bytes(
    tmp_path: Path, sail: SparkSession
) -> None:
    log = written(tmp_path / "log", [f"u{n % 7}\ti{n % 5}\t{n}\t1" for n in range(50)])
    whole = build(sail, tree(tmp_path / "a", str(log)))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for stage in ("events", "vocab", "shards"):
        (tmp_path / "b" / "tiny" / stage / "manifest.json").unlink()
        for path in (tmp_path / "b" / "tiny" / stage).rglob("*.parquet"):
            path.write_bytes(path.read_bytes()[:7])  # half written
    again = build(sail, tree(tmp_path / "b", str(log)))
    for stage in ("events", "vocab", "shards"):
        assert again.artifact(stage).manifest.content == whole.artifact(stage).manifest.content
        assert list(again.artifact(stage).verify()) == []


def test_bytes_of_bad_records_beside_quoted_ones(tmp_path: Path, sail: SparkSession) -> None:
    log = tmp_path / "log.csv"
    log.write_text(
        'user_id,item_id,time,rating\n"a",i,x,1\nb,i,y,1\n"c",i,3,1\n"d\nd",i,z,1\ne,i,5,1\n'
    )
    settings = {"format": "csv", "max_rejects": 0.9}
    run = build(sail, tree(tmp_path, str(log), events=settings), "events")
    found = [(r["line"], r["raw"]) for r in rows(run, "events", "rejects")]
    assert found == [(2, b'"a",i,x,1'), (3, b"b,i,y,1"), (5, b'"d\nd",i,z,1')]
    assert sorted(r["user"] for r in rows(run, "events", "data")) == ["c", "e"]
