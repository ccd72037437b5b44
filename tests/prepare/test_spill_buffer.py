from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.prepare.engine.backpressure import Backpressure
from embedmill.pipeline.prepare.engine.spill_buffer import SpillBuffer

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int64())])


def batch(start: int, rows: int = 1000) -> pa.RecordBatch:
    numbers = range(start, start + rows)
    return pa.record_batch([[f"id-{n}" for n in numbers], list(numbers)], schema=SCHEMA)


@pytest.mark.parametrize("room", [0, 40_000, 1 << 30])
def test_rows_come_back_in_order_from_memory_and_from_disk(room: int) -> None:
    limits = Backpressure(max_buffered=room)
    added = [batch(0), batch(1000, 0), batch(1000), batch(2000)]
    buffer = SpillBuffer.from_batches(added, SCHEMA, limits)
    assert limits.buffered <= room
    assert buffer.spilled == (room < 1 << 30)
    table = buffer.drain()
    assert table.equals(pa.Table.from_batches([batch(0, 3000)]))
    assert table["id"].num_chunks == 1
    assert limits.buffered == 0


def test_buffers_share_one_memory_limit() -> None:
    limits = Backpressure(max_buffered=int(2.5 * batch(0).nbytes))
    first = SpillBuffer.from_batches([batch(0)], SCHEMA, limits)
    second = SpillBuffer.from_batches([batch(1), batch(2)], SCHEMA, limits)
    third = SpillBuffer.from_batches([batch(3)], SCHEMA, limits)
    assert [one.spilled for one in (first, second, third)] == [False, True, False]
    del first  # as of a task that failed
    assert limits.buffered == batch(3).nbytes
    assert third.drain().num_rows == 1000
    assert second.drain().num_rows == 2000
    assert limits.buffered == 0


def test_an_empty_buffer_is_an_empty_table() -> None:
    assert SpillBuffer.from_batches([], SCHEMA).drain().equals(SCHEMA.empty_table())


def test_memory_is_counted_across_threads() -> None:
    limits = Backpressure(max_buffered=5 * batch(0).nbytes)
    tables: list[pa.Table] = []

    def collect(at: int) -> None:
        added = [batch(1000 * at + 10 * n, 10) for n in range(100)]
        tables.append(SpillBuffer.from_batches(added, SCHEMA, limits).drain())

    threads = [threading.Thread(target=collect, args=[at]) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for table in tables for n in table["n"].to_pylist()) == list(range(8000))
    assert limits.buffered == 0


def test_groups_come_by_rising_key_without_it() -> None:
    rows = pa.record_batch({"k": pa.array([2, 1, 2], pa.int64()), "v": pa.array([5, 6, 7])})
    buffer = SpillBuffer.from_batches([rows], rows.schema)
    keys: list[int] = []

    def work(key: int, rows: pa.Table) -> Iterator[pa.RecordBatch]:
        keys.append(key)
        yield from rows.to_batches()

    groups = [group.to_pylist() for group in buffer.drain_groups("k", work)]
    assert keys == [1, 2]
    assert groups == [[{"v": 6}], [{"v": 5}, {"v": 7}]]


def test_a_full_disk_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: full)
        with pytest.raises(MachineError, match=r"spilled to disk.*set TMPDIR"):
            SpillBuffer.from_batches([batch(0, 100_000)], SCHEMA, Backpressure(max_buffered=0))
