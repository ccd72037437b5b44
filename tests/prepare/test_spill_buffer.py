from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.prepare.engine import spill_buffer
from embedmill.pipeline.prepare.engine.spill_buffer import Held

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int64())])


def batch(start: int, rows: int = 1000) -> pa.RecordBatch:
    numbers = range(start, start + rows)
    return pa.record_batch([[f"id-{n}" for n in numbers], list(numbers)], schema=SCHEMA)


@pytest.mark.parametrize("room", [0, 40_000, 1 << 30])
def test_rows_come_back_in_order_wherever_they_were(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill_buffer, "ROOM", room)
    kept = Held.of([batch(0), batch(1000, 0), batch(1000), batch(2000)], SCHEMA)
    assert spill_buffer._held <= room
    assert (kept._file is None) == (room == 1 << 30)
    table = kept.table()
    assert table.equals(pa.Table.from_batches([batch(0, 3000)]))
    assert table["id"].num_chunks == 1
    assert spill_buffer._held == 0


def test_tasks_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill_buffer, "ROOM", int(2.5 * batch(0).nbytes))
    first, second = Held.of([batch(0)], SCHEMA), Held.of([batch(1), batch(2)], SCHEMA)
    third = Held.of([batch(3)], SCHEMA)
    assert [one._file is None for one in (first, second, third)] == [True, False, True]
    del first  # as of a task that failed
    assert spill_buffer._held == batch(3).nbytes
    assert third.table().num_rows == 1000
    assert second.table().num_rows == 2000
    assert spill_buffer._held == 0


def test_nothing_held_is_an_empty_table() -> None:
    assert Held.of([], SCHEMA).table().equals(SCHEMA.empty_table())


def test_room_is_counted_across_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill_buffer, "ROOM", 5 * batch(0).nbytes)
    tables: list[pa.Table] = []
    work = [
        threading.Thread(
            target=lambda at=at: tables.append(
                Held.of([batch(1000 * at + 10 * n, 10) for n in range(100)], SCHEMA).table()
            )
        )
        for at in range(8)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(n for table in tables for n in table["n"].to_pylist()) == list(range(8000))
    assert spill_buffer._held == 0


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill_buffer, "ROOM", 0)
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(spill_buffer.tempfile, "TemporaryFile", lambda prefix: full)
        with pytest.raises(MachineError, match="set aside"):
            Held.of([batch(0, 100_000)], SCHEMA)
