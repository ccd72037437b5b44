"""Files compressed, tiny, large, with lines and ids without end."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pyspark.sql import SparkSession

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers import columnar, text_lines
from embedmill.pipeline.prepare.readers.compression import codec_of
from embedmill.pipeline.prepare.readers.read_plan import plan_reads
from tests.support.log_reading import read_log
from tests.support.prepare_builds import build, put, rows, tree, written

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lz4": lambda data: pa.Codec("lz4").compress(data, asbytes=True),
}


@pytest.mark.parametrize("ending", PACKED)
def test_compressed_files_of_several_members(tmp_path: Path, ending: str) -> None:
    pack = PACKED[ending]
    log = tmp_path / f"log.tsv.{ending}"
    put(log, pack(b"user_id\titem_id\na\tx\n") + pack(b"b\ty\n"))
    found = read_log(paths=str(log), format="auto")
    assert [event[:2] for event in found.events] == [("a", "x"), ("b", "y")]
    put(log, pack(b"user_id\titem_id\na\tx\n" * 100)[:-9])
    with pytest.raises(InputError, match="compression is damaged"):
        read_log(paths=str(log), format="auto")


def test_compression_that_is_not_read() -> None:
    with pytest.raises(
        InputError, match=r"its compression is not supported. Compress it anew as one of"
    ):
        codec_of("logs/a.csv.snappy")


def test_a_line_without_end_is_one_reject(tmp_path: Path) -> None:
    long = b"x" * 5_000_000
    data = b"user_id\titem_id\na\tx\n" + long + b"\nb\ty\n\nc\t" + long
    log = put(tmp_path / "log", data)
    found = read_log(paths=log, max_line_bytes=100_000)
    assert [event[:2] for event in found.events] == [("a", "x"), ("b", "y")]
    assert [one[1:3] for one in found.rejects] == [
        (3, "line_too_long"), (5, "columns"), (6, "line_too_long"),
    ]  # fmt: skip
    assert found.rejects[0][3] == b"x" * 4096


def test_ids_of_a_megabyte(tmp_path: Path, sail: SparkSession) -> None:
    long = "u" * 2**20
    log = written(tmp_path / "log", [f"{long}\ti\t1\t1", f"a\t{long}\t1\t1", "a\tb\t1\t1"])
    run = build(sail, tree(tmp_path, str(log), events={"max_rejects": 0.7}), "events")
    assert run.artifact("events").counters["rejected.id_too_long"] == 2
    assert [len(r["raw"]) for r in rows(run, "events", "rejects")] == [4096, 4096]
    wide = {"max_rejects": 0.7, "max_id_bytes": 2**20}
    run = build(sail, tree(tmp_path / "b", str(log), events=wide), "events")
    assert max(len(r["user"]) for r in rows(run, "events", "data")) == 2**20


def test_all_rejects_are_counted_and_the_first_of_each_reason_kept(
    tmp_path: Path, sail: SparkSession
) -> None:
    bad = [line for n in range(500) for line in (f"bad {n}", f"u\ti\tnever{n}\t1")]
    log = written(tmp_path / "log", ["u\ti\t1\t1", *bad])
    settings = {"max_rejects": 1.0, "keep_rejects": 3}
    run = build(sail, tree(tmp_path, str(log), events=settings), "events")
    counters = run.artifact("events").counters
    assert (counters["rejected.columns"], counters["rejected.time"]) == (500, 500)
    assert (counters["rejected"], counters["rejects_kept"], counters["rows_in"]) == (1000, 6, 1001)
    found = [(r["line"], r["reason"]) for r in rows(run, "events", "rejects")]
    assert found == [
        (3, "columns"), (4, "time"), (5, "columns"), (6, "time"), (7, "columns"), (8, "time"),
    ]  # fmt: skip


def test_thousands_of_tiny_files_are_few_tasks(tmp_path: Path, sail: SparkSession) -> None:
    for n in range(1200):
        put(tmp_path / "log" / f"{n % 20}" / f"{n}.tsv", f"user_id\titem_id\nu{n}\ti\nbad\n")
    settings = {"time": "", "weight": "", "max_rejects": 0.5}
    config = tree(tmp_path, str(tmp_path / "log"), events=settings, shards={"split": "random",
                  "valid": 0.1, "test": 0.1})  # fmt: skip
    run = build(sail, config, "events")
    assert run.artifact("events").counters["events"] == 1200
    assert run.artifact("events").counters["rejects_kept"] == 1000
    assert len(run.artifact("events").files("rejects")) == 1


def test_splits_of_one_task_lie_together(tmp_path: Path) -> None:
    for n, size in enumerate((5, 3, 9, 1, 1)):
        put(tmp_path / f"{n}", b"user_id\titem_id\n" + b"a\tb\n" * (size << 18))
    slices = plan_reads(EventsConfig(paths=str(tmp_path))).slices
    assert [part.task for part in slices] == [0, 1, 2, 3, 3]


def test_a_large_file_is_read_in_parts(
    tmp_path: Path, sail: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = [f"u{n % 7}\ti{n % 5}\t{n}\t1" if n % 10 else f"bad {n}" for n in range(400)]
    log = written(tmp_path / "log", ["", *body])
    with log.open("a") as out:
        out.write("\n\n\r\n")
    settings = {"max_rejects": 0.2}
    whole = build(sail, tree(tmp_path / "a", str(log), events=settings), "events")
    monkeypatch.setattr(text_lines, "_SLICE_BYTES", 500)
    run = build(sail, tree(tmp_path / "b", str(log), events=settings), "events")
    assert len(plan_reads(run.config.events).slices) > 8
    assert rows(run, "events", "rejects") == rows(whole, "events", "rejects")
    assert rows(run, "events", "data") == rows(whole, "events", "data")
    assert whole.artifact("events").counters["rejected"] == 41


def test_a_large_parquet_is_read_by_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"user_id": [f"u{n}" for n in range(100)], "item_id": list(range(100))})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=10)
    whole = read_log(paths=str(tmp_path), format="parquet")
    monkeypatch.setattr(columnar, "SLICE_BYTES", 300)
    found = read_log(paths=str(tmp_path), format="parquet")
    assert found == whole
    assert len(plan_reads(EventsConfig(paths=str(tmp_path), format="parquet")).slices) > 3
